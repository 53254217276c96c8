"""Faults of the process: errors after which it can compute nothing right, and memory that lacks.

A CUDA error of the first kind stays: "This leaves the process in an inconsistent state and any further CUDA work will
return the same error. To continue using CUDA, the process must be terminated and relaunched." (NVIDIA, CUDA Runtime
API, `cudaError` 700, 702, 709, 710 and 714 to 719.) torch is not imported: workers without models use this module.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import re
import sys
from collections.abc import Iterator

MOST_KEPT = 128 * 2**20  # bytes of freed memory that a process keeps, as getting it again costs time

# torch raises AcceleratorError for every error of the CUDA runtime but its own allocator's OutOfMemoryError
_BROKEN_TYPES = frozenset({"AcceleratorError", "DistBackendError"})
_BROKEN_MESSAGES = re.compile(
    "|".join(
        (
            # torch before 2.8 raises RuntimeError (pytorch/pytorch#44624: an assert ends all further work); so does a
            # library that wraps the error (vllm-project/vllm-omni#3274: "InternalTorchDynamoError: AcceleratorError")
            "(CUDA|HIP)( driver)? error",
            "AcceleratorError",
            # onnxruntime's form: "CUDA failure 700: an illegal memory access was encountered", "CUDNN failure 5000"
            "(CUDA|CUDNN|CUBLAS|NCCL) failure",
            "cuda runtime error",
            r"Triton Error \[(CUDA|HIP)\]",
            # the errors themselves, as other libraries report them
            "illegal memory access",
            "illegal instruction was encountered",
            "misaligned address",
            "device-side assert",
            "unspecified launch failure",
            # hardware: vllm-project/vllm#5222 (a new process may get another GPU), proteneer/timemachine#1203
            "uncorrectable (ECC|NVLink) error",
            "fallen off the bus",
            "no CUDA-capable device|No CUDA GPUs are available|CUDA unknown error|CUDA driver version is insufficient",
            # a handle whose creation or call failed is kept by torch and fails again
            r"cuDNN error|CUDNN_STATUS_|CUDNN_BACKEND|cublas(Lt)? error|CUBLAS_STATUS_|CUSOLVER_STATUS_|CUFFT_",
            "NCCL (error|Error)|ncclUnhandledCudaError|ncclSystemError|ncclInternalError",
        )
    )
)
_NO_MEMORY_TYPES = frozenset({"OutOfMemoryError", "MemoryError", "_ArrayMemoryError"})  # torch's; Python's; numpy's
_NO_MEMORY_MESSAGES = re.compile(
    "|".join(
        (
            "DefaultCPUAllocator: (can't allocate|not enough) memory",
            "(CUBLAS|CUDNN|CUSOLVER)_STATUS_ALLOC_FAILED",  # the library found no room for its workspace
            "Failed to allocate memory for requested buffer",  # onnxruntime
            "Insufficient memory",  # OpenCV, error -4
        )
    )
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a GPU or the machine ran out of memory; less work at once, or more free memory, may help."""
    return any(
        type(one).__name__ in _NO_MEMORY_TYPES or _NO_MEMORY_MESSAGES.search(text_of(one)) for one in _chain(error)
    )


def ends_process(error: BaseException) -> bool:
    """Whether this process can compute nothing right after the error, whatever the image.

    Such are errors of the GPU that stay, and what is no Exception (`sys.exit` in a plug-in): nobody meant an image.
    """
    if is_out_of_memory(error):
        return False
    return not isinstance(error, Exception) or any(
        type(one).__name__ in _BROKEN_TYPES or _BROKEN_MESSAGES.search(text_of(one)) for one in _chain(error)
    )


def reason_of(error: BaseException) -> str:
    """An error as one line: its type and its message."""
    return f"{type(error).__name__}: {' '.join(text_of(error).split())}"[:500].removesuffix(": ")


def text_of(error: BaseException) -> str:
    """The error's message; empty if its class cannot even make one."""
    try:
        return str(error)
    except Exception:
        return ""


def empty_cache() -> None:
    """Give the GPU memory that torch keeps for later use back to the driver."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


class _Allocator(ctypes.Structure):
    """What glibc's `mallinfo2` returns. fordblks: bytes of free blocks in the heaps."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    )


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    """The C library of this process; None if it is not glibc."""
    library = ctypes.CDLL(None)
    if not (hasattr(library, "mallinfo2") and hasattr(library, "malloc_trim")):
        return None
    library.mallinfo2.restype = _Allocator
    return library


def trim_memory() -> None:
    """Give memory that glibc's malloc keeps for later use back to the system, if more than MOST_KEPT is free.

    Blocks of up to 32 MiB stay in the heaps of the threads that have freed them, and each stage has its own threads.
    glibc counts a free block also after its pages were given back; to give them back again takes less than a
    millisecond. Without glibc nothing happens.
    """
    library = _glibc()
    if library is not None and library.mallinfo2().fordblks > MOST_KEPT:
        library.malloc_trim(0)


def free_memory() -> None:
    """Free what nobody references any more, on the GPU too. It takes up to a second."""
    # a worker has frozen what was loaded at its start (`gc.freeze`): a model with a cycle would stay for ever
    frozen = gc.get_freeze_count() > 0
    gc.unfreeze()
    gc.collect()
    if frozen:
        gc.freeze()
    empty_cache()


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and those that led to it: a library may raise its own error in place of the GPU's."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
