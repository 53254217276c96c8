"""The variants that follow from a record's layers by rules: the same record gives the same text."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from models.variants.questions import turns_of
from models.variants.structured import picture_of
from models.variants.tags import tags_of
from strata.core import Record, Sentence, Variant


def layered_variants(record: Record, names: Collection[str], absent: Sequence[str] = ()) -> list[Variant]:
    """Those of the named variants that follow from the layers, in the order of the names.

    absent: the kinds of things, as noun phrases, that the models would have found; see `models.variants.closed`.
    """
    makers: Mapping[str, Callable[[], Variant]] = {
        "tags": lambda: _tags(record),
        "json": lambda: Variant(name="json", text=picture_of(record).dumps()),
        "questions": lambda: _questions(record, absent),
    }
    return [makers[name]() for name in names if name in makers]


def _tags(record: Record) -> Variant:
    tags = tags_of(record)
    sentences = [Sentence(text=tag.words, evidence=list(tag.evidence)) for tag in tags]
    return Variant(name="tags", text=", ".join(tag.words for tag in tags), sentences=sentences)


def _questions(record: Record, absent: Sequence[str]) -> Variant:
    turns = turns_of(record, absent)
    text = "\n".join(line for turn in turns for line in (turn.question, turn.answer))
    return Variant(name="questions", text=text, turns=turns)
