"""The metadata of samples: the JSON file beside each image (KEY.json), as img2dataset writes it, and lists' columns."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from strata.shards.columns import ColumnReader, Sample
from strata.shards.image_reader import ImageReader, Located
from strata.shards.roots import scheme_of
from strata.shards.tar.headers import Headers, Window
from strata.store import ParquetCell, file_system

MOST_BYTES = 2**20  # of a JSON file; a longer one is not read
_WEB = ("http", "https")


class _Member(NamedTuple):
    """A JSON member of a tar, as `ImageReader.read` takes it."""

    uri: str
    offset: int
    size: int


class MetadataReader:
    """Reads the JSON files of images, and the columns of lists. It keeps where those of the shard read last are."""

    def __init__(self, images: ImageReader) -> None:
        self._images, self._columns = images, ColumnReader(images)
        self._tar = ""
        self._members: dict[int, _Member] = {}

    def read(
        self, shard: str, identity: str, first: int, samples: Sequence[Sample], names: Sequence[str]
    ) -> list[Mapping[str, Any]]:
        """The fields of consecutive samples of a shard, those of its list over those of the JSON files.

        A sample has none of a JSON file that does not exist or cannot be read as JSON. first: the number of the first
        one in the shard; names: of the fields that are wanted. Raises OSError if the storage fails, and SourceError for
        a shard that has changed.
        """
        rows = [sample.image for sample in samples]
        tars = {row.uri: None for row in rows if row.offset}
        if tars:
            # in a changed tar other images lie at these offsets
            changed = self._images.changed(shard, identity, list(tars))
            return self._of_tars(rows, [uri for uri in tars if uri not in changed])
        beside = [self._beside(row) for row in rows]
        listed = self._columns.read(shard, identity, first, samples, names)
        if listed is None:
            return beside
        return [{**other, **own} for other, own in zip(beside, listed, strict=True)]

    def _of_tars(self, rows: Sequence[Located], tars: Sequence[str]) -> list[Mapping[str, Any]]:
        """The fields of samples that lie in these tars; of images that are files, those of the files beside them."""
        members: list[_Member | None] = [None] * len(rows)
        for uri in tars:
            if uri != self._tar:
                self._members, self._tar = self._places(uri), uri
            for number, row in enumerate(rows):
                if row.offset and row.uri == uri:
                    members[number] = self._members.get(row.offset)
        found = iter(self._images.read([member for member in members if member is not None]))
        read = [_object(next(found)) if member is not None else {} for member in members]
        return [fields if row.offset else self._beside(row) for row, fields in zip(rows, read, strict=True)]

    def _places(self, uri: str) -> dict[int, _Member]:
        """The JSON members of a tar by the offsets of the members with the same name, in one pass over its headers."""
        filesystem, path = file_system(self._images.locate(uri))
        offsets: dict[str, list[int]] = {}
        json_of: dict[str, _Member] = {}
        size = int(filesystem.info(path)["size"])
        with filesystem.open(path, "rb") as file:
            for header in Headers(Window(file), size):
                folder, _, base = header.name.replace("\\", "/").rpartition("/")
                stem, _, extension = base.partition(".")
                prefix = f"{folder}/{stem}"
                if extension.lower() == "json" and header.plain and 0 < header.size <= MOST_BYTES:
                    json_of[prefix] = _Member(uri, header.offset, header.size)
                else:
                    offsets.setdefault(prefix, []).append(header.offset)
        return {offset: json_of[prefix] for prefix, found in offsets.items() if prefix in json_of for offset in found}

    def _beside(self, row: Located) -> Mapping[str, Any]:
        """The JSON file beside an image that is a file."""
        if (
            not row.size
            or scheme_of(row.uri) in _WEB
            or ParquetCell.find(row.uri) is not None
            or self._is_upload(row.uri)
        ):
            return {}
        uri = self._images.locate(posixpath.splitext(row.uri)[0] + ".json")
        try:
            filesystem, path = file_system(uri)
            # a link may lead out of the folders that may be read, as for the text beside an image
            info = filesystem.info(path)
            if info.get("islink") or info["type"] != "file" or (info["size"] or 0) > MOST_BYTES:
                return {}
            return _object(filesystem.cat_file(path))
        except (FileNotFoundError, NotADirectoryError):
            return {}

    def _is_upload(self, uri: str) -> bool:
        return self._images.store is not None and self._images.store.is_upload(uri)


def _object(data: bytes | Exception) -> Mapping[str, Any]:
    """The JSON object of a file; an empty one if it is none. Raises OSError for an error of the storage."""
    if isinstance(data, OSError):
        raise data
    if isinstance(data, Exception) or len(data) > MOST_BYTES:
        return {}
    try:
        found = json.loads(data.decode("utf-8-sig", errors="replace"))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
