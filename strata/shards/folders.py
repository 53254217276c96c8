"""The rows of a folder of images: its files and those of its sub-folders, with the texts beside them.

A text is that of NAME.txt, else of NAME.json beside the image, else of `metadata.jsonl`, `metadata.csv` or
`metadata.parquet` in its folder or one above it, as Hugging Face's ImageFolder has them: `file_name`, relative to the
folder of this file, and a caption.
"""

from __future__ import annotations

import csv
import io
import itertools
import posixpath
from collections import Counter
from collections.abc import Iterator
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from strata.shards import captions
from strata.shards.bounds import MAX_TEXT
from strata.shards.captions import TEXT_FILES, Caption
from strata.shards.keys import Keys
from strata.shards.kinds import IMAGE_EXTENSIONS, MAGIC_BYTES, extension_of, is_hidden, is_image
from strata.shards.lists import Entry, json_entries, parquet_entries
from strata.shards.roots import SourceError, encodable
from strata.shards.stamps import version_of
from strata.store import IndexRow

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
_NAMES = ("file_name",)  # of the field with an image's path
MAX_CSV = 64 * 2**20  # bytes: it is parsed in memory


class FolderReader:
    """Makes the rows of a folder's files, which `stamps.listing` has listed.

    After `rows` has ended, `left_out` counts the files that are in none of them, by the reason.
    """

    def __init__(self, filesystem: Any, files: list[dict[str, Any]]) -> None:
        self._filesystem = filesystem
        self.left_out = Counter(info["left_out"] for info in files if "left_out" in info)
        listed = {info["relative"]: info for info in files if "left_out" not in info}
        self._files = {name: info for name, info in listed.items() if not is_hidden(name)}
        self.left_out["hidden"] += len(listed) - len(self._files)
        # texts by the stem and the extension of their names in small letters; a.txt counts before a.TXT
        self._beside: dict[tuple[str, str], dict[str, Any]] = {}
        for name in sorted(self._files, reverse=True):
            if extension_of(name) in ("txt", "json"):
                self._beside[name.rpartition(".")[0], extension_of(name)] = self._files[name]
        self._stems: set[str] = set()  # of the images

    def rows(self) -> Iterator[IndexRow]:
        """Yield a row for each image, sorted by name. Links are not followed: they could lead out of the roots."""
        keys, metadata = Keys(), self._metadata()
        for name, info in self._files.items():
            if not self._is_image(name, info):
                self.left_out["no_image"] += not _is_text(name)
                continue
            # NAME.jpg and NAME.png would otherwise have the same key
            stem = name.rpartition(".")[0] if extension_of(name) in IMAGE_EXTENSIONS else name
            key = keys.distinct(Keys.clean(stem))
            self._stems.add(stem)
            unusable = "links are not followed" if info.get("islink") else _defect_of_name(name)
            if unusable:
                yield IndexRow(key, f"./{encodable(name)}", 0, 0, error=unusable)
                continue
            text, note = self._text(stem)
            if text is None and name in metadata:
                text, note = metadata[name]
            size = int(info["size"])
            yield IndexRow(key, f"./{name}", 0, size, text, None if size else "an empty file", version_of(info), note)
        self.left_out["text_without_image"] += len({stem for stem, _ in self._beside} - self._stems)
        self.left_out = +self.left_out

    def _is_image(self, name: str, info: dict[str, Any]) -> bool:
        base = posixpath.basename(name)
        if "." in base:
            return extension_of(base) in IMAGE_EXTENSIONS
        # looking into each such file of a bucket would take a request for each
        if not isinstance(self._filesystem, LocalFileSystem) or info.get("islink") or not info["size"]:
            return False
        return is_image(self._filesystem.cat_file(info["name"], start=0, end=MAGIC_BYTES))

    def _text(self, stem: str) -> Caption:
        """The text in a text file, else the caption in a JSON file; a note tells of one that cannot be read."""
        last = Caption()
        for extension, read, most in TEXT_FILES:
            # captions are looked up by name among the listed files, without further requests
            info = self._beside.get((stem, extension))
            if info is None or info.get("islink"):
                continue
            last = read(self._filesystem.cat_file(info["name"], start=0, end=most + 1))
            if last.text is not None:
                break
        return last

    def _metadata(self) -> dict[str, Caption]:
        """The texts of the folder's metadata by the paths of their images; those of the nearest folder count."""
        texts: dict[str, Caption] = {}
        size = 0
        files = [name for name in self._files if posixpath.basename(name) in METADATA]
        for name in sorted(files, key=lambda name: (name.count("/"), name)):
            for entry in self._entries(name):
                path = posixpath.normpath(posixpath.join(posixpath.dirname(name), str(entry.path)))
                if entry.error or not isinstance(entry.path, str) or path not in self._files:
                    self.left_out["metadata_without_image"] += 1
                    continue
                text = captions.from_text(entry.caption) if isinstance(entry.caption, str) else None
                size += len(text or "")
                if size > MAX_TEXT:
                    self.left_out["text_too_many"] += 1
                elif text:
                    texts[path] = Caption(text, entry.note)
        return texts

    def _entries(self, name: str) -> Iterator[Entry]:
        """The rows of a metadata file; one that cannot be read to its end has one more, with the reason."""
        try:
            if self._files[name].get("islink"):
                raise SourceError("links are not followed")
            if name.endswith(".csv"):
                yield from self._csv_entries(name)
                return
            with self._filesystem.open(self._files[name]["name"], "rb") as file:
                yield from (json_entries if name.endswith(".jsonl") else parquet_entries)(file, _NAMES)
        except (SourceError, csv.Error) as error:
            yield Entry(name, error=str(error))

    def _csv_entries(self, name: str) -> Iterator[Entry]:
        data = self._filesystem.cat_file(self._files[name]["name"], start=0, end=MAX_CSV + 1)
        cut = len(data) > MAX_CSV
        file = Caption(*captions.decoded(data[:MAX_CSV], cut))
        csv.field_size_limit(MAX_CSV)  # the default ends the reading at a field of 131,072 characters
        rows = csv.DictReader(io.StringIO(file.text, newline=""))
        # the last row of a file that is cut may be incomplete
        for number, (row, _) in enumerate(itertools.pairwise(itertools.chain(rows, () if cut else (None,))), 2):
            assert row is not None
            text = captions.from_fields(row)
            yield Entry(f"line {number}", row.get(_NAMES[0]), text, note=captions.note_of(text, file))
        if cut:
            yield Entry(name, error=f"longer than {MAX_CSV:,} bytes: its later rows were not read")


def _is_text(name: str) -> bool:
    return extension_of(name) in ("txt", "json") or posixpath.basename(name) in METADATA


def _defect_of_name(name: str) -> str | None:
    """Why a file with this name cannot be an image of a folder, or None."""
    # such a name cannot be written in a part, in JSON or in an address
    return None if encodable(name) == name else "the file's name is not valid UTF-8: rename the file"
