"""The export formats. Samples are written one after another, so that memory does not grow with their number."""

from __future__ import annotations

import io
import itertools
import json
import re
import shutil
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from strata.core import Box
from strata.shards import Keys

FILE_SAMPLES = 10_000  # samples in a folder of images, a tar or a Parquet file, as in img2dataset's shards
ROW_GROUP = 100  # samples in memory before they are written
LLAVA_TOKENS = ("<image>",)
QWEN_TOKENS = tuple(f"<{slash}{tag}>" for tag in ("img", "ref", "box", "quad") for slash in ("", "/"))
QWEN_TOKENS += ("<imgpad>", "<|endoftext|>", "<|im_start|>", "<|im_end|>")

TABLE_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string()),
        pa.field("image", pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])),
        pa.field("text", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field(
            "boxes", pa.list_(pa.struct([pa.field("phrase", pa.string()), pa.field("box", pa.list_(pa.float32()))]))
        ),
    ]
)
_STRING, _INT = {"dtype": "string", "_type": "Value"}, {"dtype": "int32", "_type": "Value"}
_BOX = {"feature": {"dtype": "float32", "_type": "Value"}, "_type": "List"}
FEATURES = {  # TABLE_SCHEMA as the `datasets` package describes it, so that it decodes the images
    "key": _STRING,
    "image": {"_type": "Image"},
    "text": _STRING,
    "width": _INT,
    "height": _INT,
    "boxes": {"feature": {"phrase": _STRING, "box": _BOX}, "_type": "List"},
}


class PhraseBox(NamedTuple):
    """A phrase and its box, in pixels of the upright image."""

    phrase: str
    box: Box


class Item(NamedTuple):
    """One sample: an upright JPEG, its size in pixels, its text, and the boxes of a layer that has them."""

    key: str
    jpeg: bytes
    width: int
    height: int
    text: str
    boxes: list[PhraseBox]


@dataclass(frozen=True)
class Target:
    """Where an export goes: it is written in `folder`, and will be found at `final`.

    instruction: what conversations ask. fingerprint: of snapshot and layer.
    """

    folder: Path
    final: Path
    instruction: str
    fingerprint: str


Form = Literal["llava", "monkey", "webdataset", "parquet", "hf"]
Write = Callable[[Target, Iterator[Item]], None]


def write_llava(target: Target, items: Iterator[Item]) -> None:
    """`train.json` and `images/` as LLaVA trains on them: `--data_path DIR/train.json --image_folder DIR`.

    The format of haotian-liu/LLaVA, docs/Finetune_Custom_Data.md.
    """

    def entry(item: Item, image: str) -> dict[str, Any]:
        question, answer = f"<image>\n{target.instruction}", without(item.text, LLAVA_TOKENS)
        return {"image": image, "conversations": _turns(("human", question), ("gpt", answer))}

    _write_conversations(target, items, entry)


def write_monkey(target: Target, items: Iterator[Item]) -> None:
    """`train.json` and `images/` as Qwen-VL and Monkey train on them; regions and objects are grounded phrases.

    The format of QwenLM/Qwen-VL, README, "Finetuning". Its images are opened by the paths that stand there: they are
    absolute.
    """

    def entry(item: Item, image: str) -> dict[str, Any]:
        question = f"Picture 1: <img>{target.final / image}</img>\n{target.instruction}"
        phrases = (f"<ref>{without(box.phrase, QWEN_TOKENS)}</ref>{qwen_box(box.box, item)}" for box in item.boxes)
        return {"conversations": _turns(("user", question), ("assistant", "; ".join(phrases) or _plain(item)))}

    _write_conversations(target, items, entry)


def _plain(item: Item) -> str:
    return without(item.text, QWEN_TOKENS)


def _turns(*said: tuple[str, str]) -> list[dict[str, str]]:
    return [{"from": role, "value": value} for role, value in said]


def without(text: str, tokens: Sequence[str]) -> str:
    """Remove a format's special tokens from a text, so that an alt text cannot stand for an image."""
    return re.sub("|".join(map(re.escape, tokens)), "", text)


