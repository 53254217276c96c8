"""The record of one image: a pydantic model in the API and in the stages, an Arrow row in parts.

Its layers are declared in `strata.core.layers`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from enum import StrEnum
from typing import Any, Literal, get_args, get_origin

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, field_validator

from strata.addresses import without_secrets
from strata.core.claims import Variant, Verification
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
from strata.files import valid_name

__all__ = [
    "RECORD_SCHEMA",
    "RULES_STAGE",
    "SCHEMA_VERSION",
    "FailureNote",
    "ImageReference",
    "Record",
    "RowWarning",
    "Status",
]
__all__ += ["Box", "Caption", "Description", "Evidence", "Mask", "ObjectMask", "Probability", "Region", "Sentence"]
__all__ += ["RowWarning", "TextLine", "records_to_table", "table_to_records"]

# The version of the meaning of a part's columns. A new layer does not change it: a missing column is read as null. No
# fingerprint contains it (see OUTPUT_VERSIONS in strata.core.profiles). Version 3 has no columns of the type map, which
# `datasets` cannot read: it has lists, `stage_seconds` and `stage_usage`, for the maps `seconds` and `usage`.
SCHEMA_VERSION = 3
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

    transient: whether the cause may pass (a file that is missing now, memory that lacked, a server without an answer).
    A new job computes such an image again. For an image that a rule of the profile rejected: stage "rules", the rule's
    name as the error type, and a line with the image's value and the rule's limit.
    """

    stage: str
    error_type: str
    detail: str
    transient: bool = False

    @field_validator("detail")
    @classmethod
    def _without_secrets(cls, detail: str) -> str:
        """The detail without the users, passwords and signatures of URLs: it is stored, and told to every caller."""
        return without_secrets(detail)


class RowWarning(Frozen):
    """What is known to limit a row that was computed: a stable `type`, and one line that may change.

    Types are listed in docs/how-to/submit-shards.md.
    """

    type: str
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
    warnings: tuple[RowWarning, ...] = ()


class Record(Layers, _Row):
    """One image with its layers. A layer is null where it was not computed, an empty list if nothing was found.

    failure: why the image failed, or which rule rejected it. warnings: what limits a row that was computed. seconds and
    usage are by stage; usage only of stages that use a model server. profile and fingerprint: those of the job that the
    record is read for; parts do not hold them, because jobs of two profiles with the same settings share them.
    verification: what the verifier found of the composed text. variants: other texts of the same evidence. Both are
    null where the profile does not ask for them.
    """

    model_config = ConfigDict(extra="forbid")

    profile: str | None = None
    fingerprint: str | None = None

    seconds: dict[str, float] = Field(default_factory=dict)
    usage: dict[str, Usage] = Field(default_factory=dict)
    verification: Verification | None = None
    variants: list[Variant] | None = None

    def warned(self, kind: str, detail: str) -> Record:
        """The same record with one more warning, unless it has one of this type."""
        if any(warning.type == kind for warning in self.warnings):
            return self
        return self.model_copy(update={"warnings": (*self.warnings, RowWarning(type=kind, detail=detail))})

    def failed(self, stage: str, error_type: str, detail: str, transient: bool = False) -> Record:
        """The same record as a failed row. `detail` is cut to one line of 300 characters."""
        return self._ended(Status.FAILED, stage, error_type, detail, transient)

    def filtered(self, rule: str, detail: str) -> Record:
        """The same record as a row that a rule of the profile rejected. `detail` is cut as in `failed`."""
        return self._ended(Status.FILTERED, RULES_STAGE, rule, detail)

    def _ended(self, status: Status, stage: str, error_type: str, detail: str, transient: bool = False) -> Record:
        line = valid_name(" ".join(detail.split())[:300])  # it may name a file
        note = FailureNote(stage=stage, error_type=error_type, detail=line, transient=transient)
        return self.model_copy(update={"status": status, "failure": note})


_SCALARS = {str: pa.string(), int: pa.int64(), float: pa.float32(), bool: pa.bool_()}


