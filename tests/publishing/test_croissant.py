"""Croissant metadata of every format: valid for mlcroissant, which loads the records that the export has."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import mlcroissant
import pytest
from PIL import Image

from strata.core.layers import LAYERS
from strata.data.exports import FORMATS, Form, Request
from strata.publishing import About, export
from strata.snapshots import Snapshot
from strata.store import Store
from tests.data.test_exports import entries_of, table_rows

ABOUT = About("Cars", "https://spdx.org/licenses/CC-BY-4.0", (), "Ada", "https://example.org/cars")


def written(store: Store, snapshot: Snapshot, folder: Path, form: Form, layer: str = "regions") -> Path:
    export(store, snapshot, Request(form, LAYERS[layer]), folder / form, ABOUT)
    return folder / form


def opened(out: Path) -> Any:
    return mlcroissant.Dataset(jsonld=str(out / "croissant.json"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """mlcroissant extracts tars under a hash of their names alone."""
    for module in ("download", "extract"):
        for name in ("DOWNLOAD_PATH", "EXTRACT_PATH"):
            place = f"mlcroissant._src.operation_graph.operations.{module}"
            monkeypatch.setattr(f"{place}.{name}", _path(tmp_path / name), raising=False)
    monkeypatch.setattr("mlcroissant._src.core.constants.DOWNLOAD_PATH", _path(tmp_path / "DOWNLOAD_PATH"))


def _path(path: Path) -> Any:
    from etils import epath

    return epath.Path(path)


@pytest.mark.parametrize("form", FORMATS)
def test_it_is_valid(
    store: Store, snapshot: Snapshot, tmp_path: Path, form: Form, caplog: pytest.LogCaptureFixture
) -> None:
    out = written(store, snapshot, tmp_path, form)
    with caplog.at_level(logging.WARNING):
        found = opened(out).metadata
    assert not found.ctx.issues.errors
    # nothing that it warns of but a version, which a snapshot's id is instead of
    assert all("version" in warning for warning in found.ctx.issues.warnings), found.ctx.issues.warnings
    assert [record.message for record in caplog.records if "not standard" in record.message] == []
    assert found.ctx.is_v1_1() and found.name == "Cars"
    assert found.data_limitations and found.data_annotation_protocol and found.machine_annotation_tools
    assert "8 sentences cut or shortened: wrong_count" in found.data_annotation_analysis
    # every file has the checksum that it has
    text = json.loads((out / "croissant.json").read_text(encoding="utf-8"))
    sums = dict(reversed(line.split("  ")) for line in (out / "SHA256SUMS").read_text().splitlines())
    files = [node for node in text["distribution"] if node["@type"] == "cr:FileObject"]
    assert files and all(sums[node["contentUrl"]] == node["sha256"] for node in files)


def test_parquet_loads(store: Store, snapshot: Snapshot, tmp_path: Path) -> None:
    out = written(store, snapshot, tmp_path, "parquet")
    records = list(opened(out).records("samples"))
    rows = list(table_rows("parquet", out))
    assert len(records) == len(rows) == 8
    for record, row in zip(records, rows, strict=True):
        assert record["samples/key"].decode() == row["key"] and record["samples/text"].decode() == row["text"]
        assert record["samples/image"].size == row["image"].size
        assert (record["samples/width"], record["samples/height"]) == (row["width"], row["height"])
        places = [(one["samples/boxes/phrase"].decode(), one["samples/boxes/box"]) for one in record["samples/boxes"]]
        assert places == [(one["phrase"], one["box"]) for one in row["boxes"]]


def test_messages_load(store: Store, snapshot: Snapshot, tmp_path: Path) -> None:
    out = written(store, snapshot, tmp_path, "messages", "description")
    for record, row in zip(opened(out).records("samples"), table_rows("messages", out), strict=True):
        assert record["samples/key"].decode() == row["key"]
        assert turns_of(record, "messages", "role", "content") == [(t["role"], t["content"]) for t in row["messages"]]
        assert [image.size for image in record["samples/images"]] == [image.size for image in row["images"]]


def turns_of(record: dict[str, Any], field: str, *names: str) -> list[tuple[str, ...]]:
    """The turns of a loaded conversation."""
    turns = record[f"samples/{field}"]
    return [tuple(turn[f"samples/{field}/{name}"].decode() for name in names) for turn in turns]


@pytest.mark.parametrize("form", ["llava", "qwen-vl", "monkey", "llama-factory", "ms-swift"])
def test_conversations_load(store: Store, snapshot: Snapshot, tmp_path: Path, form: Form) -> None:
    out = written(store, snapshot, tmp_path, form, "description")
    records, entries = list(opened(out).records("samples")), entries_of(out)
    assert len(records) == len(entries) == 8
    for record, entry in zip(records, entries, strict=True):
        if "conversations" in entry:
            turns = [(turn["from"], turn["value"]) for turn in entry["conversations"]]
            assert turns_of(record, "conversations", "from", "value") == turns
        else:
            turns = [(turn["role"], turn["content"]) for turn in entry["messages"]]
            assert turns_of(record, "messages", "role", "content") == turns
            assert [image.decode() for image in record["samples/images"]] == entry["images"]
        assert form == "ms-swift" or record["samples/id"].decode() == entry["id"]
        assert form != "llava" or record["samples/image"].decode() == entry["image"]


def test_a_webdataset_loads(store: Store, snapshot: Snapshot, tmp_path: Path) -> None:
    """Its images and its texts; the names of the members join them."""
    out = written(store, snapshot, tmp_path, "webdataset", "description")
    data = opened(out)
    images = {record["images/file"].decode(): record["images/image"] for record in data.records("images")}
    texts = {record["texts/file"].decode(): record["texts/text"].decode() for record in data.records("texts")}
    keys = [f"{number:09d}" for number in range(8)]
    assert texts == {f"{key}.txt": f"description {key}" for key in keys}
    assert {name: image.size for name, image in images.items()} == {f"{key}.jpg": (100 + int(key), 50) for key in keys}
    assert all(isinstance(image, Image.Image) for image in images.values())
