"""Croissant metadata of every format: valid for mlcroissant, which loads the records that the export has."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from strata.data.exports import FORMATS, Form
from strata.publishing.checksums import SUMS, parse_sums
from tests.data.test_exports import entries_of, table_rows

mlcroissant = pytest.importorskip("mlcroissant")  # of the extra `dev`
from mlcroissant._src.core.constants import EncodingFormat  # noqa: E402


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """mlcroissant extracts tars under a hash of their names alone."""
    from etils import epath

    place = "mlcroissant._src.operation_graph.operations.extract.EXTRACT_PATH"
    monkeypatch.setattr(place, epath.Path(tmp_path / "extracted"))


@pytest.mark.parametrize("form", FORMATS)
def test_it_is_valid_and_loads(exports: Callable[[Form], Path], form: Form) -> None:
    out = exports(form)
    data = mlcroissant.Dataset(jsonld=str(out / "croissant.json"))
    _check_metadata(data.metadata, out)
    if form == "parquet":
        _check_table(list(data.records("samples")), out)
    elif form == "messages":
        _check_messages(list(data.records("samples")), out)
    elif form == "webdataset":
        _check_members(data)
    elif form in ("mds", "hf"):
        assert not data.metadata.record_sets
    else:
        _check_conversations(form, list(data.records("samples")), out)
        images = {record["images/file"].decode(): record["images/image"] for record in data.records("images")}
        assert {path: image.size for path, image in images.items()} == {
            f"images/00000/{number:09d}.jpg": (100 + number, 50) for number in range(8)
        }


def test_what_mlcroissant_cannot_read() -> None:
    """When it learns one of these, the format gets record sets."""
    known = " ".join(value for name, value in vars(EncodingFormat).items() if name.isupper())
    assert "parquet" in known and not re.search("arrow|mds|mosaic", known)


def _check_metadata(found: Any, out: Path) -> None:
    assert not found.ctx.issues.errors
    # it recommends a version, for which there is the snapshot's id, and a citation
    warnings = found.ctx.issues.warnings
    assert all(re.search('(version|citeAs)" is recommended', one) for one in warnings), warnings
    assert found.ctx.is_v1_1() and found.name == "Cars"
    assert found.data_limitations and found.data_annotation_protocol and found.machine_annotation_tools
    assert "8 sentences cut or shortened: wrong_count" in found.data_annotation_analysis
    # every file has the checksum that it has
    text = json.loads((out / "croissant.json").read_text(encoding="utf-8"))
    sums = parse_sums((out / SUMS).read_text())
    files = [node for node in text["distribution"] if node["@type"] == "cr:FileObject"]
    assert len(files) > 1 and all(sums[node["contentUrl"]] == node["sha256"] for node in files)


def _check_table(records: list[Any], out: Path) -> None:
    rows = list(table_rows("parquet", out))
    assert len(records) == len(rows) == 8
    for record, row in zip(records, rows, strict=True):
        assert record["samples/key"].decode() == row["key"] and record["samples/text"].decode() == row["text"]
        assert record["samples/image"].size == row["image"].size
        assert (record["samples/width"], record["samples/height"]) == (row["width"], row["height"])
        places = [(one["samples/boxes/phrase"].decode(), one["samples/boxes/box"]) for one in record["samples/boxes"]]
        assert places == [(one["phrase"], one["box"]) for one in row["boxes"]]


def _check_messages(records: list[Any], out: Path) -> None:
    for record, row in zip(records, table_rows("messages", out), strict=True):
        assert record["samples/key"].decode() == row["key"]
        assert turns_of(record, "messages", "role", "content") == [(t["role"], t["content"]) for t in row["messages"]]
        assert [image.size for image in record["samples/images"]] == [image.size for image in row["images"]]


def turns_of(record: dict[str, Any], field: str, *names: str) -> list[tuple[str, ...]]:
    """The turns of a loaded conversation."""
    turns = record[f"samples/{field}"]
    return [tuple(turn[f"samples/{field}/{name}"].decode() for name in names) for turn in turns]


def _check_conversations(form: Form, records: list[Any], out: Path) -> None:
    entries = entries_of(out)
    assert len(records) == len(entries) == 8
    for record, entry in zip(records, entries, strict=True):
        field = "messages" if "messages" in entry else "conversations"
        turns = [tuple(turn.values()) for turn in entry[field]]
        if form == "ms-swift":  # which has no ids, because pandas makes numbers of them
            assert turns_of(record, "messages", "role", "content") == turns
        else:
            assert record["samples/id"].decode() == entry["id"]
            lists = [[text.decode() for text in record[f"samples/{name}"]] for name in entry[field][0]]
            assert list(zip(*lists, strict=True)) == turns
        if form == "llava":
            assert record["samples/image"].decode() == entry["image"]
        elif field == "messages":
            assert [image.decode() for image in record["samples/images"]] == entry["images"]


def _check_members(data: Any) -> None:
    """A webdataset's images and its texts; the names of the members join them."""
    images = {record["images/file"].decode(): record["images/image"] for record in data.records("images")}
    texts = {record["texts/file"].decode(): record["texts/text"].decode() for record in data.records("texts")}
    keys = [f"{number:09d}" for number in range(8)]
    assert texts == {f"{key}.txt": f"description {key}" for key in keys}
    assert {name: image.size for name, image in images.items()} == {f"{key}.jpg": (100 + int(key), 50) for key in keys}
