"""Variants as levels for training: snapshots, mixtures and exports read them by names such as `description.short`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from strata.core import LAYERS, VARIANT_LEVELS, VARIANTS, LayerError, Record, Turn, Variant, layer_named
from strata.data.exports import ExportError, Form, Request, export
from strata.data.mixture_files import Locations, MixtureFile, open_mixture
from strata.data.reader import SampleReader
from strata.snapshots import Snapshot
from strata.store import IndexRow, Store
from tests.pinned import describe, pin, write_shards

COUNT = 4
TURNS = [("What is there?", "A <image> thing."), ("What colour is it?", "It is red.")]


def varied(row: IndexRow) -> Record:
    """A record with variants; the first image has no questions."""
    turns = [] if row.key.endswith("0") else [Turn(question=q, answer=a, evidence=["regions/0"]) for q, a in TURNS]
    text = "\n".join(line for turn in turns for line in (turn.question, turn.answer))
    variants = [
        Variant(name="short", text=f"short {row.key}"),
        Variant(name="json", text='{"things": []}'),
        Variant(name="questions", text=text, turns=turns),
    ]
    return describe(row).model_copy(update={"variants": variants})


@pytest.fixture
def snapshot(store: Store, tmp_path: Path) -> Snapshot:
    return pin(store, write_shards(tmp_path / "shards", 1, COUNT), describe=varied)


def exported(store: Store, snapshot: Snapshot, form: Form, level: str, out: Path) -> Any:
    samples = export(store, snapshot, Request(form, layer_named(level)), out)
    file = next(out.glob("train.json*"))
    text = file.read_text(encoding="utf-8")
    return samples, [json.loads(line) for line in text.splitlines()] if file.suffix == ".jsonl" else json.loads(text)


def test_every_variant_is_a_level_and_no_layer() -> None:
    assert [level.variant for level in VARIANT_LEVELS.values()] == list(VARIANTS)
    assert not VARIANT_LEVELS.keys() & LAYERS.keys()
    with pytest.raises(LayerError, match=r"description\.short"):
        layer_named("description.tiny")


def test_a_variant_is_exported_with_a_question_of_its_own(store: Store, snapshot: Snapshot, tmp_path: Path) -> None:
    samples, entries = exported(store, snapshot, "llava", "description.short", tmp_path / "out")
    assert samples.count == COUNT
    asked, answered = entries[1]["conversations"]
    assert (
        answered["value"] == "short 000000001"
        and asked["value"] == "<image>\nDescribe this image in one short sentence."
    )


def test_questions_are_conversations(store: Store, snapshot: Snapshot, tmp_path: Path) -> None:
    samples, entries = exported(store, snapshot, "llava", "description.questions", tmp_path / "llava")
    assert (samples.count, samples.skipped) == (COUNT - 1, 1)
    turns = entries[0]["conversations"]
    assert [turn["from"] for turn in turns] == ["human", "gpt"] * 2
    # the image stands before the first question alone, also where an answer has its token
    assert [turn["value"] for turn in turns][::2] == ["<image>\nWhat is there?", "What colour is it?"]
    assert "<image>" not in turns[1]["value"]
    _, lines = exported(store, snapshot, "ms-swift", "description.questions", tmp_path / "swift")
    assert [turn["role"] for turn in lines[0]["messages"]] == ["user", "assistant"] * 2
    with pytest.raises(ExportError, match="one question"):
        export(store, snapshot, Request("monkey", layer_named("description.questions")), tmp_path / "monkey")


def test_a_level_without_text_is_told_with_those_that_have_some(
    store: Store, snapshot: Snapshot, tmp_path: Path
) -> None:
    with pytest.raises(
        ExportError, match=r"description, description\.short, description\.json, description\.questions$"
    ):
        export(store, snapshot, Request("llava", layer_named("description.long")), tmp_path / "out")


def test_a_mixture_reads_variants(store: Store, snapshot: Snapshot, tmp_path: Path) -> None:
    sources = [
        {"name": "short", "snapshot": "pinned", "layer": "description.short", "instruction": "Briefly?"},
        {"name": "questions", "snapshot": "pinned", "layer": "description.questions"},
    ]
    file = MixtureFile.model_validate({"name": "m", "sources": sources})
    mixture = open_mixture(file, Locations(store, str(tmp_path), tmp_path / "cache"))
    found = {tuple(turn["content"] for turn in sample.conversation) for sample in SampleReader(mixture)}
    assert ("Briefly?", "short 000000002") in found
    assert any(len(turns) == 4 and turns[2:] == ("What colour is it?", "It is red.") for turns in found)


def test_parts_of_before_have_no_variants(store: Store, tmp_path: Path) -> None:
    old = pin(store, write_shards(tmp_path / "shards", 1, COUNT), describe=describe)
    with pytest.raises(ExportError, match="there is text in"):
        export(store, old, Request("llava", layer_named("description.short")), tmp_path / "out")
