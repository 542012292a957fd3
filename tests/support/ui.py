"""Airflow's own UI in a real Chromium, driven by Playwright."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import ConsoleMessage, FrameLocator, Page, Request, sync_playwright

from support.browser import find_chromium

# What axe-core calls so keeps somebody from reading a page.
_SERIOUS = {"serious", "critical"}
_OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]


@dataclass
class Ui:
    """One person at Airflow's UI.

    Attributes:
        page: the browser's window.
        address: Airflow's.
        complaints: errors that the browser told of Orchard's pages.
        hosts: that Orchard's pages asked.
    """

    page: Page
    address: str
    complaints: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)

    def log_in(self, user: str, password: str) -> None:
        self.page.goto(f"{self.address}/auth/login")
        self.page.locator("input[name=username]").fill(user)
        self.page.locator("input[name=password]").fill(password)
        self.page.locator("button[type=submit]").click()
        self.page.wait_for_url(lambda url: "/auth/" not in url)

    def open_orchard(self) -> FrameLocator:
        """Open what stands behind Browse > Orchard; return the frame that shows Orchard's pages, one after the other."""
        self.page.goto(f"{self.address}/plugin/orchard")
        return self.page.frame_locator("iframe")

    def faults(self, frame: FrameLocator, *, is_dark: bool = False) -> list[str]:
        """Return what axe-core finds in a frame's page that keeps people from reading it."""
        # In a window of its own: axe would ask Airflow's parts of the page, too.
        tab = self.page.context.new_page()
        tab.emulate_media(color_scheme="dark" if is_dark else "light")
        tab.goto(frame.locator("body").evaluate("body => body.ownerDocument.location.href"))
        tab.wait_for_selector("#content:not([hidden])")
        found = Axe().run(tab).response["violations"]
        tab.close()
        return [f"{one['id']}: {one['nodes'][0]['html']}" for one in found if one["impact"] in _SERIOUS]


@contextmanager
def browsing(address: str, folder: Path) -> Iterator[Ui]:
    """Give a person at the UI; the test is skipped where there is no Chromium. A fault leaves a screenshot in the folder."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=_OPTIONS)
        page = browser.new_context(viewport={"width": 1400, "height": 1000}).new_page()
        page.set_default_timeout(60_000)
        ui = Ui(page, address)

        def complain(message: ConsoleMessage) -> None:
            if message.type == "error" and "/orchard/" in f"{message.location.get('url')}{message.text}":
                ui.complaints.append(message.text)

        def remember(request: Request) -> None:
            if "/orchard/" in request.frame.url:
                ui.hosts.add(request.url.split("/")[2])

        page.on("console", complain)
        page.on("request", remember)
        try:
            yield ui
        except BaseException:
            page.screenshot(path=folder / "fault.png")
            raise
        finally:
            browser.close()
