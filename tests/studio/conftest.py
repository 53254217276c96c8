"""Fixtures of the tests in a real browser: Chromium by playwright, and a service whose workers describe drawn scenes.

What a page may not do fails every test: an error of a script, a line of its console, or something that its
Content-Security-Policy blocks. The browser has no network but loopback.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, expect, sync_playwright

from strata.jobs.jobs import Jobs
from strata.queue.queue import Queue
from tests.raw_redis import raw_redis
from tests.service import listening_service
from tests.studio.scene_machine import SceneMachine, SceneVision

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
LONG = 60_000.0  # milliseconds: far more than anything here takes
WIDE, NARROW = 1280, 390  # pixels: a laptop, a phone
WIDTHS = pytest.mark.parametrize("width", [WIDE, NARROW])
# names resolve to loopback or to nothing, so that no test leaves the machine
_RESOLVER = "MAP evil.example 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"
_OPTIONS = ["--disable-gpu", "--disable-dev-shm-usage", f"--host-resolver-rules={_RESOLVER}"]

expect.set_options(timeout=LONG)

Theme = Literal["light", "dark"]
Opener = Callable[..., AbstractContextManager[Page]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`make test-browser` runs what has this mark."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    """A browser for all modules here that follow each other. Tests are skipped if there is none on the machine."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no browser is installed: none of {', '.join(NAMES)}")
    with sync_playwright() as playwright:
        # tests may run as root, for whom Chromium has no sandbox
        browser = playwright.chromium.launch(executable_path=program, args=_OPTIONS, chromium_sandbox=False)
        yield browser
        browser.close()


@dataclass(frozen=True)
class Scenes:
    """A service whose workers describe scenes: its address, the folder of its shards, and its workers' vision."""

    url: str
    shards: Path
    vision: SceneVision


@pytest.fixture(scope="module")
def scenes(chromium: Browser, valkey_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenes]:
    """A service whose workers describe scenes."""
    with scene_service(Queue(valkey_url), tmp_path_factory.mktemp("studio")) as service:
        yield service


@contextmanager
def scene_service(queue: Queue, folder: Path, **changes: Any) -> Iterator[Scenes]:
    """Run a service whose workers describe scenes. changes: of its settings."""
    raw_redis(queue).flushall()
    machines: list[SceneMachine] = []

    def made(jobs: Jobs) -> SceneMachine:
        machines.append(SceneMachine(jobs))
        machines[0].leases.announce_ready()
        return machines[0]

    with listening_service(queue, folder, workers=made, max_body_bytes=4_000_000, **changes) as port:
        yield Scenes(f"http://127.0.0.1:{port}", folder / "shards", machines[0].scenes)


@pytest.fixture
def opened(chromium: Browser) -> Opener:
    """Opens a page of an address: a context manager that fails if the page had errors, unless these are expected.

    width: of the window, in pixels; theme: "light" or "dark"; expected: parts of the console's lines that are no fault.
    """

    @contextmanager
    def open_page(
        url: str, width: int = WIDE, theme: Theme = "light", expected: tuple[str, ...] = (), **more: Any
    ) -> Iterator[Page]:
        context = chromium.new_context(viewport={"width": width, "height": 800}, color_scheme=theme, **more)
        context.set_default_timeout(LONG)
        faults: list[str] = []
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda line: faults.extend(_fault(line, expected)))
        try:
            page.goto(url)
            yield page
        finally:
            context.close()
        assert not faults, faults

    return open_page


def _fault(line: ConsoleMessage, expected: tuple[str, ...]) -> list[str]:
    """What a line of the console tells that is wrong: errors and warnings, and what a policy has blocked."""
    if line.type not in ("error", "warning") or any(part in line.text for part in expected):
        return []
    return [line.text]


def scroll(page: Page) -> float:
    """Scroll to the end of the page, as a person does; the pixels from its top."""
    page.evaluate("window.scrollTo(0, document.documentElement.scrollHeight)")
    top = scrolled(page)
    assert top > 200  # or nothing could be seen here
    return top


def scrolled(page: Page) -> float:
    return float(page.evaluate("window.scrollY"))


def lies_within(page: Page, element: Locator) -> None:
    """Wait until an element can be seen, but for parts of a pixel at its edges."""
    expect(element).to_be_in_viewport(ratio=0.95)
