"""Rows of a job described once more, and the two jobs compared, as people do it in the studio."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.studio.conftest import WIDTHS, Opener, Scenes
from tests.studio.scene_machine import write_scenes


def test_rows_of_a_job_are_chosen_described_and_compared(scenes: Scenes, opened: Opener) -> None:
    shard = write_scenes(scenes.shards / "again.tar", range(400, 406), broken=2)
    with opened(f"{scenes.url}/#/jobs/new", expected=("422",)) as page:
        page.get_by_label("Shards, one a line").fill(shard)
        page.get_by_role("button", name="Submit the job").click()
        expect(page.locator(".chip", has_text="completed")).to_be_visible()
        first = page.url.rpartition("/")[2]
        # from the job to a job of some of its rows
        page.get_by_role("link", name="Describe again").click()
        expect(page.get_by_label("Jobs or snapshots, one a line")).to_have_value(first)
        page.get_by_label("Which of their rows").fill("nothing < 1")
        page.get_by_role("button", name="Preview").click()
        expect(page.locator(".fault")).to_contain_text("there is no feature 'nothing'")
        page.get_by_label("Which of their rows").fill("key > '000000403'")
        page.get_by_role("button", name="Preview").click()
        expect(page.get_by_role("region", name="Preview")).to_contain_text(re.compile(r"images\s*2"))
        page.get_by_role("button", name="Submit the job").click()
        expect(page.locator(".chip", has_text="completed")).to_be_visible()
        expect(page.locator(".facts").first).to_contain_text("2 of 2")
        expect(page.locator("main")).to_contain_text(f"Images of {first} where key > '000000403'")
        # and both side by side
        page.get_by_role("link", name=f"Compare with {first}").click()
        expect(page.get_by_label("Before", exact=True)).to_have_value(first)
        expect(page.locator(".pairs > li")).to_have_count(2)
        expect(page.locator(".pairs h2").first).to_have_text("000000404")
        expect(page.locator(".pairs .picture img").first).to_be_visible()
        texts = page.locator(".pairs > li").first.locator(".two > div > p")
        assert texts.nth(0).inner_text() == texts.nth(1).inner_text() != ""
        expect(page.locator(".pairs del, .pairs ins")).to_have_count(0)


@WIDTHS
def test_what_is_not_in_the_other_and_what_is_wrong(scenes: Scenes, opened: Opener, width: int) -> None:
    jobs = []
    for name, seeds in (("left", range(410, 412)), ("right", range(411, 413))):
        shard = write_scenes(scenes.shards / f"{name}{width}.tar", seeds)
        with opened(f"{scenes.url}/#/jobs/new") as page:
            page.get_by_label("Shards, one a line").fill(shard)
            page.get_by_role("button", name="Submit the job").click()
            expect(page.locator(".chip", has_text="completed")).to_be_visible()
            jobs.append(page.url.rpartition("/")[2])
    with opened(f"{scenes.url}/#/compare", width, expected=("404", "422")) as page:
        expect(page.locator(".none")).to_contain_text("Name two jobs or snapshots")
        page.get_by_label("Before", exact=True).fill(jobs[0])
        page.get_by_label("After", exact=True).fill(jobs[1])
        page.get_by_role("button", name="Compare").click()
        # a copy in another tar is another image
        expect(page.locator(".pairs > li")).to_have_count(2)
        expect(page.locator(".pairs")).to_contain_text(f"This image is not in {jobs[0]}.")
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        page.get_by_label("Before", exact=True).fill("nobody")
        page.get_by_role("button", name="Compare").click()
        expect(page.locator(".fault")).to_contain_text("nobody")


CHANGES = """async ([before, after]) => {
  const { changes } = await import(new URL("static/studio/changes.js", location.href));
  return changes(before, after);
}"""


@pytest.mark.parametrize(
    ("before", "after", "gone", "new"),
    [
        ("a red car", "a blue car", ["red "], ["blue "]),
        ("same words", "same words", [], []),
        ("", "new text", [], ["new text"]),
        ("old", "", ["old"], []),
        ("one two three", "three one two", ["three"], ["three "]),
        ("a\n b", " a b", [], []),
    ],
)
def test_words_that_differ(
    scenes: Scenes, opened: Opener, before: str, after: str, gone: list[str], new: list[str]
) -> None:
    with opened(f"{scenes.url}/#/compare") as page:
        found = page.evaluate(CHANGES, [before, after])
    assert ["".join(piece["text"] for piece in side) for side in found] == [before, after]
    assert [[piece["text"] for piece in side if piece["isChanged"]] for side in found] == [gone, new]
