"""The studio's frame: pages by their address, theme, key, and what the service may serve of it."""

from __future__ import annotations

import re

import httpx
from playwright.sync_api import expect

from tests.studio.conftest import WIDTHS, Opener, Scenes

PAGES = ("describe", "jobs", "gallery", "review")


def test_pages_have_addresses(scenes: Scenes, opened: Opener) -> None:
    with opened(f"{scenes.url}/") as page:
        expect(page.get_by_role("heading", level=1)).to_have_text("Describe")
        for name in PAGES:
            page.get_by_role("link", name=name.capitalize(), exact=True).click()
            expect(page.get_by_role("heading", level=1)).to_have_text(name.capitalize())
            expect(page).to_have_url(re.compile(f"#/{name}$"))
            expect(page).to_have_title(f"{name.capitalize()} – Strata")
        page.go_back()
        expect(page.get_by_role("heading", level=1)).to_have_text("Gallery")
        page.goto(f"{scenes.url}/#/nothing")
        expect(page.get_by_role("heading", level=1)).to_have_text("No such page")


@WIDTHS
def test_no_page_is_wider_than_the_window(scenes: Scenes, opened: Opener, width: int) -> None:
    with opened(scenes.url, width) as page:
        for name in PAGES:
            page.goto(f"{scenes.url}/#/{name}")
            expect(page.get_by_role("heading", level=1)).to_have_text(name.capitalize())
            assert page.evaluate("document.documentElement.scrollWidth") <= width, name


def test_the_theme_is_the_system_s_until_one_is_chosen(scenes: Scenes, opened: Opener) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    with opened(f"{scenes.url}/", theme="dark") as page:
        assert page.evaluate(ground) == "rgb(20, 23, 28)"
        page.get_by_label("Theme").select_option("light")
        assert page.evaluate(ground) == "rgb(255, 255, 255)"
        page.reload()
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        assert page.evaluate(ground) == "rgb(255, 255, 255)"


def test_the_page_is_served_under_a_strict_policy(scenes: Scenes) -> None:
    response = httpx.get(f"{scenes.url}/", timeout=60)
    policy = response.headers["content-security-policy"]
    assert "unsafe" not in policy and "script-src 'self'" in policy and "style-src 'self'" in policy
    assert not re.search(r"<script(?![^>]*(?:src=|application/json))|<style|\son\w+=|\sstyle=", response.text)
    module = httpx.get(f"{scenes.url}/static/studio/main.js", timeout=60)
    assert module.headers["content-type"].startswith("text/javascript")
