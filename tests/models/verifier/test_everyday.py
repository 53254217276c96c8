"""Everyday pictures: true sentences in the style of large models stay, false ones of six kinds are cut."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from models.verifier.entities import Facts, facts_of
from models.verifier.verifying import Reading
from strata.core import CheckedSentence
from tests.models.verifier.test_prose import record_of

PICTURES: list[dict[str, Any]] = tomllib.loads((Path(__file__).parent / "everyday.toml").read_text())["picture"]
FACTS: dict[str, Facts] = {picture["name"]: facts_of(record_of(picture)) for picture in PICTURES}


def checked(picture: dict[str, Any], sentence: str) -> CheckedSentence:
    return Reading(FACTS[picture["name"]]).sentence(sentence)


def test_true_sentences_stay() -> None:
    found = [checked(picture, sentence) for picture in PICTURES for sentence in picture["true"]]
    cut = [(one.text, one.kept) for one in found if one.kept != one.text]
    assert len(found) >= 100 and len(cut) <= 0.03 * len(found), cut


@pytest.mark.parametrize("kind", ["thing", "colour", "count", "relation", "quote", "setting"])
def test_false_sentences_are_cut(kind: str) -> None:
    found = [checked(one, sentence) for one in PICTURES for name, sentence in one["false"] if name == kind]
    kept = [one.text for one in found if one.kept == one.text]
    assert len(found) >= 12 and len(kept) <= 0.05 * len(found), kept


def test_what_remains_is_a_sentence() -> None:
    for picture in PICTURES:
        for _, sentence in picture["false"]:
            kept = checked(picture, sentence).kept
            if kept is not None:
                assert kept[0].isupper() and kept[-1] == ".", kept
                assert not re.search(r"\b(?:a|an|the|of|and|with|on|in|is|are|to)[.,]| [.,;]|,,", kept), kept
