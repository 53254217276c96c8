"""The device and precision of a stage's model, and the transfer of pixels to it.

None of this is set in a profile, because it changes the speed but not the fingerprint of the work.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from models.weights.keys import load_completely


def best_device() -> torch.device:
    """The GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class GpuUse:
    """A GPU that this process uses: bytes used by all processes, in all, and reserved by this one.

    utilization: the share of the last second in which a kernel ran; None without the driver's library (NVML).
    """

    device: int
    used_bytes: int
    total_bytes: int
    reserved_bytes: int
    utilization: float | None


def gpus_in_use() -> list[GpuUse]:
    """The GPUs on which this process has reserved memory; none is initialized for the answer."""
    if not torch.cuda.is_initialized():
        return []
    used = [device for device in range(torch.cuda.device_count()) if torch.cuda.memory_reserved(device)]
    return [_use_of(device) for device in used]


def _use_of(device: int) -> GpuUse:
    free, total = torch.cuda.mem_get_info(device)
    utilization = None
    with suppress(Exception):  # NVML is a package of its own, and a driver may refuse the question
        utilization = torch.cuda.utilization(device) / 100
    return GpuUse(device, total - free, total, torch.cuda.memory_reserved(device), utilization)


def best_precision() -> torch.dtype:
    """bfloat16 on a GPU that supports it, float16 on an older GPU, float32 on a CPU, where both are slower."""
    if not torch.cuda.is_available():
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def load_model(
    model_class: Any, folder: Path, precision: torch.dtype | None = None, device: torch.device | None = None
) -> Any:
    """Load a transformers model from a folder for inference, by default on the best device.

    precision: by default the device's best one, whatever the weights are stored in. transformers uses torch's fused
    attention (SDPA) for every model that supports it. Raises WeightsMissing if the weights do not fit the model.
    """
    # float32 products run as TF32 on a GPU: 10 bits of mantissa, a relative error of about 1e-3
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")
    return load_completely(model_class, folder, dtype=precision or best_precision()).to(device or best_device()).eval()


def load_with_exact_parts(model_class: Any, folder: Path, parts: Mapping[str, torch.dtype | None]) -> Any:
    """As `load_model`, with modules that compute in float32 whatever the precision of the others.

    parts: the last part of the modules' names, and the precision of what they return; None: that of the model.
    """
    precision = best_precision()
    model = load_model(model_class, folder, torch.float32)
    if precision is torch.float32:
        return model
    exact = {name: module for name, module in model.named_modules() if name.rpartition(".")[2] in parts}
    exact = {name: copy.deepcopy(module) for name, module in exact.items()}
    model.to(precision)
    for name, module in exact.items():
        answer = parts[name.rpartition(".")[2]] or precision
        module.register_forward_pre_hook(lambda _, given: tuple(_as(value, torch.float32) for value in given))
        module.register_forward_hook(lambda _, given, result, answer=answer: _as(result, answer))
        model.set_submodule(name, module)
    return model


def _as(value: Any, precision: torch.dtype) -> Any:
    return value.to(precision) if isinstance(value, Tensor) and value.is_floating_point() else value


def compile_on_gpu(module: torch.nn.Module, varies: bool = False) -> bool:
    """Compile a module to fused kernels if there is a GPU; the compiler runs at the first call with each shape.

    varies: the kernels are those for any size, so that the compiler runs once, and once more for a size of 1. Returns
    whether there is a GPU. The caller should then make the first call while no other thread runs, because
    torch's compiler is not documented as thread-safe.
    """
    if not torch.cuda.is_available():
        return False
    # on a machine without a compiler torch logs one warning and runs the module uncompiled
    torch._dynamo.config.suppress_errors = True
    module.compile(dynamic=varies)
    return True


def pixels(images: Sequence[Image.Image]) -> list[Tensor]:
    """Images as RGB uint8 tensors (3, height, width) on the best device, with a single transfer to a GPU."""
    if not torch.cuda.is_available():
        # one image after another, so that only one of them is in memory twice; copy, since Pillow's memory is read-only
        # and torch warns about read-only arrays
        return [torch.from_numpy(np.asarray(image.convert("RGB")).transpose(2, 0, 1).copy()) for image in images]
    arrays = [np.asarray(image.convert("RGB")) for image in images]
    # pack all images into one block of pinned memory: only from there a transfer runs asynchronously
    sizes = [array.size for array in arrays]
    block = torch.empty(sum(sizes), dtype=torch.uint8, pin_memory=True)
    for part, array in zip(block.split(sizes), arrays, strict=True):
        part.numpy()[:] = array.reshape(-1)
    # one transfer, then views into it; the channels come first without copying
    parts = block.to(best_device(), non_blocking=True).split(sizes)
    return [part.view(array.shape).permute(2, 0, 1) for part, array in zip(parts, arrays, strict=True)]


@contextmanager
def side_stream(urgent: bool = False) -> Iterator[None]:
    """Run the GPU work of the block on a CUDA stream of its own, in parallel to the models; wait for it at the end.

    Tensors made in the block may be passed to a model; the caller must keep them until the model's result is read back.
    urgent: gives the stream a high priority, for many small kernels that depend on one another: the GPU schedules them
    before kernels of other streams that have not started.
    """
    if not torch.cuda.is_available():
        yield
        return
    stream = _stream(-1 if urgent else 0)
    with torch.cuda.stream(stream):
        yield
    stream.synchronize()


@functools.cache
def _stream(priority: int) -> torch.cuda.Stream:
    return torch.cuda.Stream(priority=priority)


def features(processor: Any, model: Any, images: Sequence[Image.Image], **arguments: Any) -> Any:
    """Run a transformers processor on images: they are resized on the model's device.

    model: whose device and precision the result gets. arguments: passed to the processor. Returns a BatchFeature.
    """
    with side_stream():
        batch = processor(images=pixels(images), input_data_format="channels_first", return_tensors="pt", **arguments)
        return batch.to(model.device, model.dtype)
