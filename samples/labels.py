"""The labelled photographs: what each picture in `samples/photographs` shows, and where it comes from.

`photographs.toml` beside the pictures documents the labels. They are real pictures of packages with a free licence; the
demo's models know none of them.
"""

from __future__ import annotations

import hashlib
import tomllib
import unicodedata
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, Literal

FOLDER = Path(__file__).parent / "photographs"
LABELS = FOLDER / "photographs.toml"


@dataclass(frozen=True)
class Package:
    """A package of a registry: `inside` is the folder in it that the paths of its pictures begin in."""

    registry: Literal["pypi", "debian"]
    name: str
    version: str
    inside: str
    licence: str = ""
    python: str = "3.11"  # of PyPI's packages: the Python version whose wheel is taken


@dataclass(frozen=True)
class Photograph:
    """One picture with its labels; `photographs.toml` says what each field means."""

    name: str
    package: str
    path: str
    kinds: dict[str, int]
    allowed: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    text_unsure: bool = False
    licence: str = ""
    author: str = ""

    @property
    def file(self) -> Path:
        return FOLDER / f"{self.name}.jpg"

    @property
    def half(self) -> Literal["tuning", "held-out"]:
        """Which half of the set the picture belongs to.

        Thresholds are tuned on the first half alone; the other one shows what they are worth. The rule is the parity
        of the first byte of the name's SHA-256, so that a picture never changes sides when others are added.
        """
        return "held-out" if hashlib.sha256(self.name.encode()).digest()[0] % 2 else "tuning"


def packages() -> dict[str, Package]:
    """Return the packages that the photographs come from, by the names that the photographs use."""
    table = tomllib.loads(LABELS.read_text("utf-8"))
    return {name: Package(**fields) for name, fields in table["packages"].items()}


def photographs() -> list[Photograph]:
    """Return all labelled photographs, in the order of the list."""
    rows: list[dict[str, Any]] = tomllib.loads(LABELS.read_text("utf-8"))["photographs"]
    for row in rows:
        row.update({key: tuple(row.get(key, ())) for key in ("allowed", "text")})
    return [Photograph(**row) for row in rows]


def licence(photograph: Photograph) -> str:
    """Return the licence of a picture: its own, or that of its package."""
    return photograph.licence or packages()[photograph.package].licence


def reads(photograph: Photograph, line: str) -> bool | None:
    """Return whether a line of text stands in the picture; None if the labels do not say.

    Case, accents, spaces and punctuation do not count. A line is right if it is a part of the labelled text, or
    if at least 0.9 of its letters are those of a labelled line, in order (difflib's ratio).
    """
    read, whole = _letters(line), _letters("".join(photograph.text))
    alike = (SequenceMatcher(None, read, _letters(label)).ratio() >= 0.9 for label in photograph.text)
    if read and (read in whole or any(alike)):
        return True
    return None if photograph.text_unsure else False


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKD", text).casefold()))
