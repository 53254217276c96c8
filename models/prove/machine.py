"""The machine that a proof was made on, and the memory that a stage takes there."""

from __future__ import annotations

import contextlib
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

import strata
from models.base import cpu_threads
from models.devices import best_device, best_precision

COMPUTING = "torch transformers open_clip_torch timm onnxruntime rapidocr opencv-python-headless numpy pillow".split()
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_PEAK = "5"  # resets the peak of the memory, see proc(5)


def device_name() -> str:
    """What the models compute on: the GPU's name, or "CPU"."""
    return torch.cuda.get_device_name() if best_device().type == "cuda" else "CPU"


def machine() -> dict[str, str]:
    """The system, its processor, cores and memory, and the threads and the precision of the models.

    load: how many threads were running or ready to run, those of all processes, averaged over the last minute.
    """
    about = {
        "system": platform.platform(),
        "processor": _first(Path("/proc/cpuinfo"), "model name") or platform.processor() or platform.machine(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "load": f"{os.getloadavg()[0]:.1f}",
        "threads": str(cpu_threads()),
        "precision": str(best_precision()).removeprefix("torch."),
    }
    if memory := _first(Path("/proc/meminfo"), "MemTotal"):
        about["memory"] = f"{int(memory.split()[0]) / 2**20:.1f} GiB"
    if best_device().type == "cuda":
        about["gpu_memory"] = f"{torch.cuda.get_device_properties(0).total_memory / 2**30:.1f} GiB"
        about["cuda"] = str(torch.version.cuda)
    return about


def versions() -> dict[str, str]:
    """The versions of Strata, of Python, and of the installed packages that compute."""
    found = {"strata": strata.__version__, "python": platform.python_version()}
    for name in COMPUTING:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


class Meter:
    """The memory that work takes from now on, in bytes: of the GPU if there is one, else of this process."""

    def __init__(self) -> None:
        self._gpu = best_device().type == "cuda"
        if self._gpu:
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()
        else:
            # without the right to reset it, the peak is that of the whole process
            with contextlib.suppress(OSError):
                _CLEAR.write_text(_PEAK, encoding="ascii")
            self._before = _memory("VmRSS")

    @property
    def peak(self) -> int:
        """The largest amount since the meter was made, less what was taken before."""
        peak = torch.cuda.max_memory_allocated() if self._gpu else _memory("VmHWM")
        return max(0, peak - self._before)


def _memory(what: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at most; 0 on a system that does not tell."""
    return int((_first(_STATUS, what) or "0").split()[0]) * 1024


def _first(path: Path, key: str) -> str:
    """The value of a key in a file with a line "key: value" each; "" if there is none."""
    with contextlib.suppress(OSError):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            name, colon, value = line.partition(":")
            if colon and name.strip() == key:
                return value.strip()
    return ""
