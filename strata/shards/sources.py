"""Index a shard (a tar, a folder or a list of images) in one pass.

Nothing is unpacked: a row of the index has the position of an image in the shard, and member names are used only as
keys. `image_reader.py` reads the images.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import IO, Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from strata.counts import counted
from strata.shards.bounds import BoundedRows
from strata.shards.captions import TEXT_FILES, Caption
from strata.shards.folders import FolderReader
from strata.shards.keys import Keys
from strata.shards.kinds import MAGIC_BYTES, Kind, kind_by_content, kind_by_name
from strata.shards.lists import ListReader
from strata.shards.roots import Roots, SourceError
from strata.shards.stamps import Stamps, listing, look_up, storage_errors, version_of
from strata.shards.tar import TarReader
from strata.store import IndexRow, ShardIndex, file_name, identity_of, index_table

Item = TypeVar("Item")
_BATCH = 1000  # rows as Python objects at a time


def index_shard(
    uri: str, roots: Sequence[str] = (), at: str | None = None, progress: Callable[[], None] = lambda: None
) -> ShardIndex:
    """Build a shard's index in one pass over it.

    A shard is a tar by webdataset's convention, a folder of images with a NAME.txt beside each, a list
    (`strata.shards.lists`) of images, each of which must lie under `roots`, or a single image. Its name tells which
    (`strata.shards.kinds`). An image that cannot be read becomes a row with an error; a shard that cannot be read to
    its end has a `failure`. The identity is a hash of what was read: a copy of a tar has the same. progress: called
    for each row. Raises as shard_stamps does.
    """
    with storage_errors(uri):
        filesystem, path, info = look_up(uri, at)
        # a folder: its stamp covers the files that are listed
        if info["type"] == "directory":
            return _index_folder(uri, filesystem, path, progress)
        if info["type"] != "file":
            stamps = Stamps.of(uri, [info])
            return ShardIndex(uri, stamps.now, stamps.earlier, index_table([]), "neither a file nor a folder")
        kind = kind_by_name(uri) or _kind_by_content(filesystem, path)
        if kind == "image":
            return _index_image(uri, filesystem, path, info)
        with filesystem.open(path, "rb") as file:
            if kind == "tar":
                return _index_tar(uri, file, info, progress)
            # a list: the image of each entry is looked up, because its size is needed
            listed = ListReader(uri, file, Roots(roots), kind)
            table, failure = _table(listed.rows(), progress)
        failure = failure or listed.failure
        # a file that has its images in itself is known by its content, as a tar
        if listed.alone and table.num_rows and info["size"] is not None:
            size, stamp = int(info["size"]), Stamps.of(uri, [info]).now
            return ShardIndex(uri, stamp, identity_of(size, table), table, failure, size=size)
        return ShardIndex(uri, None, identity_of(uri, table), table, failure, _families(uri, table))


def _kind_by_content(filesystem: Any, path: str) -> Kind:
    return kind_by_content(filesystem.cat_file(path, start=0, end=MAGIC_BYTES))


def _index_tar(uri: str, file: IO[bytes], info: dict[str, Any], progress: Callable[[], None]) -> ShardIndex:
    # images are read by offsets later, which needs a server that supports ranged reads
    if info["size"] is None:
        raise SourceError(f"{uri}: its server does not report the size, so that parts of it cannot be read")
    size = int(info["size"])
    reader = TarReader(file, size)
    table, failure = _table(reader.rows(), progress)
    table = reader.with_texts(table)
    failure = failure or reader.failure(table.column("error").null_count)
    stamp, left_out = Stamps.of(uri, [info]).now, dict(reader.left_out)
    return ShardIndex(uri, stamp, identity_of(size, table), table, failure, left_out=left_out, size=size)


def _index_image(uri: str, filesystem: Any, path: str, info: dict[str, Any]) -> ShardIndex:
    """Index an image that is a shard of its own. It has no stamp, since the text beside it may change."""
    name, size = file_name(uri), int(info["size"] or 0)
    stem = name.rpartition(".")[0] or name
    # a signature in an address is that of the image, and of no other file
    beside = f"{path.rpartition('/')[0]}/{stem}" if path.endswith(name) else None
    text, note = Caption() if beside is None else _text_beside(filesystem, beside)
    error = None if size else "an empty file, or its server does not report the size"
    row = IndexRow(Keys.clean(stem), "", 0, size, text, error, version_of(info), note)
    table = index_table([row])
    return ShardIndex(uri, None, identity_of(uri, table), table, None, _families(uri, table)[:1])


def _text_beside(filesystem: Any, stem: str) -> Caption:
    """The text in STEM.txt, else the caption in STEM.json."""
    for extension, read, most in TEXT_FILES:
        for name in (extension, extension.upper()):
            with suppress(FileNotFoundError, NotADirectoryError):
                if not filesystem.info(f"{stem}.{name}").get("islink"):
                    found = read(filesystem.cat_file(f"{stem}.{name}", start=0, end=most + 1))
                    if found.text is not None:
                        return found
    return Caption()


def _table(rows: Iterable[IndexRow], progress: Callable[[], None]) -> tuple[pa.Table, str | None]:
    """The table of a shard's rows, and why it has not all of them, or None. progress is called after each row."""
    bounded = BoundedRows(rows)
    return index_table(_noted(bounded, progress)), bounded.failure


def _noted(items: Iterable[Item], progress: Callable[[], None]) -> Iterator[Item]:
    """The items; progress is called after each."""
    for item in items:
        yield item
        progress()


def _families(uri: str, table: pa.Table) -> list[str]:
    """Under which names the indexes of a folder or list are found: one of its URI, one of the names of its images.

    So another version of the folder is found where it lies, and a copy of the folder elsewhere.
    """
    # the JSON list of the names, sorted and each once, without having all of them as objects
    names = hashlib.sha256(b"[")
    uris = pc.unique(table.column("uri"))
    order, separator = pc.sort_indices(uris), ""
    for start in range(0, len(order), _BATCH):
        for name in uris.take(order[start : start + _BATCH]).to_pylist():
            names.update(f"{separator}{json.dumps(name)}".encode())
            separator = ", "
    names.update(b"]")
    return [digest.hexdigest()[:16] for digest in (hashlib.sha256(uri.encode()), names)]


def _index_folder(uri: str, filesystem: Any, path: str, progress: Callable[[], None]) -> ShardIndex:
    files = listing(filesystem, path)
    reader = FolderReader(filesystem, files)
    table, failure = _table(reader.rows(), progress)
    if not table.num_rows and not failure:
        tars = sum(kind_by_name(str(info["name"])) == "tar" for info in files)
        failure = f"a folder without images, with {counted(tars, 'tar')}: name them as FOLDER/*.tar" if tars else None
        failure = failure or "a folder without images"
    stamp, identity = Stamps.of(uri, files).now, identity_of(uri, table)
    return ShardIndex(uri, stamp, identity, table, failure, _families(uri, table), dict(reader.left_out))
