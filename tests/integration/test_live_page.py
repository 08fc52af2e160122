"""The live page of both programs, in a real Chromium, over real processes: two streams, a receiver that stops."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from bench.lab.site import Site
from tests.support.browser import chromium, visit
from tests.support.pages import Installed, steady_load

SEEN_SECONDS = 3.0
BACK_MS = 30_000
STREAMS = {"http": "X25519", "pq-stream": "X25519MLKEM768"}
MARKUP = "<img src=x onerror=alert(1)><b>bold</b>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def installed(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    with steady_load(tmp_path_factory.mktemp("page")) as running:
        yield running


def state(stream: str) -> str:
    """A selector of the state in the head of a stream's column."""
    return f'th[data-stream="{stream}"] .state'


def wait_for_links(page: Page) -> None:
    for stream in STREAMS:
        expect(page.locator(state(stream))).to_have_attribute("data-state", "connected", timeout=BACK_MS)


def test_both_streams_are_shown_side_by_side_and_their_numbers_move(browser: Browser, installed: Installed) -> None:
    with visit(browser, installed.forwarder) as page:
        wait_for_links(page)
        for stream, group in STREAMS.items():
            head = page.get_by_role("columnheader", name=re.compile(rf"^{stream}\b"))
            expect(head).to_contain_text(f"{group} · TLSv1.3")
        expect(page.get_by_text("The links differ in TLS group alone: X25519 → X25519MLKEM768")).to_be_visible()
        size = page.locator(".tile", has_text="Handshake size").locator(".ratio")
        expect(size).to_have_text(re.compile(r"^[1-9]\.\d\d×$"))
        for stream in STREAMS:
            for measure in ("Batch duration", "TLS handshake", "Handshake size", "Throughput"):
                expect(page.get_by_role("rowheader", name=re.compile(measure))).to_be_visible()
                main = f'td[data-stream="{stream}"][data-measure="{measure}"] .main'
                expect(page.locator(main)).to_contain_text(re.compile(r"\d"))
            batches = page.locator(f'td[data-stream="{stream}"][data-measure="Batch duration"]')
            before = batches.inner_text()
            expect(batches).not_to_have_text(before, timeout=5_000)
            line = batches.locator("path.line")
            expect(line).to_have_attribute("d", re.compile("^M.*L"), timeout=5_000)


def stopped(site: Site) -> Callable[[], object]:
    site.receiver.signal(signal.SIGSTOP)
    return lambda: site.receiver.signal(signal.SIGCONT)


def killed(site: Site) -> Callable[[], object]:
    site.receiver.kill()
    return site.start_receiver


@pytest.mark.parametrize("away", [stopped, killed])
def test_a_receiver_that_is_away_is_seen_within_3_seconds_on_both_pages_and_so_is_its_return(
    browser: Browser, installed: Installed, away: Callable[[Site], Callable[[], object]]
) -> None:
    with visit(browser, installed.forwarder) as page, visit(browser, installed.receiver) as receivers_page:
        wait_for_links(page)
        expect(receivers_page.locator("#pulse-text")).to_have_text("live")
        began = time.monotonic()
        come_back = away(installed.site)
        try:
            for stream in STREAMS:
                away_sign = page.locator(f'{state(stream)}:is([data-state="unanswered"], [data-state="disconnected"])')
                away_sign.wait_for()
            assert time.monotonic() - began < SEEN_SECONDS
            receivers_page.get_by_text("Stale: no answer from logreceiver since").wait_for()
            assert time.monotonic() - began < SEEN_SECONDS
            expect(page).to_have_title(re.compile("^▲ logfwd on "))
        finally:
            come_back()
        wait_for_links(page)
        expect(receivers_page.locator("#pulse-text")).to_have_text("live", timeout=BACK_MS)
        expect(page).to_have_title(re.compile("^logfwd on "))


