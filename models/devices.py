"""What a stage's model runs on. None of it is in a profile: it changes the speed, not the work's name."""

from __future__ import annotations

import os

import torch


def best_device() -> torch.device:
    """The GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def best_precision() -> torch.dtype:
    """Half precision on a GPU; a CPU is slow in it or loses by it."""
    return torch.float16 if torch.cuda.is_available() else torch.float32


def cpu_threads() -> int:
    """CPU threads of a model, as the worker was told (`STRATA_THREADS`, handed on as OMP_NUM_THREADS)."""
    return max(1, int(os.environ.get("OMP_NUM_THREADS", "1")))
