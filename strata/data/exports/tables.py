"""Tables with the images inside: Parquet files, data sets of the package `datasets`, and conversations for TRL."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from strata.data.exports.conversations import messages
from strata.data.exports.names import file_name
from strata.data.exports.samples import ExportSample, Target, files

ROW_GROUP = 100  # samples in memory before they are written
# the folder of an export's Parquet files, where nothing else lies: pandas and pyarrow read all files of a folder
DATA = "data"

_STRINGS, _INTS = {"dtype": "string", "_type": "Value"}, {"dtype": "int32", "_type": "Value"}
_IMAGE_TYPE = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
_MASK_TYPE = pa.struct([pa.field("size", pa.list_(pa.int32())), pa.field("counts", pa.string())])
_BOX_TYPE = pa.struct(
    [pa.field("phrase", pa.string()), pa.field("box", pa.list_(pa.float32())), pa.field("mask", _MASK_TYPE)]
)
TABLE_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string()),
        pa.field("image", _IMAGE_TYPE),
        pa.field("text", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("boxes", pa.list_(_BOX_TYPE)),
    ]
)
_TURN_TYPE = pa.struct([pa.field("role", pa.string()), pa.field("content", pa.string())])
MESSAGES_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string()),
        pa.field("messages", pa.list_(_TURN_TYPE)),
        pa.field("images", pa.list_(_IMAGE_TYPE)),
    ]
)


def _list(feature: Any) -> dict[str, Any]:
    return {"feature": feature, "_type": "List"}


# the schemas as the `datasets` package describes them, so that it decodes the images
_BOX = _list({"dtype": "float32", "_type": "Value"})
_MASK = {"size": _list(_INTS), "counts": _STRINGS}
FEATURES: dict[str, Any] = {
    "key": _STRINGS,
    "image": {"_type": "Image"},
    "text": _STRINGS,
    "width": _INTS,
    "height": _INTS,
    "boxes": _list({"phrase": _STRINGS, "box": _BOX, "mask": _MASK}),
}
MESSAGES_FEATURES: dict[str, Any] = {
    "key": _STRINGS,
    "messages": _list({"role": _STRINGS, "content": _STRINGS}),
    "images": _list({"_type": "Image"}),
}


def _image(sample: ExportSample) -> dict[str, Any]:
    return {"bytes": sample.jpeg, "path": f"{sample.name or file_name(sample.key)}.jpg"}


def table_row(sample: ExportSample) -> dict[str, Any]:
    """A sample as a row of TABLE_SCHEMA. Masks are COCO run-length encodings, as in a part."""
    boxes = [{"phrase": phrase, "box": list(box), "mask": mask} for phrase, box, mask in sample.boxes]
    sizes = {"width": sample.width, "height": sample.height}
    return {"key": sample.key, "image": _image(sample), "text": sample.text, **sizes, "boxes": boxes}


def write_parquet(target: Target, samples: Iterator[ExportSample]) -> None:
    """Write Parquet files of TABLE_SCHEMA into `data/`, with the metadata that makes `datasets` decode the images."""
    _write_parquet(target, samples, TABLE_SCHEMA, FEATURES, table_row)


def write_messages(target: Target, samples: Iterator[ExportSample]) -> None:
    """Write Parquet files of MESSAGES_SCHEMA into `data/`: conversations with the images inside, for TRL's SFTTrainer.

    TRL puts the image before the first turn itself, so the turns have no token for it (TRL, docs, "Dataset formats and
    types", vision datasets).
    """

    def row(sample: ExportSample) -> dict[str, Any]:
        turns = messages(target.conversation(sample))
        return {"key": sample.key, "messages": turns, "images": [_image(sample)]}

    _write_parquet(target, samples, MESSAGES_SCHEMA, MESSAGES_FEATURES, row)


def _write_parquet(
    target: Target,
    samples: Iterator[ExportSample],
    schema: pa.Schema,
    features: dict[str, Any],
    row: Callable[[ExportSample], dict[str, Any]],
) -> None:
    described = schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    (target.folder / DATA).mkdir()
    for number, named in files(samples):
        with pq.ParquetWriter(target.folder / DATA / f"{number:05d}.parquet", described) as writer:
            # write a row group at a time: images of a whole file would not fit into memory
            while rows := [row(sample) for sample in itertools.islice(named, ROW_GROUP)]:
                writer.write_table(pa.Table.from_pylist(rows, described))


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