def test_a_forwarder_that_does_not_answer_is_shown_as_stale_within_3_seconds_and_the_page_recovers(
    browser: Browser, installed: Installed
) -> None:
    with visit(browser, installed.forwarder) as page:
        wait_for_links(page)
        began = time.monotonic()
        installed.site.forwarder.signal(signal.SIGSTOP)
        try:
            page.get_by_role("alert").get_by_text("Stale: no answer from logfwd since").wait_for()
            assert time.monotonic() - began < SEEN_SECONDS
            expect(page.locator("#pulse-text")).to_have_text(re.compile("^stale for "))
        finally:
            installed.site.forwarder.signal(signal.SIGCONT)
        expect(page.locator("#pulse-text")).to_have_text("live", timeout=BACK_MS)
        expect(page.get_by_role("alert").locator("p")).to_have_count(0)


def test_the_receivers_page_shows_links_by_group_outcomes_and_sink_time(browser: Browser, installed: Installed) -> None:
    with visit(browser, installed.forwarder) as page:
        wait_for_links(page)
    with visit(browser, installed.receiver, dark=True) as page:
        for stream, group in STREAMS.items():
            expect(page.get_by_role("columnheader", name=re.compile(rf"^{stream}\b"))).to_contain_text(f"1 × {group}")
            expect(page.locator(f'td[data-stream="{stream}"][data-measure="Batches"]')).to_contain_text("stored")
            expect(page.locator(f'td[data-stream="{stream}"][data-measure="Sink time"]')).to_contain_text("p99")
            page.get_by_text(f"newest links of {stream}: 1 of 1").click()
            links = page.get_by_role("table").filter(has=page.get_by_role("columnheader", name="identity"))
            expect(links.filter(has_text=group).filter(has_text="spiffe://demo/host-1").first).to_be_visible()


def scroll_widths(page: Page, widths: list[int]) -> list[int]:
    """How wide the page is on screens of these widths, laid out anew for each."""
    found = []
    for width in widths:
        page.set_viewport_size({"width": width, "height": 1000})
        found.append(page.evaluate("document.documentElement.scrollWidth"))
    return found


@pytest.mark.parametrize("program", ["forwarder", "receiver"])
def test_a_narrow_screen_needs_no_sideways_scroll(browser: Browser, installed: Installed, program: str) -> None:
    with visit(browser, getattr(installed, program), width=320) as page:
        wait_for_links(page)
        assert scroll_widths(page, [320, 375, 768]) == [320, 375, 768]


def test_what_the_api_says_is_text_and_never_markup(browser: Browser, installed: Installed) -> None:
    def spoil(route: Route) -> None:
        answer = route.fetch().json()
        answer["trouble"] = {MARKUP: MARKUP}
        for row in answer["streams"]:
            row |= {
                "mode": MARKUP,
                "stream": row["stream"] + MARKUP,
                "twin_of": row["twin_of"] and row["twin_of"] + MARKUP,
            }
            row["link"] = row["link"] and row["link"] | {"group": MARKUP, "version": MARKUP, "cipher": MARKUP}
            row["faults"]["link_failures"] = {MARKUP: 3}
        route.fulfill(status=200, content_type="application/json", body=json.dumps(answer))

    with visit(browser, installed.forwarder) as page:
        page.route("**/api/v1/streams", spoil)
        expect(page.get_by_role("alert")).to_contain_text(MARKUP)
        expect(page.locator("th .name").first).to_have_text(f"http{MARKUP}")
        expect(page.locator('[data-measure="Faults"]').first).to_contain_text(MARKUP)
        assert page.locator("main b, main img, #alerts b, #alerts img").count() == 0


def test_the_receivers_page_shows_how_its_way_to_the_brokers_is_protected(
    browser: Browser, installed: Installed
) -> None:
    way = {"group": "X25519MLKEM768", "version": "TLSv1.3", "authentication": MARKUP, "links": 7, "open_links": 3}
    plain = {"group": "none", "version": "none", "authentication": "none", "links": 2, "open_links": 0}

    def onto_kafka(route: Route, **changes: int) -> None:
        answer = route.fetch().json() | {"sink": [way | changes, plain]}
        route.fulfill(status=200, content_type="application/json", body=json.dumps(answer))

    with visit(browser, installed.receiver) as page:
        sink = page.locator("#sink")
        expect(sink).to_have_text("")
        page.route("**/api/v1/streams", onto_kafka)
        expect(sink).to_have_text(f"to the sink: 3 connections under X25519MLKEM768, TLSv1.3, {MARKUP}")
        page.route("**/api/v1/streams", lambda route: onto_kafka(route, open_links=0))
        expect(sink).to_contain_text("2 connections under no TLS before, none now")


