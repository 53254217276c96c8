"""Exports as their consumers load them, after the folder has moved; with the consumer's own code where it is there."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas
import pyarrow.dataset
import pytest
from PIL import Image
from pycocotools import mask as coco
from transformers import LlavaProcessor
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

import strata
from strata.cli import exits
from strata.core.layers import LAYERS, Mask, ObjectMask
from strata.core.records import Record
from strata.data.boxes import BoxName
from strata.data.exports import PROVENANCE, ExportError, Form, Request, export
from strata.data.exports.exporting import SKIPPED
from strata.data.exports.formats import FORMATS
from strata.snapshots.snapshot import Snapshot
from strata.store.index_rows import IndexRow
from strata.store.store import Store
from tests.data.test_exports import entries_of, mds_samples, qwen_elements, read_back, run, table_rows
from tests.pinned import describe, pin, write_shards
from training.tiny import build_processor

COUNT = 3
Moved = Callable[..., Path]


@pytest.fixture
def snapshot(store: Store, tmp_path: Path) -> Snapshot:
    """Three images."""
    return pin(store, write_shards(tmp_path / "shards", 1, COUNT))


@pytest.fixture
def moved(store: Store, snapshot: Snapshot, tmp_path: Path) -> Moved:
    """Export, and move the folder and the images elsewhere."""

    def write(form: Form, layer: str = "description", **options: Any) -> Path:
        export(store, snapshot, Request(form, LAYERS[layer], **options), tmp_path / "out")
        return Path(shutil.move(tmp_path / "out", tmp_path / "elsewhere"))

    return write


@pytest.mark.parametrize("form", sorted(set(FORMATS) - {"qwen-vl", "monkey"}))
def test_a_folder_can_move(moved: Moved, form: Form) -> None:
    found = read_back(form, moved(form))
    assert [(key, image.size) for key, image in found] == [(f"{n:09d}", (100 + n, 50)) for n in range(COUNT)]


@pytest.mark.parametrize("form", ["qwen-vl", "monkey"])
@pytest.mark.parametrize("root", [".", "/data/elsewhere", ""])
def test_another_root_of_images(moved: Moved, form: Form, root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    out = moved(form, image_root=root)
    monkeypatch.chdir(out)
    for entry in entries_of(out):
        path = dict(qwen_elements(entry["conversations"][0]["value"]))["img"]
        assert path == f"{root}/images/00000/{entry['id']}.jpg".removeprefix("/" if not root else "")
        assert root.startswith("/") or Image.open(path).size[1] == 50


def test_images_inside_have_no_root(store: Store, snapshot: Snapshot, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="the format parquet has the images inside"):
        export(store, snapshot, Request("parquet", LAYERS["caption"], image_root="/data"), tmp_path / "out")


@pytest.mark.parametrize("form", FORMATS)
def test_provenance(moved: Moved, snapshot: Snapshot, form: Form) -> None:
    said = json.loads((moved(form, "regions", max_pixels=10**6, boxes="qwen2.5") / PROVENANCE).read_text())
    assert said["strata"] == strata.__version__ and said["created_at"].startswith("20")
    assert said["request"]["format"] == form and said["request"]["boxes"] == "qwen2.5"
    assert (said["request"]["layer"], said["request"]["max_pixels"]) == ("regions", 10**6)
    assert said["samples"] == {"exported": COUNT, "without_text": 0, "broken": 0}
    assert said["snapshot"]["id"] == snapshot.id and said["snapshot"]["counts"]["succeeded"] == COUNT
    assert said["snapshot"]["selection"]["method"] == "random"
    assert [profile["fingerprint"] for profile in said["profiles"]] == ["f" * 16]


# the user's turn of each format, and the answer of the first image (100 × 50 pixels), with its boxes
JSON = "Name what is in this image, and where. Report the bounding boxes in JSON format."
ANSWERS: list[tuple[Form, BoxName | str | None, str, str]] = [
    (
        "llava",
        None,
        "<image>\nName what is in this image, and where. Give the bounding box coordinates of each.",
        "thing 000000000: [0.0, 0.25, 0.5, 0.5]\nan edge: [1.0, 0.35, 1.0, 0.75]",
    ),
    ("llava", "none", "<image>\nName what is in this image.", "thing 000000000; an edge"),
    ("llama-factory", None, "<image>Name what is in this image.", "thing 000000000; an edge"),
    (
        "llama-factory",
        "qwen3",
        f"<image>{JSON}",
        '[\n\t{"bbox_2d": [0, 0, 500, 500], "label": "thing 000000000"},\n'
        '\t{"bbox_2d": [999, 200, 1000, 1000], "label": "an edge"}\n]',
    ),
    (
        "ms-swift",
        None,
        f"<image>{JSON}",
        '[\n\t{"bbox_2d": <bbox>, "label": "<ref-object>"},\n\t{"bbox_2d": <bbox>, "label": "<ref-object>"}\n]',
    ),
    ("ms-swift", "none", "<image>Name what is in this image.", "thing 000000000; an edge"),
]


@pytest.mark.parametrize(("form", "boxes", "question", "answer"), ANSWERS)
def test_what_is_asked_is_answered(moved: Moved, form: Form, boxes: Any, question: str, answer: str) -> None:
    entry = entries_of(moved(form, "regions", boxes=boxes))[0]
    turns = [turn.get("value") or turn["content"] for turn in entry.get("conversations") or entry["messages"]]
    assert turns == [question, answer]
    # ms-swift puts phrases and boxes in their places itself, one for each
    placed = entry.get("objects", {"ref": [], "bbox": []})
    assert len(placed["ref"]) == answer.count("<ref-object>") and len(placed["bbox"]) == answer.count("<bbox>")
    assert placed["bbox"][:1] in ([], [[0.0, 0.0, 50.0, 25.0]])


@pytest.mark.parametrize(
    ("layer", "instruction", "prompt"),
    [
        ("description", None, "Generate the detailed caption in English: "),
        ("caption", None, "Generate the caption in English: "),
        ("alt_text", None, "Write an alt text for this image. Answer: "),
        ("caption", "What is it?", "What is it? Answer: "),
    ],
)
def test_monkey_is_asked_in_its_own_words(
    store: Store, tmp_path: Path, layer: str, instruction: str | None, prompt: str
) -> None:
    """As Yuliang-Liu/Monkey's README asks it: `<img>PATH</img> QUESTION Answer: `, joined with the answer as it is."""

    def with_alt_text(row: IndexRow) -> Record:
        return describe(row).model_copy(update={"alt_text": "words"})

    snapshot = pin(store, write_shards(tmp_path / "shards", 1, 1), describe=with_alt_text)
    export(store, snapshot, Request("monkey", LAYERS[layer], instruction), tmp_path / "out")
    ((user, assistant),) = (entry["conversations"] for entry in entries_of(tmp_path / "out"))
    assert user["value"] == f"<img>{tmp_path}/out/images/00000/000000000.jpg</img> {prompt}"
    assert (user["from"], assistant["from"]) == ("user", "assistant") and assistant["value"].strip()


