"""Repositories in a local folder: as OWNER/NAME, or in the layout of the hub's own cache."""

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
    """A source of weights: a folder with OWNER/NAME folders, or a hub cache (the folder `hub` or its parent)."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def origin(self, settings: StageSettings) -> str:
        """The repository's folder, with a remark if its files do not prove the revision."""
        folder = self._repository(settings)
        proof = "" if _commit(folder) else f", revision {settings.revision[:12]} not verified"
        return f"{folder}{proof}"

    def commit(self, settings: StageSettings) -> str:
        """Always "": a folder has no branches."""
        return ""

    def files(self, settings: StageSettings) -> list[File]:
        """The files that a stage needs. Raises WeightsMissing, also if the folder is of another revision."""
        # without a recorded commit the folder is accepted, since copies made by hand have none
        folder = self._repository(settings)
        commit = _commit(folder)
        if commit and commit != settings.revision:
            raise WeightsMissing(f"{folder} is revision {commit}, the profile says {settings.revision}")
        chosen = needed((path.name for path in folder.iterdir() if path.is_file()), settings.backend)
        if not any(name.endswith(".safetensors") for name in chosen):
            raise WeightsMissing(f"{folder} has no weights as safetensors; pickles are not loaded")
        return [_file(folder / name) for name in chosen]

    def fetch_file(self, settings: StageSettings, file: File, target: Path, advance: Advance) -> None:
        """Append the missing rest of a file to the target. Raises WeightsMissing."""
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
    """The commit of a folder: its name in a hub cache, or from the metadata that `hf download` writes; else ""."""
    if folder.parent.name == "snapshots":
        return folder.name
    # the first line of each metadata file is the commit
    metadata = sorted((folder / ".cache" / "huggingface" / "download").glob("*.metadata"))
    return metadata[0].read_text(encoding="utf-8").partition("\n")[0].strip() if metadata else ""


def _file(path: Path) -> File:
    """A file, with its SHA-256 if it is a large file of a hub cache: there it links to a file named by its hash."""
    stored = path.resolve().name
    return File(path.name, path.stat().st_size, stored if SHA256.fullmatch(stored) else "")
