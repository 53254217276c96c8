"""Free prose in the style of large models: what is true stays, each planted falsehood is cut."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from models.verifier.entities import facts_of
from models.verifier.verifying import Reading, remaining
from strata.core import Record, Verification
from tests.models.verifier.records import record

PICTURES: list[dict[str, Any]] = tomllib.loads((Path(__file__).parent / "prose.toml").read_text())["picture"]
CHOICE = re.compile(r"\{(\w+):([^|}]*)\|([^}]*)\}")


def record_of(picture: dict[str, Any]) -> Record:
    things = [(phrase, tuple(box)) for phrase, *box in picture["things"]]
    lines = [(line, tuple(box)) for line, *box in picture.get("text", ())]
    return record(*things, text=lines, caption=picture["caption"], size=tuple(picture["size"]))


def texts() -> Iterator[tuple[dict[str, Any], str]]:
    return ((picture, text) for picture in PICTURES for text in picture["texts"])


def told(text: str, false: int = -1) -> str:
    """The text with the true words of all choices, but for one."""
    choices = iter(range(len(CHOICE.findall(text))))
    made = CHOICE.sub(lambda found: found[3] if next(choices) == false else found[2], text)
    return made[0].upper() + made[1:]


def planted() -> Iterator[tuple[str, dict[str, Any], str, str]]:
    """Each text with one falsehood: its kind, the picture, the text, and what must not remain."""
    for picture, text in texts():
        for number, (kind, true, false) in enumerate(CHOICE.findall(text)):
            made = told(text, number)
            # words around the falsehood tell it from the same words elsewhere
            assert made.lower().count(false.lower()) > told(text).lower().count(false.lower()), (true, false)
            yield kind, picture, made, false


def verified(picture: dict[str, Any], text: str) -> Verification:
    return Reading(facts_of(record_of(picture))).read(text)


def test_true_prose_stays() -> None:
    sentences = [one for picture, text in texts() for one in verified(picture, told(text)).sentences]
    cut = [(one.text, one.kept, one.reason) for one in sentences if one.kept != one.text]
    assert len(sentences) >= 38 and len(cut) <= 0.03 * len(sentences), cut


@pytest.mark.parametrize("kind", ["thing", "colour", "count", "relation", "quote", "setting"])
def test_planted_falsehoods_in_prose_are_cut(kind: str) -> None:
    cases = [case for case in planted() if case[0] == kind]
    assert len(cases) >= 5
    missed = []
    for _, picture, text, false in cases:
        left = remaining(verified(picture, text))
        true_text = " ".join(sentence for sentence in re.split(r"(?<=[.!?])\s+", told(text)))
        if left.lower().count(false.lower()) >= text.lower().count(false.lower()):
            missed.append((false, left, true_text[:0]))
    assert len(missed) <= 0.05 * len(cases), missed


def test_what_remains_of_prose_is_whole() -> None:
    for _, picture, text, _ in planted():
        for one in verified(picture, text).sentences:
            if one.kept is not None:
                assert one.kept[0].isupper() and one.kept[-1] in '.!?"', one
                assert not re.search(r"\b(?:a|an|the|of|and|with|on|in|is|are)[.,]", one.kept), one
                assert not re.search(r" [.,;]|,,|\.\.", one.kept), one
