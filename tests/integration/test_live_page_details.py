"""Details of the live page, in a real Chromium: files, certificates, the order of streams."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Route, expect

from tests.integration.test_live_page import MARKUP, of_many, scroll_widths, wait_for_links
from tests.support.browser import chromium, visit
from tests.support.pages import Installed, steady_load

LINES = """(cell) => {
  const range = document.createRange();
  range.selectNodeContents(cell);
  return range.getClientRects().length;
}"""
"""How many lines a cell's text takes."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def installed(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    with steady_load(tmp_path_factory.mktemp("page")) as running:
        yield running


def test_a_stream_s_files_are_shown_when_they_are_opened_with_their_topic_and_the_time_of_percentiles(
    browser: Browser, installed: Installed
) -> None:
    with visit(browser, installed.forwarder, width=320, dark=True) as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url) if request.url.endswith("/source") else None)
        wait_for_links(page)
        expect(page.locator('td[data-stream="http"][data-measure="Batch duration"]')).to_contain_text("last 5 minutes")
        expect(page.locator('th[data-stream="http"]')).to_contain_text("topic http")
        assert not asked, "nobody opened them yet"
        summary = page.locator("summary", has_text="files of http")
        summary.focus()
        page.keyboard.press("Enter")
        expect(summary).to_have_text("files of http: 1")
        row = page.locator("details", has=summary).locator("tbody tr")
        expect(row).to_have_text(re.compile(r"http\.log[\d.,]+ [kMG]?B[\d,]+[\d.,]+ [kMG]?B$"))
        before = row.inner_text()
        expect(row).not_to_have_text(before, timeout=15_000)
        assert scroll_widths(page, [320, 1200]) == [320, 1200]
        page.set_viewport_size({"width": 320, "height": 1000})
        offset = row.get_by_role("cell").nth(2)
        assert offset.evaluate(LINES) == 1, "a number is not broken"


def test_names_of_files_are_text_and_many_are_counted(browser: Browser, installed: Installed) -> None:
    files = [{"path": MARKUP, "size_bytes": 5, "offset": 2, "unread_bytes": 3}] * 20
    answer = json.dumps({"type": "file", "files": files, "more_files": 980})
    with visit(browser, installed.forwarder) as page:
        page.route("**/source", lambda route: route.fulfill(content_type="application/json", body=answer))
        page.locator("summary", has_text="files of http").click()
        details = page.locator("details", has_text="files of http: 1,000")
        expect(details.locator("tbody tr")).to_have_count(20)
        expect(details.locator("tbody tr").first).to_have_text(f"{MARKUP}5 B23 B")
        expect(details.locator(".note")).to_have_text("and 980 more, with no more unread than these")
        assert page.locator("main b, main img").count() == 0


DAY = 86400


@pytest.mark.parametrize("program", ["forwarder", "receiver"])
@pytest.mark.parametrize(
    ("days", "level", "words"),
    [(12.6, "soon", "▲ 13 days left"), (-3, "expired", "✕ expired 3 days ago"), (15, "", "15")],
)
def test_certificates_that_expire_are_named_with_their_days(
    browser: Browser, installed: Installed, program: str, days: float, level: str, words: str
) -> None:
    def expiring(route: Route) -> None:
        answer = route.fetch().json()
        answer["certificates"][0] |= {"expires": answer["now"] + days * DAY, "section": MARKUP}
        route.fulfill(status=200, content_type="application/json", body=json.dumps(answer))

    peers = {"forwarder": "logreceiver", "receiver": "spiffe://demo/host-1"}
    with visit(browser, getattr(installed, program), width=320) as page:
        wait_for_links(page)
        summary = page.locator("#certificates summary")
        expect(summary).to_have_attribute("data-level", "")
        page.route("**/api/v1/streams", expiring)
        expect(summary).to_have_attribute("data-level", level)
        expect(summary).to_contain_text(f"the first to expire: {MARKUP} (its own), {words}")
        summary.click()
        expect(page.locator("#certificates tbody tr", has_text=peers[program])).to_contain_text("the other side's")
        assert page.locator("#certificates b, #certificates img").count() == 0
        assert scroll_widths(page, [320, 1200]) == [320, 1200]


def test_of_many_streams_those_with_faults_come_first_and_the_focus_stays(
    browser: Browser, installed: Installed
) -> None:
    with visit(browser, installed.forwarder) as page:
        page.route("**/api/v1/streams", of_many(40))
        names = page.locator("[data-row] button")
        expect(names).to_have_text([f"stream-{number}" for number in range(40)])
        page.get_by_role("button", name="stream-39", exact=True).focus()
        page.route("**/api/v1/streams", of_many(40, refused=2))
        expect(names).to_have_text([f"stream-{number}" for number in (38, 39, *range(38))])
        assert page.evaluate("document.activeElement.textContent") == "stream-39"
        page.route("**/api/v1/streams", of_many(40))
        expect(names).to_have_text([f"stream-{number}" for number in range(40)])
