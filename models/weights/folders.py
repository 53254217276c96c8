"""Repositories that somebody brought along in a folder: as OWNER/NAME, or as the hub's own cache keeps them."""

from __future__ import annotations

import re
from pathlib import Path

from models.base import WeightsMissing
from models.weights.downloads import Advance, File
from models.weights.hub import needed
from strata.core import StageSettings

BLOCK = 2**24  # bytes copied at a time
SHA256 = re.compile(r"[0-9a-f]{64}")


class Folder:
    """A folder with OWNER/NAME folders, or a hub cache (its `hub` or that folder's parent)."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def told(self, settings: StageSettings) -> str:
        """The folder that holds the repository, and whether it proves the revision."""
        folder = self._repository(settings)
        proof = "" if _commit(folder) else f", taken for {settings.revision[:12]} on trust: it does not tell"
        return f"{folder}{proof}"

    def commit(self, settings: StageSettings) -> str:
        """Nothing: a folder knows no branches."""
        return ""

    def files(self, settings: StageSettings) -> list[File]:
        """The files that a stage needs. Raises WeightsMissing, also if the folder tells another revision."""
        folder = self._repository(settings)
        commit = _commit(folder)
        if commit and commit != settings.revision:
            raise WeightsMissing(f"{folder} is revision {commit}, the profile says {settings.revision}")
        chosen = needed((path.name for path in folder.iterdir() if path.is_file()), settings.backend)
        if not any(name.endswith(".safetensors") for name in chosen):
            raise WeightsMissing(f"{folder} has no weights as safetensors; pickles are not loaded")
        return [_file(folder / name) for name in chosen]

    def bring(self, settings: StageSettings, file: File, target: Path, advance: Advance) -> None:
        """Copy a file behind what is there of it. Raises WeightsMissing."""
        try:
            with (self._repository(settings) / file.name).open("rb") as source, target.open("ab") as sink:
                source.seek(sink.tell())
                while block := source.read(BLOCK):
                    sink.write(block)
                    advance(len(block))
        except OSError as error:
            raise WeightsMissing(f"{file.name} of {settings.model} cannot be copied: {error}") from error

    def _repository(self, settings: StageSettings) -> Path:
        name = settings.model.partition(":")[2]
        cached = Path(f"models--{name.replace('/', '--')}", "snapshots", settings.revision)
        for folder in (self.root / name, self.root / cached, self.root / "hub" / cached):
            if folder.is_dir():
                return folder
        raise WeightsMissing(f"{self.root} holds neither {name} nor {cached}")


def _commit(folder: Path) -> str:
    """The commit that a folder tells: by its name in a hub cache, or in what `hf download` left there; "" if none."""
    if folder.parent.name == "snapshots":
        return folder.name
    left = sorted((folder / ".cache" / "huggingface" / "download").glob("*.metadata"))
    return left[0].read_text().partition("\n")[0].strip() if left else ""


def _file(path: Path) -> File:
    """A file with its hash, which a hub cache has in the name of what a large file points to."""
    stored = path.resolve().name
    return File(path.name, path.stat().st_size, stored if SHA256.fullmatch(stored) else "")
