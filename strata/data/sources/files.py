"""Samples from other tools' files: conversation files, webdatasets, and Hugging Face datasets on disk."""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from strata.data.prefetch import prefetch_map
from strata.data.sources.conversations import MARKUP, Conversation, read_conversations
from strata.data.sources.entries import EntryError
from strata.data.sources.images_inside import ImagesInside, place_of
from strata.data.sources.missing_files import Missing
from strata.data.sources.parquet_entries import footer_digest
from strata.data.sources.samples import ImageFiles, RawSample, SampleError, TableSource
from strata.data.sources.tables import LeftOut, SampleRow, default_cache, kept_path, kept_table
from strata.egress import EgressRules
from strata.errors import plain_line
from strata.shards import SourceError, expand, index_shard, normalise, read_file, shard_stamp
from strata.store import as_os_error, file_system

INDEXERS = 4  # tars that are indexed concurrently
_PIECE = 2**20  # bytes hashed at a time
_SCHEMES = re.compile(r"(https?|s3a?|gs|gcs|az|abfss?|hf)://")  # of images that entries may name


def conversation_source(uri: str, images: str, cache: Path | None = None) -> TableSource:
    """The samples of a conversation file. images: the folder or bucket that its image paths are relative to.

    Raises SampleError if the file is missing, or has no conversation.
    """
    try:
        # the file's content names the cached table, so that an edited file gets a new one
        name = f"conversations/{_digest(uri)}"
        key, folder = f"{name}/{images}", cache or default_cache()
        inside = images_beside(folder, key)
        table = kept_table(folder, key, lambda: _rows_of_file(uri, images, inside))
    except FileNotFoundError:
        raise SampleError(f"no such file: {uri}") from None
    except IsADirectoryError:
        raise SampleError(f"{uri}: it is a folder, not a file") from None
    except (EntryError, ImportError) as error:
        raise SampleError(f"{uri}: {error}") from None
    return TableSource(name, table, ImageFiles(rules=entry_rules(images)), markup=MARKUP, uri=uri)


