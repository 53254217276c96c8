"""The one record that crosses every stage: pydantic at the edges, Arrow in parts.

Boxes are absolute pixels (x1, y1, x2, y2) in the EXIF-upright image, whose width and height stand beside them.
Scores are probabilities in 0..1. Masks are COCO run-length encodings.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Any

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from strata.core.usage import Usage

SCHEMA_VERSION = 2

Box = tuple[float, float, float, float]
Probability = Annotated[float, Field(ge=0, le=1)]


class Status(StrEnum):
    """How an image ended in a part."""

    SUCCEEDED = "succeeded"
    FILTERED = "filtered"
    FAILED = "failed"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ImageReference(_Frozen):
    """Where an image lies: bytes offset..offset+size of the file at uri. `sha256` is known for uploads."""

    uri: str
    offset: int = 0
    size: int
    sha256: str | None = None


class Evidence(_Frozen):
    """One observation with its scores.

    score: the stage's own confidence; match: the matcher's probability that the phrase is true of the crop (null if
    it was not asked); kept: whether the composer sees it; reason: why it was dropped ("low_match", "low_score",
    "contradicted", "duplicate"), null when kept.
    """

    score: Probability | None = None
    match: Probability | None = None
    kept: bool = True
    reason: str | None = None


class Caption(Evidence):
    """The caption of the whole image."""

    text: str


class Region(Evidence):
    """A box and the phrase for what is in it."""

    box: Box
    phrase: str


class Mask(_Frozen):
    """COCO compressed run-length encoding; size is (height, width) in pixels."""

    size: tuple[int, int]
    counts: str


class ObjectMask(Evidence):
    """A mask, its box, and the phrase for what it covers."""

    box: Box
    mask: Mask
    area: int
    phrase: str


class TextLine(Evidence):
    """A line that the OCR read."""

    box: Box
    text: str


class Sentence(_Frozen):
    """A sentence of the description; evidence names entries of layers: "caption", "regions/0", "text/1"."""

    text: str
    evidence: list[str]


class Description(_Frozen):
    """What the composer wrote, and the same text sentence by sentence."""

    text: str
    sentences: list[Sentence]


class FailureNote(_Frozen):
    """Why an image failed: the stage, the error's type, and one line."""

    stage: str
    error_type: str
    detail: str


class Record(BaseModel):
    """One image with its layers. Layers are null until their group has run, empty lists if nothing was found.

    seconds and usage are by stage; usage only of stages that ask a server.
    """

    model_config = ConfigDict(extra="forbid")

    schema_version: int = SCHEMA_VERSION
    key: str
    image: ImageReference
    width: int | None = None
    height: int | None = None
    status: Status = Status.SUCCEEDED
    failure: FailureNote | None = None
    alt_text: str | None = None
    caption: Caption | None = None
    regions: list[Region] | None = None
    objects: list[ObjectMask] | None = None
    text: list[TextLine] | None = None
    description: Description | None = None
    seconds: dict[str, float] = Field(default_factory=dict)
    usage: dict[str, Usage] = Field(default_factory=dict)

    def failed(self, stage: str, error_type: str, detail: str) -> Record:
        """The same record as a failed row. `detail` is cut to one line of 300 characters."""
        line = " ".join(detail.split())[:300]
        note = FailureNote(stage=stage, error_type=error_type, detail=line)
        return self.model_copy(update={"status": Status.FAILED, "failure": note})


def _evidence(*fields: pa.Field) -> pa.DataType:
    return pa.struct(
        [
            *fields,
            pa.field("score", pa.float32()),
            pa.field("match", pa.float32()),
            pa.field("kept", pa.bool_()),
            pa.field("reason", pa.string()),
        ]
    )


_BOX = pa.field("box", pa.list_(pa.float32(), 4))
_MASK = pa.struct([pa.field("size", pa.list_(pa.int32(), 2)), pa.field("counts", pa.string())])
_SENTENCE = pa.struct([pa.field("text", pa.string()), pa.field("evidence", pa.list_(pa.string()))])
_USAGE = pa.struct([pa.field(name, pa.int64()) for name in Usage.model_fields])
_IMAGE = pa.struct(
    [
        pa.field("uri", pa.string()),
        pa.field("offset", pa.int64()),
        pa.field("size", pa.int64()),
        pa.field("sha256", pa.string()),
    ]
)

RECORD_SCHEMA = pa.schema(
    [
        pa.field("schema_version", pa.int32(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("image", _IMAGE, nullable=False),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("status", pa.string(), nullable=False),
        pa.field(
            "failure",
            pa.struct([pa.field(name, pa.string()) for name in ("stage", "error_type", "detail")]),
        ),
        pa.field("alt_text", pa.string()),
        pa.field("caption", _evidence(pa.field("text", pa.string()))),
        pa.field("regions", pa.list_(_evidence(_BOX, pa.field("phrase", pa.string())))),
        pa.field(
            "objects",
            pa.list_(
                _evidence(
                    _BOX,
                    pa.field("mask", _MASK),
                    pa.field("area", pa.int64()),
                    pa.field("phrase", pa.string()),
                )
            ),
        ),
        pa.field("text", pa.list_(_evidence(_BOX, pa.field("text", pa.string())))),
        pa.field(
            "description",
            pa.struct([pa.field("text", pa.string()), pa.field("sentences", pa.list_(_SENTENCE))]),
        ),
        pa.field("seconds", pa.map_(pa.string(), pa.float32())),
        pa.field("usage", pa.map_(pa.string(), _USAGE)),
    ]
)


@functools.cache
def _columns() -> dict[str, TypeAdapter[Any]]:
    return {name: TypeAdapter(list[field.annotation]) for name, field in Record.model_fields.items()}  # type: ignore[name-defined]


def records_to_table(records: Iterable[Record]) -> pa.Table:
    """Records as an Arrow table of RECORD_SCHEMA, in order."""
    rows = list(records)
    # a column at a time: twice as fast as a row at a time
    arrays = [_array(name, kind, rows) for name, kind in zip(RECORD_SCHEMA.names, RECORD_SCHEMA.types, strict=True)]
    return pa.Table.from_arrays(arrays, schema=RECORD_SCHEMA)


def _array(name: str, kind: pa.DataType, rows: list[Record]) -> pa.Array:
    values = [row.__dict__[name] for row in rows]
    if values.count(None) == len(values):
        return pa.nulls(len(values), kind)  # most layers of most failed or half-done records
    if pa.types.is_nested(kind):
        values = _columns()[name].dump_python(values, mode="json")
    if pa.types.is_map(kind):
        values = [list(value.items()) for value in values]
    return pa.array(values, kind)


def table_to_records(table: pa.Table) -> list[Record]:
    """The records of a table of RECORD_SCHEMA. Raises pydantic.ValidationError on rows of another schema."""
    rows: list[dict[str, Any]] = table.to_pylist()
    for row in rows:
        for name in ("seconds", "usage"):  # parts of schema version 1 have no usage
            row[name] = dict(row.get(name) or ())
    return [Record.model_validate(row) for row in rows]
