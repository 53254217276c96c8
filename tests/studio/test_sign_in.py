"""Signing in to the studio: by keyboard, with a session that no script can read, and without losing what was typed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import get_args

import pytest
from playwright.sync_api import Browser, Page, expect

from strata.keys import Scope, StoredKeys
from strata.queue.queue import Queue
from strata.store import Store
from tests.studio.conftest import NARROW, WIDE, Opener, Scenes, Theme, scene_service
from tests.studio.scene_machine import write_scenes
from tests.studio.test_accessible import AXE, serious
from tests.studio.test_describe import describe
from tests.studio.test_keyboard import tab_to
from tests.studio.test_prefix import PREFIX, below_prefix

OPERATOR = "open-sesame"
REFUSED = ("401",)  # the browser tells a refusal in its console


@pytest.fixture(scope="module")
def locked(chromium: Browser, valkey_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenes]:
    """A service that needs a key, whose workers describe scenes."""
    with scene_service(Queue(valkey_url), tmp_path_factory.mktemp("locked"), api_key=OPERATOR) as service:
        yield service


def a_key(locked: Scenes, name: str) -> tuple[str, str]:
    """The id and the secret of a new key."""
    key, secret = stored_keys(locked).create(name, [Scope.ADMIN], "vision")
    return key.id, secret


def stored_keys(locked: Scenes) -> StoredKeys:
    return StoredKeys(Store(str(locked.shards.parent / "data" / "store")))


def sign_in(page: Page, secret: str) -> None:
    """Type a key, as a person does."""
    expect(page.get_by_label("API key")).to_be_focused()
    page.keyboard.type(secret)
    page.keyboard.press("Enter")


def test_a_person_signs_in_describes_and_signs_out_by_keyboard(locked: Scenes, opened: Opener) -> None:
    _, secret = a_key(locked, "Ada")
    with opened(f"{locked.url}/#/describe", expected=REFUSED) as page:
        expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
        expect(page).to_have_title("Sign in – Strata")
        sign_in(page, "strata_wrong")
        expect(page.get_by_role("alert")).to_contain_text("no such key")
        # the wrong one is selected, so that the right one takes its place
        sign_in(page, secret)
        expect(page.get_by_role("heading", level=1)).to_have_text("Describe")
        expect(page.locator("#main")).to_be_focused()
        expect(page.locator(".who")).to_have_text("Ada")
        describe(page)
        expect(page.locator(".sentences")).to_be_visible()
        expect(page.locator(".panzoom img")).to_have_js_property("complete", True)
        job = page.url.rpartition("/")[2]
        # no script can read the key or the session
        kept = "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href])"
        assert not any(word in page.evaluate(kept) for word in (secret, "strata_session"))
        # what sends no headers works by the cookie, too
        picture = page.locator(".panzoom img").evaluate(
            """(_, job) => fetch(`v1/jobs/${job}/results?limit=1`).then((answer) => answer.json())
              .then(({ key }) => new Promise((done) => {
                const image = new Image();
                image.onload = () => done(image.naturalWidth);
                image.onerror = () => done("refused");
                image.src = `v1/records/${job}/${key}/image`;
              }))""",
            job,
        )
        assert picture > 0
        told = """(job) => new Promise((done) => {
          const source = new EventSource(`v1/jobs/${job}/events`);
          for (const name of ["progress", "job", "message"]) source.addEventListener(name, () => done(source.close()));
          source.onerror = () => done("refused");
        })"""
        assert page.evaluate(told, job) is None
        # a reload keeps the session
        page.reload()
        expect(page.locator(".sentences")).to_be_visible()
        tab_to(page, page.get_by_role("button", name="Sign out"))
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
        assert page.context.cookies() == []
        # who signs in at the same tab then sees what the new key may see
        sign_in(page, OPERATOR)
        expect(page.locator(".sentences")).to_be_visible()


def test_a_session_that_ends_costs_nothing_that_was_typed(locked: Scenes, opened: Opener) -> None:
    shard = write_scenes(locked.shards / "typed.tar", range(700, 702))
    with opened(f"{locked.url}/#/jobs/new", expected=(*REFUSED, "403")) as page:
        sign_in(page, OPERATOR)
        page.get_by_label("Shards, one a line").fill(shard)
        page.context.clear_cookies()
        page.get_by_role("button", name="Preview").click()
        dialog = page.get_by_role("dialog", name="Sign in again")
        expect(dialog).to_be_visible()
        page.keyboard.press("Escape")
        sign_in(page, OPERATOR)
        expect(page.get_by_role("region", name="Preview")).to_be_visible()
        expect(dialog).to_have_count(0)
        expect(page.get_by_label("Shards, one a line")).to_have_value(shard)
        # another tab signs in anew: this one's token is not the session's any more
        page.evaluate(
            "key => fetch('v1/session', { method: 'POST', body: JSON.stringify({ key }), "
            "headers: { 'Content-Type': 'application/json' } })",
            OPERATOR,
        )
        page.get_by_role("button", name="Submit the job").click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("Job ")


def test_a_revoked_key_is_told(locked: Scenes, opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strata.keys.key_ring.FRESH_SECONDS", 0.2)
    key_id, secret = a_key(locked, "Bob")
    with opened(f"{locked.url}/#/jobs", expected=REFUSED) as page:
        sign_in(page, secret)
        expect(page.get_by_role("heading", level=1)).to_have_text("Jobs")
        stored_keys(locked).revoke(key_id)
        # the list of jobs asks again and again
        expect(page.get_by_role("dialog", name="Sign in again")).to_be_visible()
        page.reload()
        expect(page.locator(".warning")).to_contain_text("revoked")


def test_below_a_prefix(locked: Scenes, opened: Opener) -> None:
    with below_prefix(locked.url) as address, opened(address, expected=REFUSED) as page:
        sign_in(page, OPERATOR)
        expect(page.get_by_role("heading", level=1)).to_have_text("Describe")
        (cookie,) = page.context.cookies(f"{address}v1/jobs")
        assert cookie["path"] == f"{PREFIX}/v1" and cookie["httpOnly"] and cookie["sameSite"] == "Strict"
        assert page.context.cookies(address) == []
        page.reload()
        tab_to(page, page.get_by_role("button", name="Sign out"))
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")


def test_the_sign_in_can_be_used_by_all(locked: Scenes, opened: Opener) -> None:
    with opened(f"{locked.url}/", expected=REFUSED, bypass_csp=True) as page:
        page.evaluate(AXE)
        sign_in(page, "strata_wrong")
        expect(page.get_by_role("alert")).to_be_visible()
        for theme, width in itertools.product(get_args(Theme), (WIDE, NARROW)):
            page.emulate_media(color_scheme=theme)
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert not serious(page), (theme, width)
        sign_in(page, OPERATOR)
        expect(page.get_by_role("button", name="Sign out")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= NARROW
        assert not serious(page)
        page.context.clear_cookies()
        page.get_by_role("link", name="Gallery", exact=True).click()
        expect(page.get_by_role("dialog", name="Sign in again")).to_be_visible()
        assert not serious(page)
