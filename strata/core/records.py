"""The record of one image: a pydantic model in the API and in the stages, an Arrow row in parts.

Its layers are declared in `strata.core.layers`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from enum import StrEnum
from typing import Any, get_args, get_origin

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from strata.core.layers import (
    LAYERS,
    Box,
    Caption,
    Description,
    Evidence,
    Frozen,
    Layers,
    Mask,
    ObjectMask,
    Probability,
    Region,
    Sentence,
    TextLine,
    inner_type,
)
from strata.core.usage import Usage

__all__ = ["RECORD_SCHEMA", "RULES_STAGE", "SCHEMA_VERSION", "FailureNote", "ImageReference", "Record", "Status"]
__all__ += ["Box", "Caption", "Description", "Evidence", "Mask", "ObjectMask", "Probability", "Region", "Sentence"]
__all__ += ["TextLine", "records_to_table", "table_to_records"]

# The version of the meaning of a part's columns. A new layer does not change it: a missing column is read as null. No
# fingerprint contains it (see OUTPUT_VERSIONS in strata.core.profiles).
SCHEMA_VERSION = 2
RULES_STAGE = "rules"  # the stage in the note of a filtered row


class Status(StrEnum):
    """The outcome of an image in a part."""

    SUCCEEDED = "succeeded"
    FILTERED = "filtered"
    FAILED = "failed"


class ImageReference(Frozen):
    """The position of an image: bytes offset..offset+size of the file at uri. `sha256` is known for uploads."""

    uri: str
    offset: int = 0
    size: int
    sha256: str | None = None


class FailureNote(Frozen):
    """Why an image failed: the stage, the error's type, and one line.

    For an image that a rule of the profile rejected: stage "rules", the rule's name as the error type, and a line with
    the image's value and the rule's limit.
    """

    stage: str
    error_type: str
    detail: str


class _Row(BaseModel):
    """The fields of a record that come before its layers."""

    schema_version: int = SCHEMA_VERSION
    key: str
    image: ImageReference
    width: int | None = None
    height: int | None = None
    status: Status = Status.SUCCEEDED
    failure: FailureNote | None = None


class Record(Layers, _Row):
    """One image with its layers. A layer is null where it was not computed, an empty list if nothing was found.

    failure: why the image failed, or which rule rejected it. seconds and usage are by stage; usage only of stages that
    use a model server.
    """

    model_config = ConfigDict(extra="forbid")

    seconds: dict[str, float] = Field(default_factory=dict)
    usage: dict[str, Usage] = Field(default_factory=dict)

    def failed(self, stage: str, error_type: str, detail: str) -> Record:
        """The same record as a failed row. `detail` is cut to one line of 300 characters."""
        return self._ended(Status.FAILED, stage, error_type, detail)

    def filtered(self, rule: str, detail: str) -> Record:
        """The same record as a row that a rule of the profile rejected. `detail` is cut as in `failed`."""
        return self._ended(Status.FILTERED, RULES_STAGE, rule, detail)

    def _ended(self, status: Status, stage: str, error_type: str, detail: str) -> Record:
        line = " ".join(detail.split())[:300]
        note = FailureNote(stage=stage, error_type=error_type, detail=line)
        return self.model_copy(update={"status": status, "failure": note})


_SCALARS = {str: pa.string(), int: pa.int64(), float: pa.float32(), bool: pa.bool_()}


def arrow_type(annotation: Any) -> pa.DataType:
    """The Arrow type of a field's annotation: scalars, fixed tuples of numbers, lists, and models as structs.

    Floats are float32. A tuple of integers is int32 (a mask's sides), a single integer int64. A model's own fields come
    before those of its base classes.
    """
    kind = inner_type(annotation)
    if kind in _SCALARS:
        return _SCALARS[kind]
    if get_origin(kind) is list:
        return pa.list_(arrow_type(get_args(kind)[0]))
    if get_origin(kind) is tuple:
        sides = get_args(kind)
        return pa.list_(pa.int32() if sides[0] is int else arrow_type(sides[0]), len(sides))
    if not issubclass(kind, BaseModel):
        raise TypeError(f"no Arrow type for {annotation}")
    # existing parts have their fields in this order, which is not the order of pydantic
    bases = (base for base in kind.__mro__ if issubclass(base, BaseModel) and base is not BaseModel)
    names = dict.fromkeys(name for base in bases for name in base.__annotations__ if name in kind.model_fields)
    return pa.struct([pa.field(name, arrow_type(kind.model_fields[name].annotation)) for name in names])


RECORD_SCHEMA = pa.schema(
    [
        pa.field("schema_version", pa.int32(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("image", arrow_type(ImageReference), nullable=False),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("status", pa.string(), nullable=False),
        pa.field("failure", arrow_type(FailureNote)),
        *(pa.field(name, arrow_type(Layers.model_fields[name].annotation)) for name in LAYERS),
        pa.field("seconds", pa.map_(pa.string(), pa.float32())),
        pa.field("usage", pa.map_(pa.string(), arrow_type(Usage))),
    ]
)


@functools.cache
def _columns() -> dict[str, TypeAdapter[Any]]:
    return {name: TypeAdapter(list[field.annotation]) for name, field in Record.model_fields.items()}  # type: ignore[name-defined]


def records_to_table(records: Iterable[Record]) -> pa.Table:
    """Records as an Arrow table of RECORD_SCHEMA, in order."""
    rows = list(records)
    # convert column by column: twice as fast as row by row
    arrays = [_array(name, kind, rows) for name, kind in zip(RECORD_SCHEMA.names, RECORD_SCHEMA.types, strict=True)]
    return pa.Table.from_arrays(arrays, schema=RECORD_SCHEMA)


def _array(name: str, kind: pa.DataType, rows: list[Record]) -> pa.Array:
    values = [row.__dict__[name] for row in rows]
    if values.count(None) == len(values):
        # a shortcut for the layers that failed and incomplete records do not have
        return pa.nulls(len(values), kind)
    if pa.types.is_nested(kind):
        # dump a whole column with one call of pydantic's compiled serializer
        values = _columns()[name].dump_python(values, mode="json")
    if pa.types.is_map(kind):
        values = [list(value.items()) for value in values]
    return pa.array(values, kind)


def table_to_records(table: pa.Table) -> list[Record]:
    """The records of a table of RECORD_SCHEMA or of an earlier one; a layer without a column is null.

    Raises pydantic.ValidationError on rows of any other schema.
    """
    rows: list[dict[str, Any]] = table.to_pylist()
    for row in rows:
        # pyarrow returns maps as lists of pairs; parts of schema version 1 have no usage
        for name in ("seconds", "usage"):
            row[name] = dict(row.get(name) or ())
    return [Record.model_validate(row) for row in rows]
