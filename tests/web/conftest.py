"""Chromium, headless, and nothing but the page."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from web_page import Page as Served
from web_page import running_page

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with running_page(tmp_path_factory.mktemp("page")) as served:
        yield served


@pytest.fixture(scope="session")
def browser(served: Served) -> Iterator[Browser]:
    """It ends before the page does: until then Playwright keeps an event loop in this thread."""
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if path is None or not os.access(path, os.X_OK):
        pytest.fail(
            f"no Chromium: install one ({', '.join(NAMES)} on the PATH), or set CHROMIUM to its path; "
            f"got {path or 'none'}"
        )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def page(served: Served, browser: Browser) -> Iterator[Page]:
    """The page, loaded; whatever it reports to the console, or asks of others, fails the test."""
    context: BrowserContext = browser.new_context(viewport={"width": 1400, "height": 900}, reduced_motion="reduce")
    page, complaints = context.new_page(), []
    page.on("console", lambda message: complaints.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
    # Not "requestfailed": Chromium reports streams that were read to their end as aborted, now and then.
    page.on("response", lambda reply: reply.ok or complaints.append(f"{reply.status}: {reply.url}"))
    page.on("request", lambda request: request.url.startswith(served.url) or complaints.append(f"asks {request.url}"))
    page.goto(served.url)
    page.locator(".face").last.wait_for()
    yield page
    context.close()
    assert complaints == []
