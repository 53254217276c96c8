"""The pictures of the README and the docs: the service with the demo's models, as a user sees it.

`make screenshots` makes them. It takes a minute or two, so that it is left out of `make test`: there the same pages are
tested with workers that need no models.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from samples.demo import PROFILE, SCENES, SHARD
from samples.service import running_service
from strata.client import Client
from tests.studio.conftest import Opener

FOLDER = os.environ.get("STRATA_SCREENSHOTS")
pytestmark = pytest.mark.skipif(not FOLDER, reason="STRATA_SCREENSHOTS names no folder for the pictures")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of a service with the profile demo."""
    with running_service(tmp_path_factory.mktemp("demo"), SHARD.parent, profile=PROFILE) as client:
        yield client


@pytest.fixture(scope="module")
def job(client: Client) -> str:
    """The completed job of the demo's shard."""
    job = client.submit([str(SHARD)], profile=PROFILE)
    assert client.wait(job.id).request_counts.succeeded == 64
    return job.id


def _save(page: Page, name: str) -> None:
    page.wait_for_function("[...document.images].every((image) => image.complete)")
    assert FOLDER
    page.screenshot(path=Path(FOLDER) / f"{name}.png")


def test_describe(client: Client, opened: Opener) -> None:
    with opened(f"{client.url}/") as page:
        page.locator("input[type=file]").set_input_files(SCENES[0])
        sentences = page.locator(".sentence")
        expect(page.locator(".panel").get_by_text("in progress")).to_have_count(0)
        expect(sentences.first).to_be_visible()
        sentences.first.click()
        expect(page.locator(".shape.lit").first).to_be_attached()
        page.locator(".panel").scroll_into_view_if_needed()
        page.evaluate("document.querySelector('.panel').scrollIntoView()")
        _save(page, "describe")


def test_job(client: Client, job: str, opened: Opener) -> None:
    with opened(f"{client.url}/#/job/{job}") as page:
        expect(page.locator("tbody tr a").nth(5)).to_be_visible()
        _save(page, "job")


def test_gallery(client: Client, job: str, opened: Opener) -> None:
    with opened(f"{client.url}/#/gallery?job={job}") as page:
        expect(page.locator("#main img").nth(5)).to_be_visible()
        _save(page, "gallery")


def test_review(client: Client, job: str, opened: Opener) -> None:
    with opened(f"{client.url}/#/review?job={job}") as page:
        page.get_by_label("Your name").fill("Ada")
        page.get_by_role("button", name="Begin").click()
        expect(page.locator("#main img").first).to_be_visible()
        page.locator("#main img").first.scroll_into_view_if_needed()
        _save(page, "review")
