"""Writers for the export formats. They write sample by sample, so that memory does not grow with the number."""

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
from strata.data.exports.names import Names, NameTable, file_name

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


class ExportSample(NamedTuple):
    """One sample: an upright JPEG, its size in pixels, its text, and the boxes of its entries (none without boxes).

    name: of its files, without an extension.
    """

    key: str
    jpeg: bytes
    width: int
    height: int
    text: str
    boxes: list[PhraseBox]
    name: str = ""


@dataclass(frozen=True)
class Target:
    """The target of an export: it is written in `folder`, which is renamed to `final` at the end.

    instruction: the user's turn of conversations. fingerprint: identifies snapshot and layer.
    """

    folder: Path
    final: Path
    instruction: str
    fingerprint: str


Form = Literal["llava", "monkey", "webdataset", "parquet", "hf"]
Write = Callable[[Target, Iterator[ExportSample]], None]


def write_llava(target: Target, samples: Iterator[ExportSample]) -> None:
    """Write `train.json` and `images/` for LLaVA's training: `--data_path DIR/train.json --image_folder DIR`.

    The format of haotian-liu/LLaVA, docs/Finetune_Custom_Data.md.
    """

    def entry(sample: ExportSample, image: str) -> dict[str, Any]:
        question, answer = f"<image>\n{target.instruction}", without(sample.text, LLAVA_TOKENS)
        return {"image": image, "conversations": _turns(("human", question), ("gpt", answer))}

    _write_conversations(target, samples, entry)


def write_monkey(target: Target, samples: Iterator[ExportSample]) -> None:
    """Write `train.json` and `images/` for Qwen-VL's and Monkey's training; regions and objects are grounded phrases.

    The format of QwenLM/Qwen-VL, README, "Finetuning". Its loader opens images by the paths in the file, so they are
    absolute.
    """

    def entry(sample: ExportSample, image: str) -> dict[str, Any]:
        question = f"Picture 1: <img>{target.final / image}</img>\n{target.instruction}"
        # without boxes the text itself is the answer
        phrases = (f"<ref>{without(box.phrase, QWEN_TOKENS)}</ref>{qwen_box(box.box, sample)}" for box in sample.boxes)
        return {"conversations": _turns(("user", question), ("assistant", "; ".join(phrases) or _plain(sample)))}

    _write_conversations(target, samples, entry)


def _plain(sample: ExportSample) -> str:
    return without(sample.text, QWEN_TOKENS)


def _turns(*turns: tuple[str, str]) -> list[dict[str, str]]:
    return [{"from": role, "value": value} for role, value in turns]


def without(text: str, tokens: Sequence[str]) -> str:
    """Remove a format's special tokens from a text: an alt text with an image token would count as a second image."""
    return re.sub("|".join(map(re.escape, tokens)), "", text)


def qwen_box(box: Box, sample: ExportSample) -> str:
    """A box in Qwen-VL's notation: corners in thousandths of the sides, 0 to 999 (arXiv 2308.12966, section 3)."""
    sides = (sample.width, sample.height, sample.width, sample.height)
    x1, y1, x2, y2 = (min(999, max(0, int(1000 * value / side))) for value, side in zip(box, sides, strict=True))
    return f"<box>({x1},{y1}),({x2},{y2})</box>"


def _write_conversations(
    target: Target, samples: Iterator[ExportSample], entry: Callable[[ExportSample, str], dict[str, Any]]
) -> None:
    # write the array element by element, without a list of all samples in memory
    before = "[\n"
    with (target.folder / "train.json").open("w", encoding="utf-8") as file, NameTable(target.folder) as table:
        for number, named in _files(samples):
            folder = f"images/{number:05d}"
            (target.folder / folder).mkdir(parents=True)
            for sample in named:
                image = f"{folder}/{sample.name}.jpg"
                table.note(sample.key, sample.name, image)
                (target.folder / image).write_bytes(sample.jpeg)
                file.write(before + json.dumps({"id": sample.key, **entry(sample, image)}, ensure_ascii=False))
                before = ",\n"
        file.write("\n]\n")


def _files(samples: Iterator[ExportSample]) -> Iterator[tuple[int, Iterator[ExportSample]]]:
    """The samples of each file, with the file's number.

    In each file the names are unique, and fit every file system and webdataset.
    """
    for number in itertools.count():
        first = next(samples, None)
        if first is None:
            return
        yield number, _named(itertools.chain([first], itertools.islice(samples, FILE_SAMPLES - 1)))


def _named(samples: Iterable[ExportSample]) -> Iterator[ExportSample]:
    names = Names()
    for sample in samples:
        yield sample._replace(name=names.of(sample.key))


def write_webdataset(target: Target, samples: Iterator[ExportSample]) -> None:
    """Write tars of KEY.jpg, KEY.txt and KEY.json, with the keys of the source; long keys have pax headers."""
    table = NameTable(target.folder)
    for number, named in _files(samples):
        file = f"{number:05d}.tar"
        with tarfile.open(target.folder / file, "w", format=tarfile.PAX_FORMAT) as tar, table:
            for sample in named:
                table.note(sample.key, sample.name, f"{file}/{sample.name}.jpg")
                note = json.dumps({name: value for name, value in table_row(sample).items() if name != "image"})
                for extension, data in (("jpg", sample.jpeg), ("txt", sample.text.encode()), ("json", note.encode())):
                    member = tarfile.TarInfo(f"{sample.name}.{extension}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))


def table_row(sample: ExportSample) -> dict[str, Any]:
    """A sample as a row of TABLE_SCHEMA."""
    image = {"bytes": sample.jpeg, "path": f"{sample.name or file_name(sample.key)}.jpg"}
    boxes = [{"phrase": phrase, "box": list(box)} for phrase, box in sample.boxes]
    sizes = {"width": sample.width, "height": sample.height}
    return {"key": sample.key, "image": image, "text": sample.text, **sizes, "boxes": boxes}


def write_parquet(target: Target, samples: Iterator[ExportSample]) -> None:
    """Write Parquet files of TABLE_SCHEMA, with the metadata that makes `datasets` decode the images."""
    schema = TABLE_SCHEMA.with_metadata({"huggingface": json.dumps({"info": {"features": FEATURES}})})
    for number, named in _files(samples):
        with pq.ParquetWriter(target.folder / f"{number:05d}.parquet", schema) as writer:
            # write a row group at a time: images of a whole file would not fit into memory
            while rows := [table_row(sample) for sample in itertools.islice(named, ROW_GROUP)]:
                writer.write_table(pa.Table.from_pylist(rows, schema))


def write_dataset(target: Target, samples: Iterator[ExportSample]) -> None:
    """Write a dataset for `datasets.load_from_disk`, with the package itself, which writes each image twice.

    Raises ImportError if `datasets` is not installed.
    """
    import datasets

    working = target.folder / ".working"
    datasets.disable_progress_bars()
    try:
        # the package caches the samples as Arrow files, then `save_to_disk` copies them
        dataset = datasets.Dataset.from_generator(
            lambda: map(table_row, samples),
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
