"""What a stage's model runs on, and how pixels get there. None of it is in a profile: it changes the speed, not the
work's name.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def best_device() -> torch.device:
    """The GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def best_precision() -> torch.dtype:
    """bfloat16 on a GPU that computes in it, float16 on an older one; a CPU is slow in both or loses by them."""
    if not torch.cuda.is_available():
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def cpu_threads() -> int:
    """CPU threads of a model, as the worker was told (`STRATA_THREADS`, handed on as OMP_NUM_THREADS)."""
    return max(1, int(os.environ.get("OMP_NUM_THREADS", "1")))


def placed(model_class: Any, folder: Path, precision: torch.dtype | None = None) -> Any:
    """A transformers model read from a folder, ready for inference on the best device.

    precision: the device's best if not given, whatever the weights are stored in. transformers takes torch's fused
    attention (SDPA) wherever a model knows it. What stays in float32 multiplies as TF32 on a GPU: 10 bits of mantissa,
    about 1e-3 of a value.
    """
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")
    return model_class.from_pretrained(folder, dtype=precision or best_precision()).to(best_device()).eval()


def compiled(module: torch.nn.Module) -> bool:
    """On a GPU: from now on the module runs as fused kernels, compiled at the first call with a shape.

    It stays as it is on a CPU, and on a machine where nothing can be compiled; torch then says why, once. Whether this
    is a GPU: then let it compile while nothing else runs, for torch promises nothing of threads beside its compiler.
    """
    if not torch.cuda.is_available():
        return False
    torch._dynamo.config.suppress_errors = True
    module.compile(dynamic=False)
    return True


def pixels(images: Sequence[Image.Image]) -> list[Tensor]:
    """RGB images as uint8 tensors (3, height, width) on the best device; a GPU gets all of them in one pinned copy."""
    arrays = [np.asarray(image.convert("RGB")) for image in images]
    if not torch.cuda.is_available():
        # a copy, since an image's own memory cannot be written
        return [torch.from_numpy(array.transpose(2, 0, 1).copy()) for array in arrays]
    sizes = [array.size for array in arrays]
    block = torch.empty(sum(sizes), dtype=torch.uint8, pin_memory=True)
    for part, array in zip(block.split(sizes), arrays, strict=True):
        part.numpy()[:] = array.reshape(-1)
    parts = block.to(best_device(), non_blocking=True).split(sizes)
    return [part.view(array.shape).permute(2, 0, 1) for part, array in zip(parts, arrays, strict=True)]


@contextmanager
def beside(urgent: bool = False) -> Iterator[None]:
    """A GPU's work of the block runs beside the models', on a stream of its own, and is done when the block ends.

    The tensors made in it may be given to a model; they must live until its answer is read back. urgent: many small
    steps, each of which the next waits for; the GPU takes them before large ones that it has not begun.
    """
    if not torch.cuda.is_available():
        yield
        return
    stream = _side_stream(-1 if urgent else 0)
    with torch.cuda.stream(stream):
        yield
    stream.synchronize()


@functools.cache
def _side_stream(priority: int) -> torch.cuda.Stream:
    return torch.cuda.Stream(priority=priority)


def features(processor: Any, model: Any, images: Sequence[Image.Image], **arguments: Any) -> Any:
    """What a transformers processor makes of images, resized on the model's device, floats in the model's precision.

    arguments: the processor's others. Returns a BatchFeature.
    """
    with beside():
        made = processor(images=pixels(images), input_data_format="channels_first", return_tensors="pt", **arguments)
        return made.to(model.device, model.dtype)
