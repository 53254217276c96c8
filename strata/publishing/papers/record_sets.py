"""The files of an export and their records, as Croissant describes them: `distribution` and `recordSet`.

The forms are those of the specification 1.1 (mlcommons/croissant, docs/croissant-spec-1.1.md) that its reference
implementation, mlcroissant 1.1.1, loads: a set of local files is read whole, and members of a tar cannot be joined, so
a webdataset has a record set for its images and one for its texts. Images that lie singly have a record set too, whose
paths are those that the conversations name. Fields of an array of JSON have a JSONPath each; those of JSON Lines are
columns, and have no key, because pandas reads "000000001" as 1. `mds` and `hf` have no record sets, because
mlcroissant reads neither MDS nor Arrow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from strata.data.exports import DATA, PROVENANCE, Form

Node = dict[str, Any]

IMAGES = "images/*/*.jpg"  # of the formats that name images by paths
_TYPES = {
    ".parquet": "application/x-parquet",
    ".json": "application/json",
    ".jsonl": "application/jsonlines",
    ".tar": "application/x-tar",
    ".arrow": "application/vnd.apache.arrow.stream",  # as `datasets` writes it; registered with IANA
}
_OTHER = "application/octet-stream"


class Layout(NamedTuple):
    """The files of a format that hold its data, as patterns, and what makes its record sets."""

    files: tuple[str, ...]
    images: bool = False
    records: str = ""


_LAYOUTS: Mapping[Form, Layout] = MappingProxyType(
    {
        "llava": Layout(("train.json",), True, "array"),
        "qwen-vl": Layout(("train.json",), True, "array"),
        "monkey": Layout(("train.json",), True, "array"),
        "llama-factory": Layout(("train.json", "dataset_info.json"), True, "array"),
        "ms-swift": Layout(("train.jsonl",), True, "lines"),
        "messages": Layout((f"{DATA}/*.parquet",), False, "conversations"),
        "webdataset": Layout(("*.tar",), False, "members"),
        "mds": Layout(("index.json", "*.mds")),
        "parquet": Layout((f"{DATA}/*.parquet",), False, "table"),
        "hf": Layout(("*.arrow", "*.json")),
    }
)


def distribution_of(form: Form, folder: Path, sums: Mapping[str, str]) -> list[Node]:
    """The files of an export with their sizes and checksums; images that lie singly are one set. Raises OSError."""
    layout = _LAYOUTS[form]
    data = [name for name in sums if any(fnmatchcase(name, pattern) for pattern in layout.files) and name[0] != "_"]
    nodes = [_file(name, folder, sums[name]) for name in (*data, PROVENANCE)]
    if layout.images:
        nodes.append(_set("image-files", IMAGES, "image/jpeg"))
    if layout.files == (f"{DATA}/*.parquet",):
        nodes.append(_set("parquet-files", layout.files[0], _TYPES[".parquet"]))
    if layout.records == "members":
        tars = [{"@id": name} for name in data]
        nodes.append(_set("image-members", "*.jpg", "image/jpeg", tars))
        nodes.append(_set("text-members", "*.txt", "text/plain", tars))
    return nodes


def _file(name: str, folder: Path, sha256: str) -> Node:
    size = (folder / name).stat().st_size
    node = {"@type": "cr:FileObject", "@id": name, "name": name, "contentUrl": name, "contentSize": f"{size} B"}
    return node | {"encodingFormat": _TYPES.get(Path(name).suffix, _OTHER), "sha256": sha256}


def _set(name: str, pattern: str, kind: str, inside: Sequence[Node] = ()) -> Node:
    node: Node = {"@type": "cr:FileSet", "@id": name, "name": name, "encodingFormat": kind, "includes": pattern}
    return node | ({"containedIn": list(inside)} if inside else {})


def record_sets_of(form: Form) -> list[Node]:
    """The record sets of a format; none of one whose files mlcroissant does not read."""
    sets = _samples(form)
    return [*sets, _files("image", "sc:ImageObject", "image-files", "fullpath")] if _LAYOUTS[form].images else sets


def _samples(form: Form) -> list[Node]:
    match _LAYOUTS[form].records:
        case "table":
            return [_records("samples", _table())]
        case "conversations":
            images = _field("images", "sc:ImageObject", _column("images", "bytes"), many=True)
            turns = _nested("messages", [_part("messages", name, _column) for name in ("role", "content")])
            return [_records("samples", [_field("key", "sc:Text", _column("key")), turns, images])]
        case "lines":
            turns = _nested("messages", [_part("messages", name, _line) for name in ("role", "content")])
            return [_records("samples", [turns, _field("images", "sc:Text", _line("images"), many=True)])]
        case "array":
            return [_records("samples", [_field("id", "sc:Text", _entry("id")), *_conversation(form)])]
        case "members":
            return [
                _files("image", "sc:ImageObject", "image-members", "filename"),
                _files("text", "sc:Text", "text-members", "filename"),
            ]
    return []


def _conversation(form: Form) -> Iterator[Node]:
    """The fields of an entry of `train.json`, as `strata.data.exports.conversations` writes it."""
    name, parts = ("messages", ("role", "content")) if form == "llama-factory" else ("conversations", ("from", "value"))
    # two lists that go together: of fields in a field mlcroissant does not read the JSONPath
    yield from (_field(part, "sc:Text", _entry(name, part), many=True) for part in parts)
    if form == "llava":
        yield _field("image", "sc:Text", _entry("image"))
    if form == "llama-factory":
        yield _field("images", "sc:Text", _entry("images"), many=True)


def _table() -> list[Node]:
    places = [_part("boxes", "phrase", _column), _part("boxes", "box", _column, "sc:Float")]
    return [
        _field("key", "sc:Text", _column("key")),
        _field("image", "sc:ImageObject", _column("image", "bytes")),
        _field("text", "sc:Text", _column("text")),
        _field("width", "sc:Integer", _column("width")),
        _field("height", "sc:Integer", _column("height")),
        _nested("boxes", places),
    ]


def _files(name: str, kind: str, files: str, named_by: str) -> Node:
    """The record set of a set of files: the name of each, and its content.

    named_by: `fullpath`, or `filename` of the members of tars, which without its extension is the sample's key.
    """
    source = {"fileSet": {"@id": files}}
    fields = [
        _field("file", "sc:Text", source | {"extract": {"fileProperty": named_by}}),
        _field(name, kind, source | {"extract": {"fileProperty": "content"}}),
    ]
    return _records(f"{name}s", fields)


def _records(name: str, fields: Iterable[Node]) -> Node:
    """A record set; its name stands before the ids of its fields."""
    return {"@type": "cr:RecordSet", "@id": name, "name": name, "field": [_below(name, field) for field in fields]}


def _below(place: str, field: Node) -> Node:
    name = f"{place}/{field['@id']}"
    inside = {"subField": [_below(name, one) for one in field["subField"]]} if "subField" in field else {}
    return {**field, "@id": name, "name": name, **inside}


def _field(name: str, kind: str, source: Node, many: bool = False) -> Node:
    # mlcroissant reads lists of images and of texts by the older `repeated`
    array = {"isArray": True, "arrayShape": "-1", "repeated": True} if many else {}
    return {"@type": "cr:Field", "@id": name, "dataType": kind, **array, "source": source}


def _nested(name: str, parts: Sequence[Node]) -> Node:
    return {"@type": "cr:Field", "@id": name, "isArray": True, "arrayShape": "-1", "subField": list(parts)}


def _part(name: str, part: str, source: Any, kind: str = "sc:Text") -> Node:
    return _field(part, kind, source(name, part))


def _column(name: str, part: str = "") -> Node:
    return {"fileSet": {"@id": "parquet-files"}, "extract": {"column": name}} | _transform(part)


def _line(name: str, part: str = "") -> Node:
    return {"fileObject": {"@id": "train.jsonl"}, "extract": {"column": name}} | _transform(part)


def _entry(name: str, part: str = "") -> Node:
    return {"fileObject": {"@id": "train.json"}, "extract": {"jsonPath": f"$[*].{name}"}} | _transform(part)


def _transform(part: str) -> Node:
    return {"transform": {"jsonPath": part}} if part else {}