def over_our_own_tls(route: Route) -> None:
    answer = route.fetch().json()
    for row in answer["streams"]:
        for link in row.get("newest_links", [row.get("link")]):
            if link is not None:
                link["stack"] = "tls13"
    route.fulfill(status=200, content_type="application/json", body=json.dumps(answer))


def test_a_mode_over_our_own_tls_is_marked_on_both_pages(browser: Browser, installed: Installed) -> None:
    with visit(browser, installed.forwarder) as page, visit(browser, installed.receiver) as receivers_page:
        for each in (page, receivers_page):
            head = each.get_by_role("columnheader", name=re.compile(r"^pq-stream\b"))
            expect(head.locator(".mode")).to_have_text("hybrid")
            each.route("**/api/v1/streams", over_our_own_tls)
            expect(head.locator(".mode")).to_have_text("hybrid (experimental)")
        links = receivers_page.locator("details", has_text="newest links of pq-stream")
        links.locator("summary").click()
        expect(links.get_by_role("cell", name="hybrid (experimental)")).to_have_count(1)


# -- whether records arrive ------------------------------------------------------------------------------------------


def of_many(count: int, *, refused: int = 0) -> Callable[[Route], None]:
    """An answer with so many streams, the last of them refused."""

    def answer(route: Route) -> None:
        real = route.fetch().json()
        row = real["streams"][0]
        streams = [row | {"stream": f"stream-{number}", "twin_of": None} for number in range(count)]
        sentence = "refused for 720 s: the peer refused: not_allowed: spiffe://demo/host-1 may not write stream"
        for bad in streams[count - refused :]:
            failure = {"reason": "not_allowed", "detail": "may not write", "at": real["now"] - 240}
            bad |= {"state": "disconnected", "link": None, "unlinked_seconds": 720, "last_failure": failure}
            real["trouble"][f"{bad['stream']}/link"] = f"{sentence} '{bad['stream']}'"
        route.fulfill(status=200, content_type="application/json", body=json.dumps(real | {"streams": streams}))

    return answer


def test_the_first_line_says_that_records_arrive_and_that_none_is_missing(
    browser: Browser, installed: Installed
) -> None:
    with visit(browser, installed.forwarder) as page:
        wait_for_links(page)
        verdict = page.locator("#verdict")
        expect(verdict).to_have_text(re.compile(r"^● All 2 streams arrive: [\d,]+ records acknowledged, .* 0 missing$"))
        expect(verdict).to_have_attribute("data-state", "connected")
        expect(page.locator('[data-row="http"] .number').first).to_have_text(re.compile(r"\d"))


def test_a_refused_stream_is_in_the_first_line_in_the_receiver_s_words(browser: Browser, installed: Installed) -> None:
    with visit(browser, installed.forwarder) as page:
        page.route("**/api/v1/streams", of_many(5, refused=1))
        verdict = page.locator("#verdict")
        expect(verdict).to_contain_text(
            "1 of 5 streams does not arrive: stream-4: refused for 720 s: spiffe://demo/host-1 may"
        )
        row = page.locator('[data-row="stream-4"]')
        expect(row).to_contain_text("✕ refused for 12 min")
        expect(row).to_contain_text("4 min ago: may not write")
        expect(page.get_by_role("alert").locator("p")).to_have_count(0)
        expect(page).to_have_title(re.compile("^▲ logfwd on "))


MISTAKES = {
    "forwarder": ("streams.d/http.toml", 'name = "http"', 'name = "http"\nremovd = true', "removd: is not known here"),
    "receiver": ("logreceiver.toml", "spiffe://demo/*", "spiffe://dmeo/*", "logreceiver reload --confirm "),
}


