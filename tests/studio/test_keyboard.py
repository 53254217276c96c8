"""By keyboard and by ear: what a person does stays while a page is drawn again, and each page tells what it is."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

from strata.core import FailureNote, FailureRow, JobPage, JobStatus
from tests.studio.conftest import NARROW, Opener, Scenes
from tests.studio.scene_machine import scene_bytes, write_scenes

LONG_TEXT = "word " * 2000  # 10,000 characters


@pytest.fixture(scope="module")
def job(scenes: Scenes) -> Iterator[str]:
    """An ended job of four scenes, of which one has failed."""
    shard = write_scenes(scenes.shards / "keyboard.tar", range(1200, 1204), broken=1)
    made = httpx.post(f"{scenes.url}/v1/batches", json={"input": {"shards": [shard]}}, timeout=60).json()["id"]
    with httpx.stream("GET", f"{scenes.url}/v1/jobs/{made}/events", timeout=120) as events:
        for _ in events.iter_lines():
            pass
    yield str(made)


def tab_to(page: Page, wanted: Locator) -> None:
    """Press Tab until an element has the focus."""
    for _ in range(60):
        if wanted.evaluate("(element) => element === document.activeElement"):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not reach {wanted}")


def test_a_job_is_submitted_cancelled_and_retried_by_keyboard(scenes: Scenes, opened: Opener) -> None:
    shard = write_scenes(scenes.shards / "typed.tar", range(1300, 1303), broken=1)
    scenes.vision.go_on.clear()
    try:
        with opened(f"{scenes.url}/") as page:
            tab_to(page, page.get_by_role("link", name="Jobs", exact=True))
            page.keyboard.press("Enter")
            # the focus is on the page, so that the next Tab goes into it
            expect(page.locator("#main")).to_be_focused()
            tab_to(page, page.get_by_role("link", name="Submit a job"))
            page.keyboard.press("Enter")
            tab_to(page, page.get_by_label("Shards, one a line"))
            page.keyboard.type(shard)
            tab_to(page, page.get_by_role("button", name="Preview"))
            page.keyboard.press("Enter")
            expect(page.get_by_role("region", name="Preview")).to_be_visible()
            tab_to(page, page.get_by_role("button", name="Submit the job"))
            page.keyboard.press("Enter")
            expect(page.get_by_role("heading", level=1)).to_contain_text("Job ")
            tab_to(page, page.get_by_role("button", name="Cancel the job"))
            page.keyboard.press("Enter")
            scenes.vision.go_on.set()
            expect(page.locator(".chip", has_text="cancelled")).to_be_visible()
            # the button is gone: the focus is still on the page, and not at its beginning
            expect(page.locator("#main")).to_be_focused()
            page.goto(f"{scenes.url}/#/jobs/new")
            page.get_by_label("Shards, one a line").fill(shard)
            tab_to(page, page.get_by_role("button", name="Submit the job"))
            page.keyboard.press("Space")
            retry = page.get_by_role("button", name="Retry what failed")
            expect(retry).to_be_visible()
            tab_to(page, retry)
            page.keyboard.press("Space")
            expect(page.locator(".chip", has_text="completed")).to_be_visible()
    finally:
        scenes.vision.go_on.set()


def test_the_focus_stays_in_the_search(scenes: Scenes, job: str, opened: Opener) -> None:
    with opened(f"{scenes.url}/#/gallery?job={job}") as page:
        words = page.get_by_label("Words", exact=True)
        words.click()
        page.keyboard.type("nothingatall")
        page.keyboard.press("Enter")
        expect(page.locator(".found")).to_have_text("0 rows")
        expect(page.get_by_text("no row has the word 'nothingatall'")).to_be_visible()
        expect(words).to_be_focused()
        expect(words).to_have_value("nothingatall")
        # the address changes the fields that it has
        page.get_by_role("link", name="without q: nothingatall").click()
        expect(words).to_have_value("")
        expect(page.get_by_label("Job", exact=True)).to_have_value(job)


def test_what_is_opened_stays_open_and_shown_while_a_job_runs(scenes: Scenes, job: str, opened: Opener) -> None:
    view = JobPage.model_validate(httpx.get(f"{scenes.url}/v1/jobs?limit=200", timeout=60).json())
    running = next(one for one in view.jobs if one.id == job).model_copy(update={"status": JobStatus.IN_PROGRESS})
    rows = [
        FailureRow(
            shard="a.tar", key=f"{number}", failure=FailureNote(stage="index", error_type=kind, detail="cut off")
        )
        for number, kind in enumerate(("ReadError", "truncated"))
    ]
    asked = {"events": 0}

    def events(route: object) -> None:
        asked["events"] += 1
        counts = running.request_counts.model_copy(update={"failed": min(asked["events"], 2)})
        body = f"event: job\ndata: {running.model_copy(update={'request_counts': counts}).model_dump_json()}\n\n"
        route.fulfill(body=body, content_type="text/event-stream")  # type: ignore[attr-defined]

    def failures(route: object) -> None:
        some = rows[: min(asked["events"], 2)]
        body = "".join(f"{one.model_dump_json()}\n" for one in some)
        route.fulfill(body=body, content_type="application/x-ndjson")  # type: ignore[attr-defined]

    with opened(f"{scenes.url}/#/jobs") as page:
        page.route("**/events", events)
        page.route("**/failures?*", failures)
        page.goto(f"{scenes.url}/#/job/{job}?show=failures")
        reason = page.locator(".reason", has_text="ReadError")
        expect(reason).to_have_attribute("open", "")
        # a second reason comes: the first one is still open
        expect(page.locator(".reason")).to_have_count(2)
        expect(reason).to_have_attribute("open", "")
        expect(page.locator(".reason", has_text="truncated")).not_to_have_attribute("open", "")


def test_a_very_long_alt_text_is_folded(scenes: Scenes, opened: Opener) -> None:
    files = {"file": ("scene.png", scene_bytes(7))}
    answer = httpx.post(
        f"{scenes.url}/v1/captions",
        files=files,
        data={"alt_text": LONG_TEXT[:4096].strip()},
        headers={"Prefer": "wait=120"},
        timeout=130,
    )
    image = answer.headers["location"].rpartition("/")[2]
    with opened(f"{scenes.url}/#/describe/{image}", NARROW) as page:
        alt = page.locator(".entries", has_text="alt text")
        expect(alt).to_be_visible()
        height = alt.evaluate("(element) => element.offsetHeight")
        alt.get_by_role("button", name=re.compile("Show all 4,09. characters")).press("Enter")
        expect(alt.get_by_role("button", name="Show less")).to_be_focused()
        assert alt.evaluate("(element) => element.offsetHeight") > 3 * height
        alt.get_by_role("button", name="Show less").press("Enter")
        assert alt.evaluate("(element) => element.offsetHeight") == height


def test_what_changes_is_announced(scenes: Scenes, opened: Opener) -> None:
    scenes.vision.go_on.clear()
    try:
        files = {"file": ("scene.png", scene_bytes(8))}
        image = httpx.post(f"{scenes.url}/v1/captions", files=files, timeout=60).json()["id"]
        with opened(f"{scenes.url}/#/job/{image}") as page:
            told = page.get_by_role("main").get_by_role("status").first
            expect(told).to_be_visible()
            expect(told).not_to_have_class("busy")  # that element tells that the page loads, and goes
            expect(told).not_to_have_text("completed")
            # the same element tells it, as a screen reader needs
            page.evaluate("(window.told = document.querySelector('main [role=status]')).id = 'told'")
            scenes.vision.go_on.set()
            expect(page.locator("#told")).to_have_text("completed")
            page.goto(f"{scenes.url}/#/describe/{image}")
            expect(page.locator(".panel .visually-hidden[role=status]")).to_contain_text("succeeded. ")
    finally:
        scenes.vision.go_on.set()
