"""Review in a browser: many records by keyboard alone, with an undo and a reload in between; and its looks."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, Route, expect

from tests.studio.conftest import NARROW, WIDE, WIDTHS, Opener, Scenes, Theme, lies_within, scroll, scrolled
from tests.studio.scene_machine import write_scenes
from tests.studio.test_accessible import AXE

RECORDS = 24  # more than a page of the queue


@pytest.fixture(scope="module")
def job(scenes: Scenes) -> str:
    """A job of some scenes that has ended."""
    url, folder = scenes.url, scenes.shards
    shard = write_scenes(folder / "review.tar", range(900, 900 + RECORDS))
    found = str(httpx.post(f"{url}/v1/batches", json={"input": {"shards": [shard]}}, timeout=60).json()["id"])
    with httpx.stream("GET", f"{url}/v1/jobs/{found}/events", timeout=120) as events:
        for line in events.iter_lines():
            if re.search(r'"status": ?"(completed|failed)"', line):
                break
    return found


def judgments(url: str, **query: Any) -> list[dict[str, Any]]:
    response = httpx.get(f"{url}/v1/judgments", params={"counting": True, **query}, timeout=60)
    found: list[dict[str, Any]] = response.json()["judgments"]
    return found


def begin(page: Page, name: str) -> None:
    """Give the name by keyboard, and begin."""
    page.get_by_label("Your name").focus()
    page.keyboard.type(name)
    page.keyboard.press("Enter")
    shows(page, 1, "[0-9]+")


def shows(page: Page, number: int, total: int | str = RECORDS) -> None:
    """Wait for a record and its evidence: one that is not loaded cannot be judged."""
    heading = page.get_by_role("heading", level=2)
    expect(heading).to_contain_text(re.compile(rf"Record {number} of {total} "))
    expect(page.locator(".evidence")).to_be_visible()


def test_records_by_keyboard_alone(scenes: Scenes, job: str, opened: Opener) -> None:
    url = scenes.url
    with opened(f"{url}/#/review?job={job}&sample={RECORDS}&seed=1") as page:
        begin(page, "Ada")
        keys = page.keyboard
        for number in range(2, 6):
            keys.press("a")
            shows(page, number)
        # a rejection with its reason, taken back and given again
        keys.press("r")
        expect(page.get_by_role("button", name="no reason")).to_be_focused()
        keys.press("3")
        shows(page, 6)
        keys.press("u")
        shows(page, 5)
        expect(page.get_by_text(f"4 of {RECORDS} judged")).to_be_visible()
        keys.press("r")
        keys.press("1")
        shows(page, 6)
        # an edited sentence, and one that is left out
        keys.press("e")
        expect(page.get_by_label("sentence 1")).to_be_focused()
        # one sees the picture beside what one corrects
        expect(page.locator(".evidence img, .evidence svg").first).to_be_in_viewport(ratio=0.5)
        keys.press("Control+a")
        keys.type("Something jumps over a red fox.")
        keys.press("Tab")
        keys.press("Shift+Tab")
        keys.press("Control+Enter")
        shows(page, 7)
        expect(page.get_by_text(f"6 of {RECORDS} judged")).to_be_visible()
        # after a reload it goes on at the same place, and what was said before can be undone
        page.reload()
        shows(page, 7)
        expect(page.get_by_text(f"6 of {RECORDS} judged")).to_be_visible()
        keys.press("u")
        shows(page, 6)
        expect(page.get_by_role("heading", level=2)).not_to_contain_text("edited")
        keys.press("e")
        expect(page.get_by_label("sentence 1")).to_be_focused()
        keys.press("Escape")
        keys.press("a")
        keys.press("k")
        expect(page.get_by_role("heading", level=2)).to_contain_text("accepted")
        keys.press("j")
        for number in range(8, RECORDS + 1):
            keys.press("a")
            shows(page, number)
            expect(page.get_by_text(f"{number - 1} of {RECORDS} judged")).to_be_visible()
        keys.press("a")
        expect(page.get_by_role("heading", level=2)).to_have_text(f"All {RECORDS} records judged")
        expect(page.get_by_text("saved", exact=True)).to_be_visible()
        expect(page.get_by_text("Nobody else has judged")).to_be_visible()
    found = judgments(url, job=job, reviewer="Ada")
    assert Counter(one["verdict"] for one in found) == {"accepted": RECORDS - 1, "rejected": 1}
    assert [one["reason"] for one in found if one["verdict"] == "rejected"] == ["unsupported_object"]
    everything = judgments(url, job=job, reviewer="Ada", counting=False)
    assert Counter(one["verdict"] for one in everything)["undone"] == 2
    (edited,) = [one["text"] for one in everything if one["verdict"] == "edited"]
    assert edited.startswith("Something jumps over a red fox.")


def test_what_cannot_be_sent_is_kept(scenes: Scenes, job: str, opened: Opener) -> None:
    url = scenes.url
    with opened(f"{url}/#/review?job={job}&sample={RECORDS}&seed=2", expected=("ERR_FAILED",)) as page:
        begin(page, "Bob")

        def lose(route: Route) -> None:
            route.abort()

        page.route("**/v1/judgments", lose)
        for number in range(2, 5):
            page.keyboard.press("a")
            shows(page, number)
        expect(page.get_by_text("3 not sent yet")).to_be_visible()
        assert judgments(url, reviewer="Bob") == []
        # the tab is closed in the middle; what it kept is sent when the page is opened again
        page.unroute("**/v1/judgments")
        page.on("dialog", lambda dialog: dialog.accept())
        page.reload()
        shows(page, 4)
        expect(page.get_by_text(f"3 of {RECORDS} judged")).to_be_visible()
    assert len(judgments(url, reviewer="Bob")) == 3


def test_two_reviewers_see_their_agreement_at_the_end(scenes: Scenes, job: str, opened: Opener) -> None:
    url = scenes.url
    for name, verdicts in (("Zoë", "aaaa"), ("<b>Max</b>", "aaar")):
        with opened(f"{url}/#/review?job={job}&sample=4&seed=3") as page:
            begin(page, name)
            for number, key in enumerate(verdicts, 2):
                assert name == "Zoë" or page.get_by_text("Zoë").count() == 0
                page.keyboard.press(key)
                if key == "r":
                    page.keyboard.press("Enter")
                if number <= 4:
                    shows(page, number, 4)
            expect(page.get_by_role("heading", level=2)).to_have_text("All 4 records judged")
            expect(page.get_by_text("saved", exact=True)).to_be_visible()
            if name != "Zoë":
                expect(page.get_by_role("row", name="<b>Max</b> and Zoë")).to_contain_text("3")
                expect(page.get_by_role("heading", name="disagreement")).to_be_visible()
                assert page.locator("b", has_text="Max").count() == 0


@pytest.mark.parametrize(("width", "theme"), [(WIDE, "light"), (NARROW, "light"), (WIDE, "dark"), (NARROW, "dark")])
def test_it_is_accessible_and_fits(scenes: Scenes, job: str, opened: Opener, width: int, theme: Theme) -> None:
    url = scenes.url
    with opened(f"{url}/#/review?job={job}&sample=3&seed=4", width, theme, bypass_csp=True) as page:
        expect(page.get_by_label("Your name")).to_be_visible()
        _check(page, width)
        begin(page, f"{width} {theme}")
        expect(page.locator(".content img").first).to_be_visible()
        page.keyboard.press("?")
        expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
        _check(page, width)
        page.keyboard.press("?")
        for key in ("r", "e"):
            page.keyboard.press(key)
            expect(page.locator(".rejection, .editor")).to_be_visible()
            _check(page, width)
            page.keyboard.press("Escape")
        for _ in range(3):
            page.keyboard.press("a")
        expect(page.get_by_role("heading", level=2)).to_contain_text("All 3 records judged")
        expect(page.locator(".busy")).to_have_count(0)
        _check(page, width)


def _check(page: Page, width: int) -> None:
    """Nothing that axe-core finds serious, and nothing wider than the window."""
    page.evaluate(AXE)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    serious = [one for one in found["violations"] if one["impact"] in ("serious", "critical")]
    assert not serious, [(one["id"], [node["html"] for node in one["nodes"]][:3]) for one in serious]
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@WIDTHS
def test_review_shows_each_record_from_its_top(scenes: Scenes, job: str, opened: Opener, width: int) -> None:
    with opened(f"{scenes.url}/#/review?job={job}&sample=3&seed=5", width) as page:
        begin(page, f"Ada {width}")
        heading = page.get_by_role("heading", level=2).first
        for number, key in enumerate(("a", "r", "k", "j"), 1):
            scroll(page)
            # what a key opens lies in the window, and what was read stays where it is
            before = scrolled(page)
            page.keyboard.press("?")
            lies_within(page, page.get_by_role("dialog", name="Keys"))
            page.keyboard.press("a")  # no key judges the record behind it
            page.keyboard.press("?" if number % 2 else "Escape")
            expect(page.get_by_role("dialog")).to_have_count(0)
            page.keyboard.press("r")
            lies_within(page, page.get_by_role("group", name="Why is it rejected?"))
            page.keyboard.press("Escape")
            expect(page.locator(".rejection")).to_have_count(0)
            assert abs(scrolled(page) - before) <= 2
            # the other record is seen from its beginning
            page.keyboard.press(key)
            if key == "r":
                page.keyboard.press("2")
            expect(heading).to_contain_text(f"Record {(2, 3, 2, 3)[number - 1]} of 3")
            lies_within(page, heading)
        # what has the focus is not behind the bar
        scroll(page)
        page.keyboard.press("e")
        lies_within(page, page.get_by_label("sentence 1"))
        bar, field = (page.locator(one).first.bounding_box() for one in (".controls", ".editor textarea"))
        assert bar and field and field["y"] >= bar["y"] + bar["height"] - 1
        page.keyboard.press("Escape")
        scroll(page)
        page.keyboard.press("a")
        expect(heading).to_have_text("All 3 records judged")
        lies_within(page, heading)