def qwen_box(box: Box, item: Item) -> str:
    """A box as Qwen-VL writes it: corners in thousandths of the sides, 0 to 999 (arXiv 2308.12966, section 3)."""
    sides = (item.width, item.height, item.width, item.height)
    x1, y1, x2, y2 = (min(999, max(0, int(1000 * value / side))) for value, side in zip(box, sides, strict=True))
    return f"<box>({x1},{y1}),({x2},{y2})</box>"


def _write_conversations(target: Target, items: Iterator[Item], entry: Callable[[Item, str], dict[str, Any]]) -> None:
    # an array is written element by element
    before = "[\n"
    with (target.folder / "train.json").open("w", encoding="utf-8") as file:
        for number, named in _files(items):
            folder = f"images/{number:05d}"
            (target.folder / folder).mkdir(parents=True)
            for item in named:
                image = f"{folder}/{item.key}.jpg"
                (target.folder / image).write_bytes(item.jpeg)
                file.write(before + json.dumps({"id": item.key, **entry(item, image)}, ensure_ascii=False))
                before = ",\n"
        file.write("\n]\n")


def _files(items: Iterator[Item]) -> Iterator[tuple[int, Iterator[Item]]]:
    """The samples of each file, with the file's number.

    Within a file, keys are unique and have no dots or slashes, which would end a key in a webdataset.
    """
    for number in itertools.count():
        first = next(items, None)
        if first is None:
            return
        yield number, _named(itertools.chain([first], itertools.islice(items, FILE_SAMPLES - 1)))


def _named(items: Iterable[Item]) -> Iterator[Item]:
    keys = Keys()
    for item in items:
        yield item._replace(key=keys.distinct(re.sub(r"[./\\]", "_", Keys.clean(item.key))))


def write_webdataset(target: Target, items: Iterator[Item]) -> None:
    """Tars of KEY.jpg, KEY.txt and KEY.json, by the source's keys."""
    for number, named in _files(items):
        with tarfile.open(target.folder / f"{number:05d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for item in named:
                note = json.dumps({name: value for name, value in table_row(item).items() if name != "image"})
                for extension, data in (("jpg", item.jpeg), ("txt", item.text.encode()), ("json", note.encode())):
                    member = tarfile.TarInfo(f"{item.key}.{extension}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))


def table_row(item: Item) -> dict[str, Any]:
    """A sample as a row of TABLE_SCHEMA."""
    image = {"bytes": item.jpeg, "path": f"{item.key}.jpg"}
    boxes = [{"phrase": phrase, "box": list(box)} for phrase, box in item.boxes]
    sizes = {"width": item.width, "height": item.height}
    return {"key": item.key, "image": image, "text": item.text, **sizes, "boxes": boxes}


def write_parquet(target: Target, items: Iterator[Item]) -> None:
    """Parquet files of TABLE_SCHEMA, with the metadata by which `datasets` decodes the images."""
    schema = TABLE_SCHEMA.with_metadata({"huggingface": json.dumps({"info": {"features": FEATURES}})})
    for number, named in _files(items):
        with pq.ParquetWriter(target.folder / f"{number:05d}.parquet", schema) as writer:
            while rows := [table_row(item) for item in itertools.islice(named, ROW_GROUP)]:
                writer.write_table(pa.Table.from_pylist(rows, schema))


def write_dataset(target: Target, items: Iterator[Item]) -> None:
    """A dataset that `datasets.load_from_disk` opens, by the package itself: each image is written twice on the way.

    Raises ImportError without `datasets`.
    """
    import datasets

    working = target.folder / ".working"
    datasets.disable_progress_bars()
    try:
        # the package caches the samples as Arrow files, then `save_to_disk` copies them
        dataset = datasets.Dataset.from_generator(
            lambda: map(table_row, items),
            features=datasets.Features.from_dict(FEATURES),
            cache_dir=str(working),
            fingerprint=target.fingerprint,
            writer_batch_size=ROW_GROUP,
        )
    except datasets.exceptions.DatasetGenerationError as error:
        raise (error.__cause__ or error) from None  # the exception from reading the samples
    dataset.save_to_disk(str(target.folder))
    shutil.rmtree(working)


FORMATS: dict[Form, Write] = {
    "llava": write_llava,
    "monkey": write_monkey,
    "webdataset": write_webdataset,
    "parquet": write_parquet,
    "hf": write_dataset,
}