@as_os_error
def _digest(uri: str) -> str:
    filesystem, path = file_system(uri)
    digest = hashlib.sha256()
    with filesystem.open(path, "rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def images_beside(cache: Path, name: str) -> ImagesInside:
    """The file with the images that lie in the entries of the table of a name."""
    return ImagesInside(kept_path(cache, name).with_suffix(".images"))


def _rows_of_file(uri: str, images: str, inside: ImagesInside) -> Iterator[SampleRow | LeftOut]:
    filesystem, path = file_system(uri)
    with filesystem.open(path, "rb") as file:
        yield from conversation_rows(read_conversations(file), images, inside)


def conversation_rows(
    conversations: Iterable[Conversation],
    images: str,
    inside: ImagesInside,
    empty: str = "the file contains no conversations",
) -> Iterator[SampleRow | LeftOut]:
    """A row for each conversation. images: where its images lie. Raises EntryError if none can be used.

    inside: the file for images that lie in the entries themselves. empty: the message if there is none.
    """
    root, good, problem = normalise(images), False, ""
    with inside:
        for entry in conversations:
            if entry.left_out:
                problem = problem or entry.problem
                yield LeftOut(entry.problem)
                continue
            try:
                first, *more = [
                    inside.add(image) if isinstance(image, bytes) else _image_uri(root, image) for image in entry.images
                ] or [""]
            except EntryError as error:
                first, more, entry = "", [], entry._replace(turns=[], problem=f"sample {entry.id}: {error}")
            # size 0: a whole file, whose size is not known without a request for each image
            uri, offset, size = place_of(first)
            yield SampleRow(entry.id, uri, offset, size, "", entry.turns, more, entry.system, entry.problem)
            good, problem = good or not entry.problem, problem or entry.problem
    if not good:
        raise EntryError(problem or empty)


def _image_uri(root: str, image: str) -> str:
    """Where an image of an entry lies. Raises EntryError for a place that no data set may name."""
    if "://" in image:
        if _SCHEMES.match(image) is None:
            raise EntryError(f"an image may be at a web address or in a bucket, not at {image.partition('://')[0]}:")
        return image
    # a folder beside that of the images, as VizWiz and others have it, but nothing further up
    upwards = image.startswith("../")
    if ".." in image[3 * upwards :].split("/"):
        raise EntryError("the path of its image leads out of `images`")
    # upwards by text: a bucket's URI has no `..`
    if upwards:
        root, image = root.rstrip("/").rpartition("/")[0], image[3:]
    return posixpath.join(root, image)


def entry_rules(images: str) -> EgressRules:
    """Which web addresses the entries of a file may name: those that are public, and those of the server of `images`.

    The file may come from anywhere, so that its addresses must not lead into the own network.
    """
    return EgressRules(ports=(), origins=EgressRules.of_root(images).origins)


def webdataset_source(pattern: str, cache: Path | None = None) -> TableSource:
    """The samples of tars that have an image and a text (KEY.txt, or a caption in KEY.json).

    pattern: as for `strata submit`. Raises SampleError if a tar is missing or cannot be read to its end.
    """
    try:
        # the stamps of all tars name the cached table
        uris = [normalise(uri) for uri in expand(pattern)]
        stamps = list(prefetch_map(shard_stamp, uris, INDEXERS))
        name = f"webdataset/{hashlib.sha256(repr(stamps).encode()).hexdigest()}"
        table = kept_table(cache or default_cache(), name, lambda: _webdataset_rows(uris))
    except SourceError as error:
        raise SampleError(str(error)) from None
    return TableSource(name, table)


def _webdataset_rows(uris: Sequence[str]) -> Iterator[SampleRow]:
    for uri, index in zip(uris, prefetch_map(index_shard, uris, INDEXERS), strict=True):
        if index.failure:
            raise SourceError(f"{uri}: {index.failure}")
        # samples without an image or a text are left out
        for row in index.rows:
            if not row.error and row.alt_text and row.alt_text.strip():
                stamp = (index.stamp or shard_stamp(uri)) if row.offset else ""
                yield SampleRow(row.key, row.uri, row.offset, row.size, stamp, [row.alt_text.strip()])


def _parquet_files(path: str) -> list[str]:
    """A Parquet file, or those of a folder or of its `data/`; none for something else."""
    if path.endswith(".parquet"):
        return [path]
    folders = (sorted(Path(path, inside).glob("*.parquet")) for inside in ("", "data"))
    return next(filter(None, ([str(file) for file in found if file.name[0] not in "_."] for found in folders)), [])


def _parquet_digest(files: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for path in files:
        with Path(path).open("rb") as file:
            digest.update(footer_digest(file))
    return digest.hexdigest()


def _is_image(feature: Any) -> bool:
    """Whether a column has images by its type alone: the writer of the file has not told that they are some."""
    return isinstance(feature, dict) and {"bytes", "path"} == set(feature)


class DatasetSource:
    """The rows of a Hugging Face dataset that was written by `save_to_disk`, or of Parquet files with images inside.

    It needs the package `datasets`, which copies Parquet files to memory-mapped ones in `cache` at the first opening.
    image: the column of images, or None for the first image column; text: the column of answers; question: the column
    of questions, or None. The constructor raises SampleError if the path is not a dataset or a column is missing.
    """

    def __init__(
        self,
        path: str,
        image: str | None = None,
        text: str = "text",
        question: str | None = None,
        cache: Path | None = None,
    ) -> None:
        self.path, self.image, self.text, self.question = path, image, text, question
        self.cache = cache or default_cache()
        self._open()

    def _open(self) -> None:
        try:
            import datasets
        except ImportError:
            raise SampleError(f"{self.path}: a Hugging Face dataset needs the package `datasets`") from None
        files = _parquet_files(self.path)
        try:
            dataset = self._of_parquet(files) if files else datasets.load_from_disk(self.path)
        except (OSError, ValueError, datasets.exceptions.DatasetGenerationError) as error:
            reason = plain_line(error.__cause__ or error)[:200]
            raise SampleError(f"{self.path} is not a dataset on disk: {reason}") from None
        # several splits: one of them has to be chosen by its folder
        if isinstance(dataset, datasets.DatasetDict):
            raise SampleError(f"{self.path} has several splits; name one: {', '.join(dataset)}")
        # choose the columns, and check that they exist
        found = [name for name, kind in dataset.features.items() if isinstance(kind, datasets.Image) or _is_image(kind)]
        image = self.image or next(iter(found), "image")
        wanted = [image, self.text, *([self.question] if self.question else [])]
        for name in wanted:
            if name not in dataset.features:
                raise SampleError(f"{self.path} has no column {name!r}; it has {', '.join(dataset.features)}")
        if image not in found:
            raise SampleError(f"{self.path}: the column {image!r} has no images")
        # the reader decodes images, so the dataset has to return their bytes
        # the fingerprint of a copy depends on when it was made
        identity = _parquet_digest(files) if files else dataset._fingerprint
        self.identity = f"dataset/{identity}/{'/'.join(wanted)}"
        self._image = image
        self._dataset = dataset.select_columns(wanted).cast_column(image, datasets.Image(decode=False))

    def _of_parquet(self, files: Sequence[str]) -> Any:
        import datasets

        datasets.disable_progress_bars()
        made = str(self.cache / "datasets")
        return datasets.load_dataset("parquet", data_files=list(files), split="train", cache_dir=made)

    def __getstate__(self) -> dict[str, Any]:
        # each process opens the dataset itself: the open one refers to memory-mapped files
        return {name: getattr(self, name) for name in ("path", "image", "text", "question", "cache")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def __len__(self) -> int:
        return len(self._dataset)

    def read(self, numbers: Sequence[int]) -> list[RawSample]:
        """Read the samples with these numbers, in the order given. Raises SampleError."""
        # one call of the library for all rows
        rows = self._dataset[list(numbers)]
        columns = [self.question, self.text] if self.question else [self.text]
        samples = []
        for number, image, *turns in zip(numbers, rows[self._image], *map(rows.get, columns), strict=True):
            if not all(isinstance(turn, str) for turn in turns):
                raise SampleError(f"{self.path}, row {number}: {' or '.join(columns)} is not a text")
            samples.append(RawSample(str(number), (self._bytes(image, number),), turns))
        return samples

    def _bytes(self, image: dict[str, Any] | None, number: int) -> bytes:
        # an image is stored in the dataset, or only its path is
        if image and image["bytes"]:
            return bytes(image["bytes"])
        try:
            return read_file(str(Path(image["path"]).absolute())) if image else b""
        except (OSError, TypeError) as error:
            raise SampleError(f"{self.path}, row {number}: {plain_line(error)}") from None

    def missing(self) -> Missing:
        """Return that nothing is missing: the images are stored in the dataset itself."""
        return Missing([])

    def problems(self) -> tuple[int, str]:
        """Return (0, ""): rows are checked when they are read."""
        return 0, ""

    def explain(self, number: int, reason: str) -> SampleError:
        """Make the error for a sample whose image cannot be decoded."""
        return SampleError(f"{self.path}, row {number}: {reason}")