def arrow_type(annotation: Any) -> pa.DataType:
    """The Arrow type of a field's annotation: scalars, fixed tuples of numbers, lists, and models as structs.

    Floats are float32, literals strings. A tuple of integers is int32 (a mask's sides), a single integer int64. A
    model's own fields come before those of its base classes.
    """
    kind = inner_type(annotation)
    if kind in _SCALARS:
        return _SCALARS[kind]
    if get_origin(kind) is Literal:
        return pa.string()
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


# `transient` is a column of its own: within the struct `failure` it would give old and new parts two types of a column
_FAILURE = pa.struct([field for field in arrow_type(FailureNote) if field.name != "transient"])
_SECONDS = pa.list_(pa.struct([pa.field("stage", pa.string()), pa.field("seconds", pa.float32())]))
_USAGE = pa.list_(pa.struct([pa.field("stage", pa.string()), *arrow_type(Usage)]))
RECORD_SCHEMA = pa.schema(
    [
        pa.field("schema_version", pa.int32(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("image", arrow_type(ImageReference), nullable=False),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("status", pa.string(), nullable=False),
        pa.field("failure", _FAILURE),
        pa.field("failure_transient", pa.bool_()),
        pa.field("warnings", pa.list_(arrow_type(RowWarning))),
        *(pa.field(name, arrow_type(Layers.model_fields[name].annotation)) for name in LAYERS),
        pa.field("stage_seconds", _SECONDS),
        pa.field("stage_usage", _USAGE),
        pa.field("verification", arrow_type(Verification)),
        pa.field("variants", pa.list_(arrow_type(Variant))),
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
    # rows of an earlier version, which a retry copies, are written as rows of this one
    if name == "schema_version":
        return pa.array([SCHEMA_VERSION] * len(rows), kind)
    if name == "failure_transient":
        return pa.array([row.failure.transient if row.failure else None for row in rows], kind)
    # a dictionary by stage is a list of structures in a part
    by_stage = name.startswith("stage_")
    name = name.removeprefix("stage_")
    values = [row.__dict__[name] for row in rows]
    if name == "warnings":
        values = [found or None for found in values]
    if values.count(None) == len(values):
        # a shortcut for the layers that failed and incomplete records do not have
        return pa.nulls(len(values), kind)
    if pa.types.is_nested(kind):
        # dump a whole column with one call of pydantic's compiled serializer
        values = _columns()[name].dump_python(values, mode="json")
    if by_stage:
        values = [[_entry(stage, found) for stage, found in value.items()] for value in values]
    return pa.array(values, kind)


def _entry(stage: str, found: float | dict[str, int]) -> dict[str, Any]:
    return {"stage": stage} | (found if isinstance(found, dict) else {"seconds": found})


def table_to_records(table: pa.Table) -> list[Record]:
    """The records of a table of RECORD_SCHEMA or of an earlier one; a layer without a column is null.

    Raises pydantic.ValidationError on rows of any other schema.
    """
    # most layers are null in a whole part, and cost nothing then
    empty = [field.name for field in RECORD_SCHEMA if field.nullable and _is_null(table, field.name)]
    # with one call of pydantic's compiled validator, which takes a sixth less time than one a row
    return _records().validate_python([_fields(row) for row in table.drop_columns(empty).to_pylist()])


def _is_null(table: pa.Table, name: str) -> bool:
    return name in table.column_names and table.column(name).null_count == table.num_rows > 0


@functools.cache
def _records() -> TypeAdapter[list[Record]]:
    return TypeAdapter(list[Record])


def _fields(row: dict[str, Any]) -> dict[str, Any]:
    # pyarrow returns the maps of versions 1 and 2 as lists of pairs; version 1 has no usage
    seconds = dict(row.pop("seconds", None) or ())
    usage = dict(row.pop("usage", None) or ())
    # version 3 has lists of structures instead
    seconds |= {entry["stage"]: entry["seconds"] for entry in row.pop("stage_seconds", None) or ()}
    usage |= {entry.pop("stage"): entry for entry in row.pop("stage_usage", None) or ()}
    transient = bool(row.pop("failure_transient", None))
    if row.get("failure") is not None:
        row["failure"] |= {"transient": transient}
    row["warnings"] = row.get("warnings") or ()
    return row | {"seconds": seconds, "usage": usage}