def tiny_processor() -> LlavaProcessor:
    return build_processor(["Describe this image in detail. description 0123456789"], 32, 300)


def test_trl_collates_messages(moved: Moved) -> None:
    """TRL's SFTTrainer gives rows of a data set with images to this collator as they are."""
    loaded = datasets.load_dataset("parquet", data_files=str(moved("messages") / "data" / "*.parquet"), split="train")
    processor = tiny_processor()
    batch = DataCollatorForVisionLanguageModeling(processor)([loaded[number] for number in range(COUNT)])
    assert batch["pixel_values"].shape == (COUNT, 3, 32, 32)
    for number, tokens in enumerate(batch["input_ids"]):
        text = processor.tokenizer.decode(tokens[tokens != processor.tokenizer.pad_token_id])
        assert text.count("<image>") == 4 and f"detail.<|assistant|>description {number:09d}<|end|>" in text


def test_llama_factory_finds_the_data_set(moved: Moved, snapshot: Snapshot) -> None:
    """By the schema of llamafactory 0.9.5 (data/parser.py, data/converter.py), which allows no datasets above 4.0."""
    out = moved("llama-factory")
    info = json.loads((out / "dataset_info.json").read_text())[snapshot.name]
    assert info["formatting"] == "sharegpt"
    loaded = datasets.load_dataset("json", data_files=str(out / info["file_name"]), split="train")
    tags = info["tags"]
    for row in loaded:
        turns = row[info["columns"]["messages"]]
        assert [turn[tags["role_tag"]] for turn in turns] == [tags["user_tag"], tags["assistant_tag"]]
        texts = "".join(turn[tags["content_tag"]] for turn in turns)
        images = row[info["columns"]["images"]]
        assert texts.count("<image>") == len(images) == 1 and (out / images[0]).is_file()


