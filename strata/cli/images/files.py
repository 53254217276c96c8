"""Files with captions: `photo.txt` beside `photo.jpg`, or one CSV file. Both go on where an earlier run has ended."""

from __future__ import annotations

import csv
import io
import itertools
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from strata.cli.images.targets import Target
from strata.errors import InvalidInput, plain_line
from strata.files import writing

HEADER = ("file_name", "text")  # as ImageFolder of Hugging Face and Strata's own folders read them
_LARGEST_FIELD = 2**26  # characters; the default of 131,072 would end the reading


class CaptionFiles(Protocol):
    """Where captions are written. kept: how many images had one already; written: how many were added."""

    kept: int
    written: int

    def missing(self, targets: Iterable[Target]) -> list[Target]:
        """The images whose captions are still to be written. Raises InvalidInput if a place cannot be written."""

    def write(self, target: Target, text: str) -> None:
        """Write one caption, so that it is there as a whole or not at all. Raises OSError."""


class TextFiles:
    """A text beside each image, in UTF-8. overwrite: replace texts that exist."""

    def __init__(self, overwrite: bool) -> None:
        self.overwrite, self.kept, self.written = overwrite, 0, 0

    def missing(self, targets: Iterable[Target]) -> list[Target]:
        """As CaptionFiles. Raises InvalidInput for an image without a file, and if two have the same text file."""
        wanted: dict[Path, Target] = {}
        for target in targets:
            if target.path is None:
                raise InvalidInput(f"--write-txt: {target.name} is no file, beside which a text could lie; use --csv")
            place = text_beside(target.path)
            if place in wanted and wanted[place].path != target.path:
                both = f"{wanted[place].name} and {target.name}"
                raise InvalidInput(f"--write-txt: {both} would have the same text file, {place.name}; use --csv")
            wanted[place] = target
        found = [one for place, one in wanted.items() if self.overwrite or not os.path.lexists(place)]
        self.kept = len(wanted) - len(found)
        for folder in {text_beside(one.path).parent for one in found if one.path is not None}:
            _check_writable(folder)
        return found

    def write(self, target: Target, text: str) -> None:
        """As CaptionFiles."""
        assert target.path is not None
        _write_whole(text_beside(target.path), text.encode())
        self.written += 1


class CsvFile:
    """One CSV file with the columns `file_name`, relative to its folder where that is above the image, and `text`."""

    def __init__(self, path: Path, overwrite: bool) -> None:
        self.path, self.overwrite, self.kept, self.written = path, overwrite, 0, 0

    def missing(self, targets: Iterable[Target]) -> list[Target]:
        """As CaptionFiles; rows of an earlier run are kept, unless they are to be overwritten."""
        rows = [] if self.overwrite else self._rows()
        known = {row[0] for row in rows}
        wanted = {self._name(one): one for one in targets}  # each once
        found = [one for name, one in wanted.items() if name not in known]
        self.kept = len(wanted) - len(found)
        _check_writable(self.path.parent)
        # a row that an interruption has cut is left out
        _write_whole(self.path, b"".join(map(_line, [HEADER, *rows])))
        return found

    def write(self, target: Target, text: str) -> None:
        """As CaptionFiles."""
        with writing(self.path), self.path.open("ab") as file:
            file.write(_line((self._name(target), text)))
        self.written += 1

    def _name(self, target: Target) -> str:
        if target.path is None:
            return target.name
        image, folder = target.path.absolute(), self.path.absolute().parent
        return image.relative_to(folder).as_posix() if image.is_relative_to(folder) else str(image)

    def _rows(self) -> list[list[str]]:
        """The complete rows of the file, if it exists. Raises InvalidInput for a file with other columns."""
        if not os.path.lexists(self.path):
            return []
        csv.field_size_limit(_LARGEST_FIELD)
        text = self.path.read_bytes().decode("utf-8-sig", "surrogateescape")
        rows: list[list[str]] = []
        whole = not text or text.endswith(("\n", "\r"))
        try:
            rows.extend(csv.reader(io.StringIO(text, newline=""), strict=True))
        except csv.Error:  # a last row that ends within quotation marks: the reader has not given it
            whole = True
        if text and (not rows or tuple(rows[0]) != HEADER):
            raise InvalidInput(
                f"{self.path}: its first row is not {','.join(HEADER)}; name another file, or --overwrite"
            )
        if not whole:
            rows.pop()
        return [row for row in rows[1:] if len(row) == len(HEADER)]


def text_beside(image: Path) -> Path:
    """The text file of an image: the same name with `.txt` in place of its extension."""
    return image.with_name(f"{image.stem}.txt")


def _line(row: Iterable[str]) -> bytes:
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\n").writerow(row)
    return buffer.getvalue().encode("utf-8", "surrogateescape")


def _check_writable(folder: Path) -> None:
    """Raise InvalidInput if no file can be made in a folder: said before the first image is sent."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InvalidInput(f"no file can be written in {folder}: {error.strerror or plain_line(error)}") from error


_numbers = itertools.count()


def _write_whole(path: Path, data: bytes) -> None:
    """Write a file under another name first, so that an interruption leaves no half of it."""
    # a short name: that of the file may have the greatest length already
    temporary = path.with_name(f".strata-{os.getpid()}-{next(_numbers)}.tmp")
    try:
        with writing(path):
            temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
