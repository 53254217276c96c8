"""What the writers of all formats share: samples, the target of an export, and files of bounded size."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from strata.data.boxes import BoxForm, PhraseBox
from strata.data.exports.names import Names

FILE_SAMPLES = 10_000  # samples in a folder of images, a tar or a Parquet file, as in img2dataset's shards


class ExportSample(NamedTuple):
    """One sample: an upright JPEG, its size in pixels, its text, and the boxes of its entries (none without boxes).

    text: with the boxes in the form that the export was asked for. name: of its files, without an extension. turns:
    questions and answers in turn, of a layer that has some.
    """

    key: str
    jpeg: bytes
    width: int
    height: int
    text: str
    boxes: list[PhraseBox]
    name: str = ""
    turns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Target:
    """The target of an export: it is written in `folder`, which is renamed to `final` at the end.

    instruction: the user's turn of conversations. boxes: the form of the boxes in the texts, or None. image_root: what
    stands before the paths of images ("": nothing), None for the format's own. name: the snapshot's. fingerprint:
    identifies the samples.
    """

    folder: Path
    final: Path
    instruction: str
    boxes: BoxForm | None
    image_root: str | None
    name: str
    fingerprint: str

    def conversation(self, sample: ExportSample) -> list[tuple[str, str]]:
        """A sample's questions with their answers: its own, or the instruction with its text."""
        turns = sample.turns or (self.instruction, sample.text)
        return list(zip(turns[::2], turns[1::2], strict=True))


Write = Callable[[Target, Iterator[ExportSample]], None]


def files(samples: Iterator[ExportSample]) -> Iterator[tuple[int, Iterator[ExportSample]]]:
    """The samples of each file, with the file's number.

    In each file the names are unique, and fit every file system and webdataset.
    """
    for number in itertools.count():
        first = next(samples, None)
        if first is None:
            return
        yield number, _named(itertools.chain([first], itertools.islice(samples, FILE_SAMPLES - 1)))


def _named(samples: Iterable[ExportSample]) -> Iterator[ExportSample]:
    names = Names()
    for sample in samples:
        yield sample._replace(name=names.of(sample.key))