def test_masks_lie_in_tables(store: Store, tmp_path: Path) -> None:
    def with_mask(row: IndexRow) -> Record:
        encoded = coco.encode(np.asfortranarray([[0, 1] * 50] * 50, dtype="uint8"))
        mask = Mask(size=(50, 100), counts=encoded["counts"].decode())
        thing = ObjectMask(box=(1, 0, 100, 50), mask=mask, area=2500, phrase="stripes")
        return describe(row).model_copy(update={"objects": [thing]})

    snapshot = pin(store, write_shards(tmp_path / "shards", 1, 1), describe=with_mask)
    for form in ("parquet", "hf", "mds"):
        out = tmp_path / form
        export(store, snapshot, Request(form, LAYERS["objects"]), out)
        (row,) = mds_samples(out) if form == "mds" else table_rows(form, out)
        mask = row["boxes"][0]["mask"]
        decoded = coco.decode({"size": list(mask["size"]), "counts": mask["counts"].encode()})
        assert decoded.shape == (50, 100) and decoded.sum() == 2500 and decoded[0, :2].tolist() == [0, 1]


def test_a_folder_of_parquet_is_read_as_one_table(moved: Moved) -> None:
    """The other files of an export do not disturb those who read the whole folder of its data."""
    out = moved("parquet")
    (out / SKIPPED).write_text('{"key": "a"}\n')
    assert pyarrow.dataset.dataset(str(out / "data")).count_rows() == 3
    frame = pandas.read_parquet(out / "data")
    assert list(frame["width"]) == [100, 101, 102]
    row = datasets.load_dataset(str(out), split="train")[0]
    assert row["image"].size == (100, 50)
    assert Image.open(io.BytesIO(frame["image"][0]["bytes"])).size == (100, 50)


def test_the_options(store: Store, snapshot: Snapshot, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    common = ["--store", store.uri, "--out", str(out), "--layer", "regions"]
    assert run("pinned", "--format", "qwen-vl", "--boxes", "qwen2.5", "--max-pixels", "1003520", *common) == 0
    said = json.loads((out / PROVENANCE).read_text())["request"]
    assert (said["boxes"], said["max_pixels"]) == ("qwen2.5", 1_003_520)
    shutil.rmtree(out)
    capsys.readouterr()
    assert run("pinned", "--format", "hf", "--image-root", "/data", *common) == exits.REQUEST_REFUSED
    assert run("pinned", "--format", "hf", "--boxes", "yolo", *common) == exits.USAGE
    assert run("pinned", "--format", "llava", *[*common[:-1], "objects"]) == exits.REQUEST_REFUSED
    told = capsys.readouterr().err
    assert "no row of pinned has text in the layer objects; there is text in alt_text, caption, regions" in told
