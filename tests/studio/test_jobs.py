"""Jobs: submitted after a preview, followed to their end, their failures by reason, cancelled and retried."""

from __future__ import annotations

import json
import re

import httpx
import pytest
from playwright.sync_api import expect

from samples.scenes import make_scene
from strata.core import JobPage, JobStatus
from tests.studio.conftest import NARROW, WIDE, Opener, Scenes
from tests.studio.scene_machine import OPTIONS, write_scenes


def test_a_job_from_its_preview_to_its_end(scenes: Scenes, opened: Opener) -> None:
    shard = write_scenes(scenes.shards / "six.tar", range(100, 106), broken=2)
    with opened(f"{scenes.url}/#/jobs") as page:
        page.get_by_role("link", name="Submit a job").click()
        page.get_by_label("Shards, one a line").fill(shard)
        page.get_by_role("button", name="Preview").click()
        preview = page.get_by_role("region", name="Preview")
        expect(preview).to_contain_text(re.compile(r"shards\s*1\s*images\s*6\s*results that exist\s*0"))
        page.get_by_role("button", name="Submit the job").click()
        expect(page.locator(".chip", has_text="completed")).to_be_visible()
        expect(page.locator(".facts").first).to_contain_text("6 of 6")
        # what failed, by its reason, and the records behind it
        expect(page.locator(".reason summary")).to_contain_text("2 × captioner: empty answer")
        page.locator(".reason").get_by_role("link", name="000000100").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("000000100")
        expect(page.locator(".fault")).to_contain_text("the model gave no text")
        page.go_back()
        page.get_by_role("link", name="Records (6)").click()
        page.get_by_role("link", name="000000105").click()
        expect(page.locator(".sentences")).to_be_visible()
        # the job leads to the review of its records, and is in the list
        page.go_back()
        page.get_by_role("link", name="Review its records").click()
        expect(page.get_by_label("Job", exact=True)).to_have_value(page.url.rpartition("job=")[2])
        page.get_by_role("link", name="Jobs", exact=True).click()
        expect(page.locator("tbody tr").first).to_contain_text("6 / 6, 2 failed")
        # a second preview knows what exists; six images say nothing of the time
        page.goto(f"{scenes.url}/#/jobs/new")
        page.get_by_label("Shards, one a line").fill(shard)
        page.get_by_role("button", name="Preview").click()
        expect(preview).to_contain_text(re.compile(r"results that exist\s*6"))
        expect(preview).to_contain_text("The time is not known before")


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_a_sample_is_tried_before_a_job_is_submitted(scenes: Scenes, opened: Opener, width: int) -> None:
    shard = write_scenes(scenes.shards / f"tried-{width}.tar", range(2000 + width, 2030 + width), broken=3)
    scenes.vision.go_on.clear()
    try:
        with opened(f"{scenes.url}/#/jobs/new", width) as page:
            page.get_by_label("Shards, one a line").fill(shard)
            page.get_by_role("button", name="Preview").click()
            page.get_by_role("button", name="Try 200 images first").click()
            # the figures come as the images are described
            estimate = page.get_by_role("region", name="Estimate")
            expect(page.get_by_role("status").filter(has_text="0 of 30 images described")).to_be_visible()
            expect(estimate).to_contain_text("30 of 30 images are to be described. By 0 random images")
            scenes.vision.go_on.set()
            expect(estimate).to_contain_text("By 30 random images")
            row = estimate.locator("tr", has=page.get_by_text("failed", exact=True))
            expect(row).to_contain_text(re.compile(r"3.*3 to 3"))
            expect(estimate).to_contain_text("failed: captioner: empty answer")
            expect(estimate.locator("tr", has_text="vision: images/s of one worker")).to_contain_text(" to ")
            expect(estimate).to_contain_text("with ready workers: 1 vision, 1 llm")
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            page.screenshot(path=str(scenes.shards.parent / f"estimate-{width}.png"), full_page=True)
            # the sample is a job, whose page says what it is
            estimate.get_by_role("link").click()
            expect(page.locator("main")).to_contain_text("a random sample of the images of a submission")
            # another submission has another estimate
            page.go_back()
            expect(page.get_by_role("region", name="Estimate")).to_have_count(0)
    finally:
        scenes.vision.go_on.set()


def test_a_sample_can_be_stopped(scenes: Scenes, opened: Opener) -> None:
    shard = write_scenes(scenes.shards / "stopped.tar", range(3000, 3005))
    scenes.vision.go_on.clear()
    try:
        with opened(f"{scenes.url}/#/jobs/new") as page:
            page.get_by_label("Shards, one a line").fill(shard)
            page.get_by_role("button", name="Preview").click()
            page.get_by_role("button", name="Try 200 images first").click()
            page.get_by_role("button", name="Stop the trial").click()
            scenes.vision.go_on.set()
            expect(page.get_by_role("button", name="Try again")).to_be_visible()
    finally:
        scenes.vision.go_on.set()


