"""Data sets of Hugging Face, whole and streamed, whose images are files, bytes, or broken."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image

from strata.core.records import RECORD_SCHEMA
from strata.describing import Describer
from strata.errors import InvalidInput
from tests.fakes import jpeg


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> datasets.Dataset:
    """Four images: a file, bytes, bytes that are no image, and none."""
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg(20))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    datasets.disable_progress_bars()
    images = [{"path": str(path)}, {"bytes": jpeg(21)}, {"bytes": b"broken"}, None]
    columns = {"image": images, "words": ["a", None, "c", "d"]}
    features = datasets.Features({"image": datasets.Image(decode=False), "words": datasets.Value("string")})
    made: datasets.Dataset = datasets.Dataset.from_dict(columns, features).cast_column("image", datasets.Image())
    return made


def check(found: list[dict[str, Any]]) -> None:
    assert [row["description"] for row in found] == ["20 by 24", "21 by 24", None, None]
    records = [row["record"] for row in found]
    assert [one["status"] for one in records] == ["succeeded", "succeeded", "failed", "failed"]
    assert [one["alt_text"] for one in records] == ["a", None, "c", "d"]
    assert records[2]["failure"]["error_type"] == "not_an_image"


def test_a_data_set_gets_descriptions_and_records(describer: Describer, rows: datasets.Dataset) -> None:
    found = describer.describe(rows, alt_text="words")
    assert isinstance(found, datasets.Dataset) and isinstance(found.features["image"], datasets.Image)
    assert found.features["image"].decode
    check(list(found.remove_columns("image")))
    assert isinstance(found[0]["image"], Image.Image)
    assert set(found[0]["record"]) == set(RECORD_SCHEMA.names)


def test_a_streamed_data_set_is_described_as_it_is_read(describer: Describer, rows: datasets.Dataset) -> None:
    found = describer.describe(rows.to_iterable_dataset(), alt_text="words")
    assert isinstance(found, datasets.IterableDataset)
    read = list(found)  # a broken image does not end the reading
    check(read)
    assert read[1]["image"]["bytes"] == jpeg(21)


def test_of_no_rows_there_are_both_columns(describer: Describer, rows: datasets.Dataset) -> None:
    for none in (rows.select([]), datasets.Dataset.from_dict({"image": []})):
        found = describer.describe(none)
        assert len(found) == 0 and found.column_names == [*none.column_names, "description", "record"]
    whole = describer.describe(rows.select([1]))
    assert describer.describe(rows.select([])).features == whole.features
    assert datasets.concatenate_datasets([describer.describe(rows.select([])), whole])["description"][:] == ["21 by 24"]


def test_splits_are_described_each(describer: Describer, rows: datasets.Dataset) -> None:
    found = describer.describe(datasets.DatasetDict({"train": rows, "test": rows.select([1])}), alt_text="words")
    assert found["test"]["description"][:] == ["21 by 24"] and len(found["train"]) == 4


def test_columns_are_checked(describer: Describer, rows: datasets.Dataset) -> None:
    for data, options, told in (
        (rows, {"column": "picture"}, "it has image, words"),
        (rows, {"alt_text": "nothing"}, "'nothing'"),
        (rows.rename_column("words", "record"), {}, "rename_column"),
        (rows, {"alt_text": ["a"]}, "give its name"),
    ):
        with pytest.raises(InvalidInput, match=told):
            describer.describe(data, **options)


def test_a_column_of_paths_or_bytes_is_read_too(describer: Describer, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg(20))
    for value in (str(path), jpeg(20)):
        found = describer.describe(datasets.Dataset.from_dict({"image": [value]}))
        assert found[0]["description"] == "20 by 24"


def test_a_function_for_map_is_sent_to_other_processes_without_models(describer: Describer) -> None:
    act = describer.for_map("image")
    again = pickle.loads(pickle.dumps(act))
    assert act.fingerprint == again.fingerprint and again._each is None
    assert act({"image": [jpeg(20)]})["description"] == ["20 by 24"]
    # datasets keeps a result by what it can pickle of the function: another profile is another result
    texts = describer.for_map("image", variants="tags")
    assert pickle.dumps(texts) != pickle.dumps(act)
