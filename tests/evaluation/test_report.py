"""`strata report`: what is on the page, what it may load, and that nothing of a record becomes markup."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from strata.cli import exits
from strata.core.claims import CheckedSentence, Verification
from strata.core.records import Description, ImageReference, Record, Region, Sentence
from strata.evaluation.report.cards import FOLDED, card
from strata.evaluation.report.markup import LONGEST, Markup, bars, histogram, tag, text
from strata.store.store import Store
from tests.cli.test_cli import code_of
from tests.described import write_part
from tests.evaluation.conftest import record_of, samples

HOSTILE = (
    '</p><script>alert(1)</script>" onload="x\' <img src=http://evil.invalid/a.png> \x00\x1b[31m\u202e Ignore all.'
)


class Elements(HTMLParser):
    """Every element of a page with its attributes, and all text outside of styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.words = ""
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in ("meta", "br", "img", "image"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data if self.open and self.open[-1] != "style" else ""


def harmless(page: str) -> Elements:
    """The elements of a page that neither runs nor loads anything, and closes all that it opens."""
    found = Elements(page)
    assert not found.open
    for name, attributes in found.found:
        assert name not in ("script", "iframe", "object", "link", "base", "form", "img")
        assert not [key for key in attributes if key.startswith("on") or key == "style"]
        for key in ("src", "href", "action"):
            assert attributes.get(key, "data:").startswith("data:")
    return found


@pytest.fixture
def page(scene_store: Store, tmp_path: Path) -> str:
    assert scene_store.local
    path = tmp_path / "report.html"
    assert (
        code_of("report", "demo", "-o", str(path), "--records", "3", "--resamples", "100", "--store", scene_store.uri)
        == 0
    )
    return path.read_text(encoding="utf-8")


def test_the_page_has_everything_and_loads_nothing(page: str) -> None:
    found = harmless(page)
    for words in ("Worst records", "Best records", "Random records", "profile demo", "objects recalled", "coverage"):
        assert words in found.words
    # nine records with their pictures, each once
    pictures = [attributes["href"] for name, attributes in found.found if name == "image"]
    assert len(pictures) == len(set(pictures)) == 9
    for one in pictures:
        assert max(Image.open(io.BytesIO(base64.b64decode(one.partition(",")[2]))).size) <= 448
    # cut sentences with their reason, dropped entries, rows that failed
    assert found.words.count("cut: nothing supports a thing") == 9
    assert "low_match" in found.words and "ImageError" in found.words and "broken: broken" in found.words
    # provenance
    assert "You describe a picture in a few plain sentences." in found.words
    assert "e1cac4de3c45a878b11b333cc674a3252fa8fdcf29edb52fb6f3ce5c6e01935e" in found.words
    assert page.count("None") == 0


def test_the_policy_allows_this_style_alone(page: str) -> None:
    (policy,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]+)">', page)
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.S)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src &#x27;sha256-{digest}&#x27;" in policy and "default-src &#x27;none&#x27;" in policy
    assert "script-src" not in policy and "url(" not in style and "@import" not in style


def test_hostile_records_stay_text(scene_store: Store, tmp_path: Path) -> None:
    image, meta = samples()[0]
    cut = CheckedSentence(text=HOSTILE, kept=None, reason="unread_text")
    hostile = record_of(image, meta).model_copy(
        update={
            "key": HOSTILE,
            "alt_text": HOSTILE,
            "regions": [Region(box=(0, 0, 9, 9), phrase=HOSTILE), Region(box=(9, 9, 1, 1), phrase="x" * 10_000)],
            "description": Description(text=HOSTILE, sentences=[Sentence(text=HOSTILE, evidence=[HOSTILE])]),
            "verification": Verification(text=HOSTILE, sentences=[cut]),
        }
    )
    gone = Record(key="gone", image=ImageReference(uri="/nowhere/a.tar", size=9), width=9, height=9)
    failed = gone.failed(HOSTILE, HOSTILE, HOSTILE)
    write_part(scene_store, [hostile, gone, failed], fingerprint="d" * 16)
    path = tmp_path / "hostile.html"
    assert code_of("report", "d" * 16, "-o", str(path), "--resamples", "100") == 0
    found = harmless(path.read_text(encoding="utf-8"))
    assert found.words.count("<script>alert(1)</script>") >= 5
    assert not set("\x00\x1b\u202e") & set(found.words)
    assert "the image cannot be read now" in found.words


@settings(max_examples=60)
@given(st.text(max_size=60))
def test_any_text_stays_text(words: str) -> None:
    found = harmless(tag("p", words, title=words))
    shown = text(words)
    assert len(found.found) == 1 and not set("<>\"'") & set(shown)
    assert found.words.split() == list("".join(Elements(Markup(f"<p>{shown}</p>")).words).split())


@settings(max_examples=40)
@given(st.lists(st.integers(0, 10_000), max_size=50))
def test_plots_hold_any_numbers(values: list[int]) -> None:
    plot = histogram(values, "a plot")
    drawn = harmless(plot)
    heights = [float(attributes["height"]) for name, attributes in drawn.found if name == "rect"]
    assert 0 < len(heights) <= 21 and all(0 <= height <= 150 for height in heights)
    titles = re.findall(r"<title>([\d,]+)</title>", plot)
    assert sum(int(title.replace(",", "")) for title in titles) == len(values)
    assert harmless(bars({str(value): value for value in values}, "bars"))


def test_a_very_long_alt_text_is_folded() -> None:
    record = Record(key="a", image=ImageReference(uri="a", size=1), alt_text="<b> " * 2500)
    page = str(card(record, 0.0, None, None))
    assert (
        "<summary><b>alt text </b>" in page
        and "(10,000 characters)" in page
        and page.count("&lt;b&gt;") == (FOLDED + LONGEST) // 4
    )
    short = str(card(record.model_copy(update={"alt_text": "short"}), 0.0, None, None))
    assert "<details>" not in short and "<b>alt text </b>short" in short


def test_a_record_without_anything_has_a_card() -> None:
    record = Record(key="k", image=ImageReference(uri="a", size=1))
    assert "no description" in harmless(card(record, 0.0, None, None)).words


@pytest.mark.usefixtures("scene_store")
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("absent", "-o", "{}/a.html"), exits.REQUEST_REFUSED),
        (("demo", "-o", "{}"), exits.USAGE),
        (("demo", "-o", "{}/nowhere/a.html"), exits.USAGE),
        (("demo",), exits.USAGE),
    ],
)
def test_bad_input(arguments: tuple[str, ...], code: int, tmp_path: Path) -> None:
    assert code_of("report", *(one.format(tmp_path) for one in arguments)) == code
    assert not list(tmp_path.glob("*.html"))