def test_a_job_is_retried_and_cancelled(scenes: Scenes, opened: Opener) -> None:
    shard = write_scenes(scenes.shards / "retried.tar", range(200, 204), broken=1)
    scenes.vision.go_on.clear()
    try:
        job = httpx.post(f"{scenes.url}/v1/batches", json={"input": {"shards": [shard]}}, timeout=60).json()["id"]
        with opened(f"{scenes.url}/#/job/{job}") as page:
            expect(page.locator(".facts dd").first).to_have_text("0 of 4")
            page.get_by_role("button", name="Cancel the job").click()
            expect(page.locator(".chip", has_text="cancelled")).to_be_visible()
            # as the command line, it counts no image that has no result
            expect(page.locator(".facts dd").first).to_have_text("0 of 4")
            scenes.vision.go_on.set()
            job = httpx.post(f"{scenes.url}/v1/batches", json={"input": {"shards": [shard]}}, timeout=60).json()["id"]
            page.goto(f"{scenes.url}/#/job/{job}")
            page.get_by_role("button", name="Retry what failed").click()
            expect(page.locator(".chip", has_text="completed")).to_be_visible()
            expect(page.locator(".reason summary")).to_contain_text("1 × captioner")
    finally:
        scenes.vision.go_on.set()


def test_wrong_shards_are_told(scenes: Scenes, opened: Opener) -> None:
    with opened(f"{scenes.url}/#/jobs/new", expected=("404", "400", "403", "422")) as page:
        page.get_by_label("Shards, one a line").fill(f"{scenes.shards}/nothing.tar")
        page.get_by_role("button", name="Preview").click()
        expect(page.locator(".fault")).to_contain_text("nothing.tar")


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_a_long_error_does_not_widen_the_page(scenes: Scenes, opened: Opener, width: int) -> None:
    shard = write_scenes(scenes.shards / "long.tar", [300])
    httpx.post(f"{scenes.url}/v1/batches", json={"input": {"shards": [shard]}}, timeout=60).raise_for_status()
    view = JobPage.model_validate(httpx.get(f"{scenes.url}/v1/jobs?limit=1", timeout=60).json()).jobs[0]
    wrong = view.model_copy(update={"error": "HTTP_401_" * 300, "profile": "p" * 200})
    answer = JobPage(jobs=[wrong]).model_dump_json()
    events = f"event: job\ndata: {wrong.model_copy(update={'status': JobStatus.FAILED}).model_dump_json()}\n\n"
    with opened(f"{scenes.url}/#/gallery", width, expected=("404",)) as page:
        page.route("**/v1/jobs?*", lambda route: route.fulfill(body=answer, content_type="application/json"))
        page.route("**/events", lambda route: route.fulfill(body=events, content_type="text/event-stream"))
        page.goto(f"{scenes.url}/#/jobs")
        expect(page.locator("tbody tr")).to_contain_text("HTTP_401_")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.goto(f"{scenes.url}/#/job/{view.id}")
        expect(page.locator(".fault").first).to_contain_text("HTTP_401_")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert json.loads(answer)["jobs"][0]["error"] == page.locator(".fault").first.inner_text()


def test_a_key_that_two_shards_have_leads_to_the_record_of_its_row(scenes: Scenes, opened: Opener) -> None:
    names = ("same-a.tar", "same-b.tar")
    shards = [write_scenes(scenes.shards / name, [900]) for name in names]
    # the same key in the second shard, of another image
    write_scenes(scenes.shards / names[1], [901])
    content = (scenes.shards / names[1]).read_bytes().replace(b"000000901", b"000000900")
    (scenes.shards / names[1]).write_bytes(_with_checksums(content))
    job = httpx.post(f"{scenes.url}/v1/batches", json={"input": {"shards": shards}}, timeout=60).json()["id"]
    first, second = (make_scene(seed, OPTIONS).caption for seed in (900, 901))
    assert first != second
    with opened(f"{scenes.url}/#/job/{job}") as page:
        expect(page.locator(".chip", has_text="completed")).to_be_visible()
        for index, caption in enumerate((first, second)):
            page.goto(f"{scenes.url}/#/job/{job}?show=records")
            page.get_by_role("link", name="000000900").nth(index).click()
            expect(page.locator(".entries.caption")).to_contain_text(caption)


def _with_checksums(content: bytes) -> bytes:
    """A tar whose headers were changed, with their checksums made anew."""
    blocks = bytearray(content)
    for at in range(0, len(blocks), 512):
        if blocks[at + 257 : at + 262] == b"ustar":
            blocks[at + 148 : at + 156] = b" " * 8
            blocks[at + 148 : at + 156] = b"%06o\0 " % sum(blocks[at : at + 512])
    return bytes(blocks)
