"""Data sets as OpenLineage names them: by the place where they lie, without anything secret in it.

The names are those of its specification ("Naming Conventions", openlineage.io/docs/spec/naming): the namespace is
`file`, or scheme and bucket or host; the name is the path there. The shards of a job are named by their folders.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import pyarrow as pa

from strata.core import FINAL_GROUP, RECORD_SCHEMA, ShardSummary, source_shard
from strata.store import is_made_list, is_picked_list

MOST_FOLDERS = 100  # of the shards of a job; beyond it folders are told by the folders that hold them
_SAME_SCHEME = {"s3a": "s3", "gcs": "gs", "local": "file"}
_CONTAINERS = ("abfs", "abfss", "az", "wasb", "wasbs")  # CONTAINER@ACCOUNT: what stands before @ is no user


@dataclass(frozen=True)
class Column:
    """A column: its name, its type, and the columns in it."""

    name: str
    kind: str
    inside: tuple[Column, ...] = ()


@dataclass(frozen=True)
class Data:
    """A data set that a run has read or written.

    rows, files: how many of it; None: not known. version: which version it is now. made_of: for columns of what was
    written the columns that were read for them, each with its data set, and whether they are the same (True) or were
    made from them.
    """

    namespace: str
    name: str
    columns: tuple[Column, ...] = ()
    rows: int | None = None
    files: int | None = None
    version: str = ""
    about: str = ""
    made_of: Mapping[str, tuple[tuple[Data, str, bool], ...]] = field(default_factory=dict)


def data_at(uri: str, below: str = "") -> Data:
    """The data set at a path or URI, without a user, a password and a query. below: a path in it."""
    scheme, separator, rest = uri.partition("://")
    scheme = _SAME_SCHEME.get(scheme.lower(), scheme.lower()) if separator else "file"
    if scheme == "file":
        path = rest if separator else uri
        return Data("file", str(PurePosixPath(Path(path).absolute().as_posix(), below)))
    rest = rest.partition("?")[0]
    place, _, path = (rest.partition("#")[0] if scheme.startswith("http") else rest).partition("/")
    before, _, host = place.rpartition("@")
    if before and scheme in _CONTAINERS and ":" not in before:
        host = place
    name = "/".join(filter(None, (path.strip("/"), below)))
    return Data(f"{scheme}://{host}", name or "/")


def rows_data(store: str, fingerprint: str, rows: int | None = None) -> Data:
    """The rows that one profile has described in a store. store: its URI; fingerprint: of the group `llm`."""
    found = data_at(store, f"parts/{FINAL_GROUP}/{fingerprint}")
    return replace(found, columns=columns_of(RECORD_SCHEMA), rows=rows, about="Described images, a row each.")


def snapshot_data(store: str, name: str, id: str, rows: int, read: Iterable[Data] = ()) -> Data:
    """A snapshot of a store. id: its version; read: the rows that it was chosen from."""
    columns, origins = columns_of(RECORD_SCHEMA), tuple(read)
    made_of = {column.name: tuple((one, column.name, True) for one in origins) for column in columns}
    found = data_at(store, f"snapshots/{name}")
    return replace(
        found, columns=columns, rows=rows, version=id, about="Chosen rows, as training reads them.", made_of=made_of
    )


def shards_data(store: str, shards: Iterable[ShardSummary]) -> list[Data]:
    """The folders of shards with the numbers of shards and images; uploads are in the store.

    Of shards that were not indexed yet the images are 0, and are not told. Lists of a sample's images are no data set:
    what the sample is drawn of was told when its job began.
    """
    counts: dict[tuple[str, str], tuple[int, int]] = {}
    for shard in shards:
        uri = source_shard(shard.shard)
        if is_picked_list(uri):
            continue
        place = data_at(store, "uploads") if is_made_list(uri) else _folder(data_at(uri))
        files, images = counts.get((place.namespace, place.name), (0, 0))
        counts[place.namespace, place.name] = files + 1, images + shard.images
    while len(counts) > MOST_FOLDERS and (shorter := _in_folders(counts)) != counts:
        counts = shorter
    columns = (Column("image", "binary"), Column("alt_text", "string"))
    return [Data(*place, columns, images or None, files) for place, (files, images) in counts.items()]


def _folder(place: Data) -> Data:
    """The folder of a file, as its name has an extension; a folder of images is itself one."""
    path = PurePosixPath(place.name)
    return replace(place, name=_parent(place.name)) if path.suffix else place


def _parent(name: str) -> str:
    above = str(PurePosixPath(name).parent)
    return "/" if above == "." else above


def _in_folders(counts: Mapping[tuple[str, str], tuple[int, int]]) -> dict[tuple[str, str], tuple[int, int]]:
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for (namespace, name), (files, images) in counts.items():
        place = (namespace, _parent(name))
        before = found.get(place, (0, 0))
        found[place] = before[0] + files, before[1] + images
    return found


def columns_of(schema: pa.Schema) -> tuple[Column, ...]:
    """The columns of an Arrow schema, with those inside of structs and of lists of structs."""
    return tuple(_column(one) for one in schema)


def _column(one: pa.Field) -> Column:
    kind, is_list = one.type, pa.types.is_list(one.type)
    inner = kind.value_type if is_list else kind
    if not pa.types.is_struct(inner):
        return Column(one.name, str(kind))
    inside = tuple(_column(inner.field(place)) for place in range(inner.num_fields))
    return Column(one.name, "list<struct>" if is_list else "struct", inside)
