"""Every page in both themes and on a laptop and a phone: axe-core finds nothing serious, and nothing is too wide.

STRATA_SCREENSHOTS names a folder for the pictures of all of them; docs/ has some (`make screenshots`).
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import get_args
from urllib.parse import quote

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.studio.conftest import NARROW, WIDE, Opener, Scenes, Theme
from tests.studio.scene_machine import scene_bytes, write_scenes

AXE = (Path(__file__).parent / "vendor" / "axe.min.js").read_text(encoding="utf-8")
SERIOUS = ("serious", "critical")
ALSO = ("heading-order", "page-has-heading-one", "region")  # that axe-core calls moderate: how a page is read out
SEED = 5
# a page's address, and what is there when it is complete
PAGES = {
    "describe": ("describe/{image}", ".sentences"),
    "compare": ("describe/{image},{image}?beside=short.en", ".beside .panel:nth-child(2) .sentences"),
    "jobs": ("jobs", "tbody tr:nth-child(2)"),
    "submit": ("jobs/new", "textarea"),
    "job": ("job/{batch}", ".reason"),
    "records": ("job/{batch}?show=records", "tbody tr:nth-child(3) a"),
    "record": ("records/{batch}/000000402", ".sentences"),
    "gallery": ("gallery?job={batch}", ".grid li:nth-child(6) img"),
    "gallery-row": ("gallery?job={batch}&row={row}", "dialog .sentences"),
    "review": ("review", "h1"),
}


@pytest.fixture(scope="module")
def known(scenes: Scenes) -> Iterator[dict[str, str]]:
    """The ids of a described image and of a job with failures."""
    files = {"file": ("scene.png", scene_bytes(SEED))}
    wait = {"Prefer": "wait=120"}
    text = {"alt_text": f"scene {SEED}"}
    image = httpx.post(f"{scenes.url}/v1/captions", files=files, data=text, headers=wait, timeout=130)
    shard = write_scenes(scenes.shards / "shown.tar", range(400, 406), broken=2)
    batch = httpx.post(f"{scenes.url}/v1/batches", json={"input": {"shards": [shard]}}, timeout=60).json()["id"]
    while not (
        rows := httpx.get(f"{scenes.url}/v1/search", params={"job": batch, "key": "402"}, timeout=60).json()["rows"]
    ):
        time.sleep(0.05)
    image_id = image.headers["location"].rpartition("/")[2]
    yield {"image": image_id, "batch": batch, "row": quote(rows[0]["id"], safe="")}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_can_be_used_by_all(scenes: Scenes, known: dict[str, str], opened: Opener, name: str) -> None:
    address, complete = PAGES[name]
    with opened(f"{scenes.url}/#/{address.format(**known)}", bypass_csp=True) as page:
        page.evaluate(AXE)
        for theme, width in itertools.product(get_args(Theme), (WIDE, NARROW)):
            page.emulate_media(color_scheme=theme)
            page.set_viewport_size({"width": width, "height": 800})
            expect(page.locator(complete).first).to_be_visible()
            page.wait_for_function("[...document.images].every((image) => image.complete)")
            _save(page, f"{name}-{theme}-{width}")
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (theme, width)
            assert not serious(page), (theme, width)


def test_axe_finds_what_is_wrong(scenes: Scenes, opened: Opener) -> None:
    """That the tests above could fail."""
    with opened(f"{scenes.url}/#/gallery", bypass_csp=True) as page:
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        page.evaluate(AXE)
        page.evaluate("document.getElementById('main').innerHTML += '<input><p style=\"color: #999\">faint</p>'")
        assert {one[0] for one in serious(page)} == {"label", "color-contrast"}


def serious(page: Page) -> list[tuple[str, list[str]]]:
    """What axe-core finds that is serious or worse: the rule, and the elements that break it."""
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")["violations"]
    return [
        (one["id"], [node["html"][:200] for node in one["nodes"]])
        for one in found
        if one["impact"] in SERIOUS or one["id"] in ALSO
    ]


def _save(page: Page, name: str) -> None:
    folder = os.environ.get("STRATA_SCREENSHOTS")
    if folder:
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)
