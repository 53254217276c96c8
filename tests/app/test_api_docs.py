"""`/docs` and `/redoc` load without a network: their pages and assets come from the service alone."""

from __future__ import annotations

import hashlib
import re
from html.parser import HTMLParser
from urllib.parse import urljoin

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.routes import api_docs
from tests.service import Service

TYPES = {"js": "text/javascript", "css": "text/css", "png": "image/png"}


class _Links(HTMLParser):
    """Collects every `src` and `href` of a page, and where the document of the API is."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.urls += [value or "" for name, value in attrs if name in ("src", "href", "spec-url", "data-url")]


def _links(html: str) -> list[str]:
    parser = _Links()
    parser.feed(html)
    return parser.urls


@pytest.mark.parametrize(("page", "count"), [("/docs", 5), ("/redoc", 4), ("/", 4)])
def test_the_pages_name_no_other_host(idle_service: Service, page: str, count: int) -> None:
    response = idle_service.client.get(page)
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert not re.search(r"https?:|[\"'(]//", response.text), response.text
    policy = dict(rule.split(" ", 1) for rule in response.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'" and policy["script-src"] == "'self'"
    assert not re.search(r"<script>|<style|\sstyle=|\son\w+=", response.text)
    assert not any("//" in sources or "*" in sources for sources in policy.values())
    assert len(_links(response.text)) == count


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_every_asset_is_served_with_its_type(idle_service: Service, page: str) -> None:
    links = _links(idle_service.client.get(page).text)
    for link in links:
        response = idle_service.client.get(urljoin(page, link))
        assert response.status_code == 200, link
        expected = TYPES.get(link.rpartition(".")[2], "application/json")
        assert response.headers["content-type"].split(";")[0] == expected, link
    assert "openapi.json" in links


def test_the_pages_work_below_a_path_prefix() -> None:
    outer, inner = FastAPI(), FastAPI(docs_url=None, redoc_url=None)
    api_docs.install(inner)
    outer.mount("/captions-service", inner)
    client = TestClient(outer)
    for page in ("/captions-service/docs", "/captions-service/redoc"):
        for link in _links(client.get(page).text):
            url = urljoin(page, link)
            assert url.startswith("/captions-service/")
            assert client.get(url).status_code == 200, url


def test_the_assets_are_the_published_files() -> None:
    rows = re.findall(r"^\| `([^`]+)` \|.*\| `([0-9a-f]{64})` \|$", (api_docs.FOLDER / "README.md").read_text(), re.M)
    assert {name for name, _ in rows} == {file.name for suffix in TYPES for file in api_docs.FOLDER.glob(f"*.{suffix}")}
    for name, expected in rows:
        assert hashlib.sha256((api_docs.FOLDER / name).read_bytes()).hexdigest() == expected, name
    assert sum(file.stat().st_size for file in api_docs.FOLDER.iterdir()) < 3 * 2**20