@pytest.mark.parametrize("program", MISTAKES)
def test_a_refused_reload_is_in_the_first_line_until_it_is_mended(
    browser: Browser, installed: Installed, program: str
) -> None:
    name, right, wrong, reason = MISTAKES[program]
    site, file = installed.site, installed.site.directory / name
    good = file.read_text()
    with visit(browser, getattr(installed, program)) as page:
        verdict, config = page.locator("#verdict"), page.locator("#config")
        expect(verdict).to_have_attribute("data-state", "connected")
        expect(config).to_have_text(re.compile(r"^configuration [0-9a-f]{12}, "))
        in_use = config.inner_text()[:26]
        try:
            file.write_text(good.replace(right, wrong))
            getattr(site, program).signal(signal.SIGHUP)
            expect(verdict).to_contain_text(
                "but the last reload was refused, and the configuration before it is in use"
            )
            expect(verdict).to_have_attribute("data-state", "unanswered")
            expect(config).to_have_text(re.compile(rf"^{in_use}, the reload [\d.]+ s ago was refused$"))
            expect(page.get_by_role("alert")).to_contain_text(reason)
            expect(page).to_have_title(re.compile("^▲ "))
        finally:
            file.write_text(good)
            getattr(site, program).signal(signal.SIGHUP)
        expect(verdict).to_have_attribute("data-state", "connected")
        expect(config).to_have_text(re.compile(rf"^{in_use}, reloaded [\d.]+ s ago$"))
        expect(page.get_by_role("alert").locator("p")).to_have_count(0)


def test_a_stream_has_the_same_state_in_the_table_and_in_its_section(browser: Browser, installed: Installed) -> None:
    with visit(browser, installed.forwarder) as page:
        page.route("**/api/v1/streams", of_many(2, refused=1))
        states = page.locator('[data-row="stream-1"] .state, [data-stream="stream-1"] .state')
        expect(states).to_have_text(["✕ refused for 12 min"] * 2)


def test_numbers_of_a_column_are_aligned_at_the_right(browser: Browser, installed: Installed) -> None:
    with visit(browser, installed.forwarder) as page:
        page.route("**/api/v1/streams", of_many(5))
        expect(page.locator("[data-row]")).to_have_count(5)
        ends = page.evaluate(
            """() => [...document.querySelectorAll(".overview tr")].map((row) => [...row.querySelectorAll(".number")]
              .map((cell) => { const range = document.createRange(); range.selectNodeContents(cell);
                               return Math.round(range.getBoundingClientRect().right); }))"""
        )
        assert len({tuple(row) for row in ends}) == 1, ends


@pytest.mark.parametrize(("streams", "most_pixels"), [(1, 1500), (5, 800), (40, 2200)])
def test_many_streams_are_a_table_whose_rows_open(
    browser: Browser, installed: Installed, streams: int, most_pixels: int
) -> None:
    with visit(browser, installed.forwarder) as page:
        page.route("**/api/v1/streams", of_many(streams))
        expect(page.locator("[data-row]")).to_have_count(streams)
        assert page.evaluate("document.documentElement.scrollHeight") <= most_pixels
        last = page.get_by_role("button", name=f"stream-{streams - 1}", exact=True)
        section = page.locator(f"section[aria-labelledby='streams-stream-{streams - 1}']")
        if streams > 3:
            expect(section).to_be_hidden()
            last.focus()
            page.keyboard.press("Enter")
        expect(section).to_be_visible()
        expect(last).to_have_attribute("aria-expanded", "true")
        expect(section.locator('[data-measure="Spool"] .main')).to_contain_text(re.compile(r"\d"))


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("streams", [1, 5, 40])
def test_no_number_of_streams_needs_a_sideways_scroll(
    browser: Browser, installed: Installed, streams: int, dark: bool
) -> None:
    with visit(browser, installed.forwarder, width=320, dark=dark) as page:
        page.route("**/api/v1/streams", of_many(streams, refused=min(streams - 1, 3)))
        expect(page.locator("[data-row]")).to_have_count(streams)
        assert scroll_widths(page, [320, 375, 1200]) == [320, 375, 1200]
