"""A real Chromium: one that is installed, driven by playwright. Nothing is downloaded."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MISSING = "no Chromium on the PATH: apt-get install chromium (or Google Chrome)"
OUTAGE = "Failed to load resource: net::"
"""The browser's own message while a program is away; the page shows that anyway."""


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Skips the test where none is installed."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(MISSING)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextlib.contextmanager
def visit(browser: Browser, address: str, *, width: int = 1200, dark: bool = False) -> Iterator[Page]:
    """A page of an admin address; checks at the end that the browser reported no problem and asked no other host."""
    complaints: list[str] = []

    def logged(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not message.text.startswith(OUTAGE):
            complaints.append(message.text)

    def requested(request: Request) -> None:
        if not request.url.startswith(f"http://{address}/"):
            complaints.append(f"asked for {request.url}")

    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme="dark" if dark else "light")
    page.on("console", logged)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", requested)
    page.goto(f"http://{address}/")
    yield page
    page.unroute_all(behavior="ignoreErrors")  # an answer under way may find the program gone
    page.close()
    assert complaints == []
