"""Whose fault an error is: an item's, the process's, or nobody's because memory lacks."""

from __future__ import annotations

import os
import platform
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from models.base import Stage, StageBroken, StageNotLoaded, StageUnavailable
from models.building import load_stages
from models.faults import ends_process, is_out_of_memory, trim_memory
from models.items import PROBES, CaptionRequest, Detection, Failure, Pair, Segment, check_results
from strata.core import STAGES_OF
from strata.core.profiles import StageSettings

SETTINGS = StageSettings(backend="fake", model="builtin:fake", revision="1", batch_size=4)
PROBE = -1

STICKY = [
    torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
    torch.AcceleratorError("CUDA error: out of memory"),
    RuntimeError("CUDA error: device-side assert triggered"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("CUDA error: uncorrectable ECC error encountered\nCompile with `TORCH_USE_CUDA_DSA`"),
    RuntimeError("CUDA error: unspecified launch failure"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx(handle)`"),
    RuntimeError("NCCL error in: ProcessGroupNCCL.cpp:1418, unhandled cuda error"),
    RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"),
    RuntimeError("CUDA failure 700: an illegal memory access was encountered ; GPU=0"),
    RuntimeError("InternalTorchDynamoError: AcceleratorError: something"),
    RuntimeError("No CUDA GPUs are available"),
    SystemExit(1),
    KeyboardInterrupt(),
    GeneratorExit(),
]
NO_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:114] . DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
]
OF_ITEMS = [
    ValueError("unlucky"),
    KeyError("CUDA"),
    RecursionError("maximum recursion depth exceeded"),
    RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"),
    ArithmeticError("the matcher's probability is not a number (NaN)"),
    OSError("image file is truncated"),
]


def test_numpy_s_own_memory_error_is_one() -> None:
    with pytest.raises(MemoryError) as caught:
        np.zeros(1 << 62, np.uint8)
    assert is_out_of_memory(caught.value) and not ends_process(caught.value)


@pytest.mark.parametrize("error", STICKY, ids=repr)
def test_errors_that_stay_end_the_process(error: BaseException) -> None:
    assert ends_process(error) and not is_out_of_memory(error)
    wrapped = ValueError("a library's own words")
    wrapped.__cause__ = error
    assert ends_process(wrapped) or not isinstance(error, Exception)


@pytest.mark.parametrize("error", NO_MEMORY, ids=repr)
def test_memory_that_lacks_is_no_broken_process(error: BaseException) -> None:
    assert is_out_of_memory(error) and not ends_process(error)


@pytest.mark.parametrize("error", OF_ITEMS, ids=repr)
def test_other_errors_are_looked_into(error: BaseException) -> None:
    assert not is_out_of_memory(error) and not ends_process(error)


class Sums(Stage[int, int]):
    """Adds one; what goes wrong is told by a function of the batch and the number of the call."""

    name: ClassVar[str] = "matcher"

    def __init__(self, trouble: Callable[[Sequence[int], int], BaseException | None]) -> None:
        super().__init__(SETTINGS)
        self.trouble, self.calls = trouble, list[list[int]]()

    def load(self) -> None:
        pass

    def probe_item(self) -> int:
        return PROBE

    def compute(self, batch: Sequence[int]) -> list[int]:
        self.calls.append(list(batch))
        error = self.trouble(batch, len(self.calls))
        if error is not None:
            raise error
        return [number + 1 for number in batch]


@pytest.mark.parametrize("error", STICKY, ids=repr)
def test_a_broken_process_is_told_at_once_and_not_by_halving(error: BaseException) -> None:
    stage = Sums(lambda batch, call: error if call > 2 else None)
    found: list[BaseException] = []

    def work() -> None:  # as a worker, which computes in a thread: in the main one Ctrl-C is somebody's
        try:
            stage.run(list(range(20)))
        except BaseException as raised:
            found.append(raised)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    (broken,) = found
    assert isinstance(broken, StageBroken) and not broken.memory and len(stage.calls) == 3
    assert broken.stage == "matcher" and type(error).__name__ in broken.reason


def test_ctrl_c_in_the_main_thread_is_somebody_s() -> None:
    with pytest.raises(KeyboardInterrupt):
        Sums(lambda batch, call: KeyboardInterrupt()).run([1])


@pytest.mark.parametrize("error", OF_ITEMS, ids=repr)
def test_a_stage_that_fails_on_everything_from_some_call_on_is_broken(error: Exception) -> None:
    stage = Sums(lambda batch, call: error if call > 2 else None)
    with pytest.raises(StageBroken, match="then its probe failed") as caught:
        stage.run(list(range(20)))
    assert stage.calls[-1] == [PROBE] and type(error).__name__ in caught.value.reason


@pytest.mark.parametrize("error", OF_ITEMS, ids=repr)
def test_an_item_after_which_the_stage_works_is_at_fault(error: Exception) -> None:
    stage = Sums(lambda batch, call: error if 13 in batch else None)
    assert stage.run([1, 13, 3, 4]) == [2, Failure("matcher", type(error).__name__, str(error)), 4, 5]
    assert [PROBE] not in stage.calls  # its neighbour has shown that the stage works
    assert stage.run([1, 2, 3, 13])[3] == Failure("matcher", type(error).__name__, str(error))
    assert stage.calls[-1] == [PROBE]


def test_a_stage_whose_probe_is_answered_by_a_lost_server_waits() -> None:
    stage = Sums(lambda batch, call: StageUnavailable("away") if PROBE in batch else ValueError("bad"))
    with pytest.raises(StageUnavailable):
        stage.run([1])


@given(
    bad=st.sets(st.integers(0, 29)),
    breaks_at=st.none() | st.integers(1, 40),
    length=st.integers(1, 30),
)
def test_no_item_is_blamed_by_a_stage_that_does_not_work(bad: set[int], breaks_at: int | None, length: int) -> None:
    def trouble(batch: Sequence[int], call: int) -> Exception | None:
        if breaks_at is not None and call >= breaks_at:
            return RuntimeError("out of order")
        return ValueError("bad") if bad & set(batch) else None

    stage = Sums(trouble)
    expected = [Failure("matcher", "ValueError", "bad") if i in bad else i + 1 for i in range(length)]
    try:
        assert stage.run(list(range(length))) == expected
    except StageBroken:
        assert breaks_at is not None and len(stage.calls) >= breaks_at


def test_an_error_by_chance_fails_no_item() -> None:
    stage = Sums(lambda batch, call: RuntimeError("flaky") if call % 2 else None)
    assert stage.run(list(range(1, 9))) == list(range(2, 10))


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    "results",
    ["ab", {1: 2, 2: 3}, [1, 2, 3], [1, NAN], [1, -INF], [[], [Detection((NAN, 0.0, 1.0, 1.0), "a thing", 0.5)]]],
    ids=repr,
)
def test_what_is_no_result_is_no_data(results: Any) -> None:
    class Odd(Sums):
        def compute(self, batch: Sequence[int]) -> Any:
            return results if 13 in batch else super().compute(batch)

    assert Odd(lambda batch, call: None).run([1, 2, 3, 4]) == [2, 3, 4, 5]
    (first, second) = Odd(lambda batch, call: None).run([1, 13])
    assert first == 2 and isinstance(second, Failure)


IMAGE = Image.new("RGB", (30, 20))
MASK = np.zeros((20, 30), np.bool_)


@pytest.mark.parametrize(
    ("stage", "result", "words"),
    [
        ("captioner", 5, "captioner returned a int for an item"),
        ("captioner", None, "captioner returned a NoneType for an item"),
        ("matcher", "high", "matcher returned a str for an item"),
        ("detector", "none", "detector returned a str for an item"),
        ("detector", [Detection((0, 0, 32, 20), "a", 1.0)], "the box (0.0, 0.0, 32.0, 20.0) in an image of 30 × 20"),
        ("detector", [Detection((-2, 0, 9, 9), "a", 1.0)], "the box (-2.0, 0.0, 9.0, 9.0)"),
        ("detector", [Detection((9, 0, 2, 9), "a", 1.0)], "the box (9.0, 0.0, 2.0, 9.0)"),
        ("segmenter", [Segment(MASK.T, (0, 0, 20, 20), 1.0)], "a mask of another size"),
    ],
)
def test_a_result_of_another_type_or_place_is_the_stage_s_error(stage: str, result: Any, words: str) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        check_results(stage, [result], [IMAGE])
    assert words in str(caught.value)


def test_results_that_reach_the_rim_are_right() -> None:
    check_results("detector", [[Detection((-0.4, 0, 30.6, 20), "a", 1.0)], []], [IMAGE, IMAGE])
    check_results("segmenter", [[Segment(MASK, (0, 0, 30, 20), 1.0)]], [IMAGE])
    check_results("captioner", ["a"], [CaptionRequest(IMAGE)])
    check_results("matcher", [np.float32(0.5)], [Pair(IMAGE, "a")])


class Wordless(Exception):
    """Its message cannot be made."""

    def __str__(self) -> str:
        raise RuntimeError("no message")


def test_an_error_without_a_message_is_an_error_of_its_item() -> None:
    stage = Sums(lambda batch, call: Wordless() if 13 in batch else None)
    assert stage.run([1, 13, 3]) == [2, Failure("matcher", "Wordless", ""), 4]


def test_every_kind_of_stage_has_a_probe() -> None:
    assert set(PROBES) == {name for names in STAGES_OF.values() for name in names}
    assert isinstance(PROBES["captioner"], CaptionRequest)


@pytest.mark.parametrize("error", [KeyError("no"), TypeError("no"), OSError("no"), ImportError("no"), SystemExit(3)])
def test_what_goes_wrong_while_a_stage_is_loaded_is_told_with_its_name(error: BaseException) -> None:
    class Loading(Sums):
        def load(self) -> None:
            raise error

    with pytest.raises(StageNotLoaded, match="matcher cannot be loaded: ") as caught:
        load_stages({"matcher": Loading(lambda batch, call: None)})
    assert caught.value.__cause__ is error and not caught.value.memory


def test_a_stage_that_loads_and_cannot_compute_is_found_by_its_probe() -> None:
    def load(error: BaseException) -> None:
        stages: dict[str, Stage[Any, Any]] = {"matcher": Sums(lambda batch, call: error)}
        load_stages(stages)

    with pytest.raises(StageNotLoaded, match="ValueError: no weights"):
        load(ValueError("no weights"))
    with pytest.raises(StageBroken):
        load(torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered"))
    with pytest.raises(StageNotLoaded) as caught:
        load(torch.OutOfMemoryError("CUDA out of memory"))
    assert caught.value.memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators are not asked")
def test_memory_that_the_allocator_keeps_goes_back_to_the_system() -> None:
    def used() -> int:
        return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE")

    blocks = [np.ones(96 * 2**10, np.uint8) for _ in range(3000)]  # small enough for the heap
    last = blocks.pop()  # at the end of the heap, so that glibc does not give the others back itself
    blocks.clear()
    kept = used()
    trim_memory()
    assert last.any() and kept - used() > 200 * 2**20
