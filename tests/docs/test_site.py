"""The documentation site: it builds without a warning, and no page loads anything from another host."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from strata.cli import exits
from strata.core.parameters import BUILT_IN
from strata.core.records import Record
from strata.core.settings import Settings
from tests.docs.blocks import command_names

ROOT = Path(__file__).parent.parent.parent
LOADING = {"script": "src", "img": "src", "iframe": "src", "link": "href", "source": "src", "video": "src"}
NOT_LOADED = {"canonical", "next", "prev", "alternate"}  # values of `rel`


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr  # not with --quiet, which also hides warnings from --strict
    return folder


class _Loaded(HTMLParser):
    """Collects the URLs that a browser loads with a page."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag in LOADING and not NOT_LOADED & set((values.get("rel") or "").split()):
            self.urls.append(values.get(LOADING[tag]) or "")


def test_nothing_is_loaded_from_another_host(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) >= 18
    for page in pages:
        parser = _Loaded()
        parser.feed(page.read_text())
        assert len(parser.urls) >= 4, page
        assert not [url for url in parser.urls if re.match(r"(\w+:)?//", url)], page
    styles = [style.read_text() for style in site.rglob("*.css")]
    assert styles
    for style in styles:
        assert not re.search(r"url\(['\"]?(https?:)?//|@import\s+['\"]?http", style)


def test_the_reference_names_everything(site: Path) -> None:
    reference = {page.stem: page.read_text() for page in (site / "reference").glob("*.html")}
    for name in Settings.model_fields:
        assert (name if name == "redis_url" else f"strata_{name}").upper() in reference["settings"]
    for name in command_names():
        assert f"strata {name}" in reference["command-line"]
    for code in set(exits.CODES.values()):
        assert f"<td>{code}</td>" in reference["command-line"]
    for name in Record.model_fields:
        assert f"<code>{name}</code>" in reference["record"]
    for back_end in BUILT_IN:
        assert f"{back_end.stage}: <code>{back_end.name}</code>" in reference["profile"]
    assert "POST /v1/captions" in reference["http-api"]
    assert "strata.client.images.ImageCalls.caption" in reference["python"]
    assert "strata.data.reader.SampleReader" in reference["python"]


def test_every_public_package_is_in_the_python_reference(site: Path) -> None:
    text = (site / "reference" / "python.html").read_text()
    for package in ("client", "data", "snapshots", "core", "core.schemas", "core.profiles", "store", "shards"):
        for module in sorted((ROOT / "strata" / package.replace(".", "/")).glob("[!_]*.py")):
            assert f"strata.{package}.{module.stem}" in text
