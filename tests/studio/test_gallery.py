"""Gallery: filters and facets narrow the rows, the address holds what is chosen, and the keyboard does it all."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.studio.conftest import NARROW, WIDTHS, Opener, Scenes, lies_within, scroll, scrolled
from tests.studio.scene_machine import scene_bytes, write_scenes

ROWS, BROKEN = 70, 2  # more than a page has


@pytest.fixture(scope="module")
def job(scenes: Scenes) -> Iterator[str]:
    """An ended job of scenes, of which some have failed."""
    shard = write_scenes(scenes.shards / "gallery.tar", range(1000, 1000 + ROWS), broken=BROKEN)
    made = httpx.post(f"{scenes.url}/v1/batches", json={"input": {"shards": [shard]}}, timeout=60).json()["id"]
    with httpx.stream("GET", f"{scenes.url}/v1/jobs/{made}/events", timeout=120) as events:
        for _ in events.iter_lines():
            pass
    yield str(made)


def rows_of(page: Page, count: int) -> None:
    """Wait until the search has so many rows in all."""
    expect(page.locator(".found")).to_have_text(f"{count} row{'s' if count != 1 else ''}")


def counted(page: Page) -> None:
    """Wait until the facets are those of the search."""
    expect(page.locator(".facets")).to_have_attribute("aria-busy", "false")


def total(scenes: Scenes, job: str, **asked: str) -> int:
    """How many rows the service finds."""
    return int(httpx.get(f"{scenes.url}/v1/search", params={"job": job, **asked}, timeout=60).json()["total"])


def test_facets_narrow_the_rows_and_the_address_holds_them(scenes: Scenes, job: str, opened: Opener) -> None:
    with opened(f"{scenes.url}/#/gallery?job={job}") as page:
        rows_of(page, ROWS)
        expect(page.locator(".grid li")).to_have_count(60)
        expect(page.locator(".grid img").first).to_be_visible()
        counted(page)
        # a label, and a bar of the histogram of words
        things = page.get_by_role("group", name="Things")
        first = things.get_by_role("button").first
        name = first.locator(".name").inner_text()
        first.click()
        with_thing = total(scenes, job, thing=name)
        assert 0 < with_thing < ROWS
        rows_of(page, with_thing)
        assert f"thing={name}" in page.url
        page.get_by_role("group", name="Status").get_by_role("button", name="succeeded").click()
        rows_of(page, total(scenes, job, thing=name, status="succeeded"))
        counted(page)
        bar = page.get_by_role("group", name="Words of the description").get_by_role(
            "button", name=re.compile(r": [1-9]")
        )
        told = re.search(r"words (\d+) to (\d+): (\d+) row", bar.first.get_attribute("aria-label") or "")
        assert told
        bar.first.click()
        rows_of(page, int(told[3]))
        # the address alone gives the same
        page.reload()
        rows_of(page, int(told[3]))
        expect(page.get_by_role("list", name="Chosen")).to_contain_text(f"words {told[1]} to {told[2]}")
        page.get_by_role("link", name=f"without words {told[1]} to {told[2]}").click()
        rows_of(page, total(scenes, job, thing=name, status="succeeded"))
        page.get_by_role("link", name="clear all").click()
        expect(page.get_by_role("list", name="Chosen")).to_have_count(0)


def test_words_are_searched_for_and_pages_follow_each_other(scenes: Scenes, job: str, opened: Opener) -> None:
    with opened(f"{scenes.url}/#/gallery") as page:
        page.get_by_label("Job").fill(job)
        page.get_by_role("searchbox", name="Words").fill("-nosuchword")
        page.get_by_role("button", name="Search").click()
        rows_of(page, ROWS)
        counted(page)  # what comes later moves the link away
        seen = page.locator(".grid button").count()
        page.get_by_role("link", name="Next 60").click()
        expect(page.locator(".grid li")).to_have_count(ROWS - seen)
        page.go_back()
        expect(page.locator(".grid li")).to_have_count(60)
        page.get_by_role("searchbox", name="Words").fill("nosuchword")
        page.keyboard.press("Enter")
        rows_of(page, 0)
        page.get_by_role("searchbox", name="Words").fill("")
        page.get_by_label("Key contains").fill("001001")
        page.keyboard.press("Enter")
        rows_of(page, 1)
        expect(page.locator(".grid .chip")).to_have_text("failed")


def test_the_keyboard_goes_through_the_rows_and_their_evidence(scenes: Scenes, job: str, opened: Opener) -> None:
    with opened(f"{scenes.url}/#/gallery?job={job}&status=succeeded") as page:
        rows_of(page, ROWS - BROKEN)
        page.locator(".grid button").first.focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowUp")
        expect(page.locator(".grid button").nth(1)).to_be_focused()
        page.keyboard.press("Enter")
        dialog = page.get_by_role("dialog", name="000001003")
        expect(dialog.locator(".sentences")).to_be_visible()
        expect(dialog.locator("svg.over .shape").first).to_be_visible()
        page.keyboard.press("j")
        expect(page.get_by_role("dialog", name="000001004")).to_be_visible()
        page.keyboard.press("k")
        expect(dialog).to_be_visible()
        # the address leads to the row
        page.reload()
        expect(dialog.locator(".sentences")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)
        expect(page).not_to_have_url(re.compile("row="))
        rows_of(page, ROWS - BROKEN)


def test_a_failed_row_and_a_wrong_job_are_told(scenes: Scenes, job: str, opened: Opener) -> None:
    with opened(f"{scenes.url}/#/gallery?job={job}&status=failed", NARROW, expected=("404",)) as page:
        rows_of(page, BROKEN)
        page.locator(".grid button").first.click()
        expect(page.get_by_role("dialog").locator(".fault")).to_contain_text("the model gave no text")
        page.get_by_role("button", name="Close").click()
        expect(page).not_to_have_url(re.compile("row="))
        page.goto(f"{scenes.url}/#/gallery?job=nosuchjob")
        expect(page.locator(".fault").first).to_contain_text("no job has the id")
        assert page.evaluate("document.documentElement.scrollWidth") <= NARROW


def test_what_is_typed_stays_while_the_page_is_drawn_again(scenes: Scenes, job: str, opened: Opener) -> None:
    asked = re.compile(r"/v1/(search|jobs)\?")
    for path, field_of in (("gallery", "[name=q]"), ("jobs", "main input")):
        with opened(f"{scenes.url}/#/{path}") as page:
            expect(page.locator(".found, .table").first).to_be_visible()
            field = page.locator(field_of).first
            field.fill("half a wo")
            for _ in range(2):
                with page.expect_response(asked, timeout=60_000):
                    pass
            page.evaluate("() => new Promise((drawn) => requestAnimationFrame(() => setTimeout(drawn)))")
            expect(field).to_have_value("half a wo")


def test_rows_that_come_are_shown_by_themselves(scenes: Scenes, opened: Opener) -> None:
    with opened(f"{scenes.url}/#/gallery?q=1234567") as page:
        rows_of(page, 0)
        files = {"file": ("scene.png", scene_bytes(3))}
        httpx.post(
            f"{scenes.url}/v1/captions", files=files, data={"alt_text": "1234567"}, timeout=60
        ).raise_for_status()
        rows_of(page, 1)


@WIDTHS
def test_a_new_page_begins_at_its_top_and_an_old_one_where_it_was(
    scenes: Scenes, job: str, opened: Opener, width: int
) -> None:
    with opened(f"{scenes.url}/#/gallery?job={job}", width, bypass_csp=True) as page:
        expect(page.locator(".grid li")).to_have_count(60)
        expect(page.locator(".facets")).to_have_attribute("aria-busy", "false")
        at = scroll(page)
        page.get_by_role("link", name="Jobs", exact=True).evaluate("(link) => link.click()")
        expect(page.get_by_role("heading", level=1)).to_have_text("Jobs")
        page.wait_for_function("window.scrollY === 0")
        page.go_back()
        page.wait_for_function(f"Math.abs(window.scrollY - {at}) < 40")
        page.reload()
        page.wait_for_function(f"Math.abs(window.scrollY - {at}) < 40")
        # the next rows are seen from the first one
        page.get_by_role("link", name="Next 60").click()
        expect(page.locator(".grid li")).to_have_count(ROWS - 60)
        lies_within(page, page.locator(".found"))
        expect(page.locator("[data-rows]")).to_be_focused()


@WIDTHS
def test_the_next_records_of_a_job_are_seen_from_the_first(
    scenes: Scenes, job: str, opened: Opener, width: int
) -> None:
    with opened(f"{scenes.url}/#/job/{job}?show=records", width) as page:
        expect(page.locator("tbody tr a")).to_have_count(50)
        scroll(page)
        page.get_by_role("link", name="Next", exact=True).click()
        expect(page.locator("tbody tr a")).to_have_count(ROWS - 50)
        lies_within(page, page.get_by_role("navigation", name="Rows"))


@WIDTHS
def test_a_row_over_the_gallery(scenes: Scenes, job: str, opened: Opener, width: int) -> None:
    with opened(f"{scenes.url}/#/gallery?job={job}", width, bypass_csp=True) as page:
        expect(page.locator(".grid li")).to_have_count(60)
        card = page.locator(".grid button")
        card.nth(20).scroll_into_view_if_needed()
        card.nth(20).click()
        dialog = page.get_by_role("dialog")
        expect(dialog.locator(".sentences")).to_be_visible()
        at = scrolled(page)
        dialog.evaluate("(one) => one.scrollTo(0, one.scrollHeight)")
        for _ in range(2):
            page.keyboard.press("j")
            expect(dialog.locator(".sentences")).to_be_visible()
            page.wait_for_function("document.querySelector('dialog').scrollTop === 0")
        # the page behind stays, and one goes on at the card of the row that was looked at last
        page.mouse.move(5, 400)
        page.mouse.wheel(0, 500)
        page.keyboard.press("Escape")
        expect(dialog).to_have_count(0)
        expect(card.nth(22)).to_be_focused()
        assert abs(scrolled(page) - at) < 600
