"""The pool: the same pixels as without it, bounded memory and time, and no image pays for another one."""

from __future__ import annotations

import io
import os
import pathlib
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from bench.hostile.images import bombs, encoded, good_images, mutated
from strata import forks
from strata.images import FULL_SIZE, DecodersUnavailable, DecodingPool, ImageError, decode, formats, pool, process
from strata.images.decoding import Frame
from strata.images.pool import Budget
from strata.images.process import DecodingProcess

LIMIT = 100_000_000
MIB = 2**20
GOOD, BOMBS = good_images(), bombs()


@pytest.fixture(scope="module")
def decoders() -> Iterator[DecodingPool]:
    with DecodingPool(LIMIT) as made:
        yield made


def outcome(act: Callable[[], Image.Image]) -> tuple[str, tuple[int, int], bytes]:
    """The pixels, or the kind of the error."""
    try:
        image = act()
    except ImageError as error:
        return str(error), (0, 0), b""
    return image.mode, image.size, image.tobytes()


def memory_of(process: int, what: str = "VmHWM") -> int:
    """Bytes of memory of a process: at its peak (VmHWM), or now (VmRSS)."""
    with pathlib.Path(f"/proc/{process}/status").open(encoding="utf-8") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(what))


@pytest.mark.parametrize("name", GOOD)
def test_the_pool_gives_the_same_pixels(decoders: DecodingPool, name: str) -> None:
    expected = outcome(lambda: decode(GOOD[name], LIMIT))
    assert expected[0] == "RGB" and outcome(lambda: decoders.decode(GOOD[name])) == expected
    decoders.check(GOOD[name])


@pytest.mark.parametrize("name", GOOD)
def test_bands_give_the_same_pixels_as_pillow_does_for_the_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Image.open(io.BytesIO(GOOD[name])) as image:
        image.load()
        upright = ImageOps.exif_transpose(image)
    if not upright.mode.startswith(("I", "F")) and "profile" not in name:
        if upright.has_transparency_data:
            white = Image.new("RGBA", upright.size, "white")
            upright = Image.alpha_composite(white, upright.convert("RGBA"))
        expected = upright.convert("RGB").tobytes()
    else:
        expected = decode(GOOD[name], LIMIT).tobytes()
    monkeypatch.setattr("strata.images.decoding.BAND_PIXELS", 300)
    frame = Frame(GOOD[name], LIMIT)
    assert (frame.width, frame.height) == upright.size
    assert b"".join(band.tobytes() for band in frame.bands()) == expected


def test_many_images_end_as_each_alone(decoders: DecodingPool) -> None:
    files = [*GOOD.values(), b"", b"text", BOMBS["png rgba"], GOOD["png RGB"]]
    limits = [None] * (len(files) - 1) + [100]
    found = decoders.decode_all(files, limits, most=2000)
    for data, limit, one in zip(files, limits, found, strict=True):
        together = (str(one), (0, 0), b"") if isinstance(one, ImageError) else (one.mode, one.size, one.tobytes())
        assert together == outcome(lambda: decoders.decode(data, limit, most=2000))  # noqa: B023
    assert decoders.decode_all([], []) == [] and decoders.budget.in_use == 0


def test_damaged_images_end_as_without_the_pool(decoders: DecodingPool) -> None:
    for name, data in mutated(11, 250):
        expected, found = outcome(lambda: decode(data, LIMIT)), outcome(lambda: decoders.decode(data))  # noqa: B023
        # the one thing that differs: the pool allows each image its own memory
        assert found == expected or found[0].startswith("too_costly"), name


def test_bombs_end_soon_and_within_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    peaks: list[int] = []
    end = DecodingProcess.end

    def note_and_end(self: DecodingProcess) -> None:
        peaks.append(memory_of(self.pid))
        end(self)

    monkeypatch.setattr(DecodingProcess, "end", note_and_end)
    images = list(BOMBS.values())
    with DecodingPool(LIMIT) as decoders:
        decoders.decode(GOOD["png RGB"])
        rest = memory_of(decoders._free[0].pid)
        with ThreadPoolExecutor(4) as threads:
            kinds = list(threads.map(lambda data: outcome(lambda: decoders.decode(data))[0].split(":")[0], images))
        # texts and profiles of a PNG, however large, cost nothing: its pixels come out
        assert set(kinds) == {"too_costly", "too_many_pixels", "RGB"}
        assert outcome(lambda: decoders.decode(GOOD["png RGB"]))[0] == "RGB"
    # the peak of each process, with all shared memory that it has touched
    assert len(peaks) >= 2 and max(peaks) - rest < formats.MEMORY
    assert decoders.budget.most <= formats.MEMORY


def test_large_images_share_the_budget(decoders: DecodingPool) -> None:
    """Ten images of 25 million pixels at once took 3 GB."""
    data, before = BOMBS["png rgba"], decoders.budget.in_use
    own = memory_of(os.getpid(), "VmRSS")
    with ThreadPoolExecutor(10) as threads:
        list(threads.map(decoders.check, [data] * 3))
    assert decoders.budget.in_use == before == 0
    assert memory_of(os.getpid(), "VmRSS") - own < 50 * MIB


def test_a_large_picture_can_be_shrunk(decoders: DecodingPool) -> None:
    image = Image.linear_gradient("L").resize((1000, 700)).convert("RGB")
    small = decoders.decode(encoded(image, "PNG"), most=50_000)
    assert small.size == (250, 175)
    assert small.tobytes() == image.reduce(4).tobytes()
    assert small.info[FULL_SIZE] == image.size
    assert FULL_SIZE not in decoders.decode(encoded(image, "PNG")).info


def test_processor_time_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    # far less than 25 million pixels take, and far more than a small picture takes
    monkeypatch.setattr(formats, "CPU_SECONDS", 0.1)
    monkeypatch.setattr(formats, "CPU_PER_PIXEL", 0.0)
    with DecodingPool(LIMIT, processes=1) as decoders:
        decoders.decode(GOOD["gif frames"])
        with pytest.raises(ImageError, match="s of processor time") as caught:
            decoders.decode(BOMBS["png rgba"])
        assert caught.value.kind == "too_costly"
        assert decoders.decode(GOOD["gif frames"]).size == (61, 43)


def end_the_first(monkeypatch: pytest.MonkeyPatch, number: int, times: int) -> None:
    """Let the first processes that are asked be ended by a signal."""
    ask, left = DecodingProcess.decode, [number] * times

    def end_and_ask(self: DecodingProcess, *asked: Any) -> list[Image.Image | ImageError]:
        self._await_start()
        if left:
            os.kill(self.pid, left.pop())
        return ask(self, *asked)

    monkeypatch.setattr(DecodingProcess, "decode", end_and_ask)


def test_a_process_that_is_killed_once_is_not_the_image_s_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    with DecodingPool(LIMIT, processes=1) as decoders:
        end_the_first(monkeypatch, signal.SIGKILL, 1)
        assert decoders.decode(GOOD["png RGB"]).size == (61, 43)
        assert decoders.budget.most == decoders.budget.size  # the second time alone
        assert decoders.budget.in_use == 0


def test_nor_is_one_that_is_killed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    with DecodingPool(LIMIT, processes=1) as decoders:
        end_the_first(monkeypatch, signal.SIGKILL, 2)
        with pytest.raises(DecodersUnavailable, match="SIGKILL"):
            decoders.decode(GOOD["png RGB"])
        assert decoders.decode(GOOD["jpeg L"]).size == (61, 43) and decoders.budget.in_use == 0


def test_a_decoder_that_crashes_is_told_for_its_image_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with DecodingPool(LIMIT, processes=2) as decoders:
        end_the_first(monkeypatch, signal.SIGSEGV, 2)
        with pytest.raises(ImageError, match="SIGSEGV") as caught:
            decoders.decode(GOOD["png RGB"])
        assert caught.value.kind == "decoder_crashed"
        assert decoders.decode(GOOD["png RGB"]).size == (61, 43)


def test_an_image_fails_only_by_a_question_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """One before it may have taken the memory that the process was allowed."""
    ask = DecodingProcess.decode

    def fail_together(self: DecodingProcess, files: list[bytes], *how: Any) -> list[Image.Image | ImageError]:
        return [ImageError("too_costly", "")] * len(files) if len(files) > 1 else ask(self, files, *how)

    monkeypatch.setattr(DecodingProcess, "decode", fail_together)
    with DecodingPool(LIMIT, processes=1) as decoders:
        found = decoders.decode_all([GOOD["png RGB"], GOOD["jpeg L"][:99], GOOD["jpeg L"]], [None] * 3)
    assert [isinstance(one, ImageError) for one in found] == [False, True, False]
    assert isinstance(found[1], ImageError) and found[1].kind == "truncated"


@pytest.mark.parametrize(
    "answers",
    [
        [],
        [{"kind": "truncated", "detail": "", "width": 10**9, "height": 1}],
        [{"kind": "another", "detail": ""}],
        [{"fault": "", "kind": "truncated", "detail": ""}],
        [{"width": 9, "height": 9, "full": [8, 9], "missing": ""}],
        [{"width": 8, "height": 9, "full": [8, 9], "missing": "", "short": ""}],
        [{"width": 10**6, "height": 10**6, "full": [10**6, 10**6], "missing": ""}],
        [{"width": 1, "height": 1, "full": [1, 1], "missing": ""}] * 2,
        ["text"],
    ],
)
def test_answers_that_no_process_gives_are_not_believed(answers: list[object]) -> None:
    with pytest.raises(ValueError, match="not a"):
        process._checked({"images": answers, "grown": False}, room=1000, images=1)


@pytest.mark.parametrize(("times", "failed"), [(1, 0), (3, 1)])
def test_a_decoder_that_crashes_over_several_images_decodes_each_alone(
    monkeypatch: pytest.MonkeyPatch, times: int, failed: int
) -> None:
    with DecodingPool(LIMIT, processes=2) as decoders:
        end_the_first(monkeypatch, signal.SIGSEGV, times)
        found = decoders.decode_all([GOOD["png RGB"]] * 3, [None] * 3)
        assert [isinstance(one, ImageError) for one in found] == [True] * failed + [False] * (3 - failed)
        assert decoders.budget.in_use == 0


def test_a_process_that_gives_no_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with DecodingPool(LIMIT, processes=1) as decoders:
        decoders.decode(GOOD["png RGB"])
        os.kill(decoders._free[0].pid, signal.SIGSTOP)
        monkeypatch.setattr(process, "PATIENCE", 0.1)
        monkeypatch.setattr(process, "SLOWNESS", 0.05)
        first = decoders._free[0].pid
        assert decoders.decode(GOOD["png RGB"]).size == (61, 43)
        assert decoders._free[0].pid != first


ABANDONED = """
import sys, time
from strata.images import DecodingPool
pool = DecodingPool(10_000)
pool.decode(bytes.fromhex(sys.argv[1]))
print(pool._template.pid, *(process.pid for process in pool._free), flush=True)
time.sleep(1000)
"""


def test_processes_end_with_the_parent() -> None:
    parent = subprocess.Popen([sys.executable, "-c", ABANDONED, GOOD["png RGB"].hex()], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    children = [int(word) for word in parent.stdout.readline().split()]
    assert len(children) == 2
    parent.kill()
    parent.wait()
    await_end(children)
    parent.stdout.close()


def await_end(numbers: list[int]) -> None:
    deadline = time.monotonic() + 120
    while any(is_running(number) for number in numbers):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_processes_are_forked_when_they_are_needed_and_share_what_is_imported() -> None:
    with DecodingPool(LIMIT, processes=2) as decoders:
        decoders.start()
        assert not decoders._free
        decoders.decode(GOOD["png RGB"])
        decoders.decode(GOOD["jpeg L"])
        (only,) = decoders._free
        parent = decoders._template
        assert parent is not None and psutil.Process(only.pid).ppid() == parent.pid
        # a fork of a process with threads may hang
        assert psutil.Process(parent.pid).num_threads() == 1
        own = psutil.Process(only.pid).memory_full_info()
        assert own.uss < own.rss / 2


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_a_template_that_is_killed_takes_its_processes_along_and_no_image_fails(processes: int) -> None:
    with DecodingPool(LIMIT, processes) as decoders:
        for taken in [decoders._take() for _ in range(processes)]:
            decoders._give_back(taken)
        decoders.decode(GOOD["png RGB"])
        before, first = [one.pid for one in decoders._free], decoders._template
        assert first is not None and len(before) == processes
        os.kill(first.pid, signal.SIGKILL)
        await_end(before)
        assert decoders.decode(GOOD["png RGB"]).size == (61, 43)
        assert decoders._template is not first and decoders.budget.in_use == 0


def test_a_template_that_hangs_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    with DecodingPool(LIMIT, processes=2) as decoders:
        decoders.decode(GOOD["png RGB"])
        (only,), first = decoders._free, decoders._template
        assert first is not None
        os.kill(first.pid, signal.SIGSTOP)
        monkeypatch.setattr(forks, "ANSWER_SECONDS", 0.2)
        only._usable = False
        decoders._give_back(decoders._take())  # it is ended, which its template does not confirm
        assert decoders.decode(GOOD["png RGB"]).size == (61, 43)
        assert decoders._template is not first and not is_running(only.pid)


def is_running(process: int) -> bool:
    try:
        with pathlib.Path(f"/proc/{process}/stat").open(encoding="utf-8") as status:
            return status.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_closing_ends_the_processes_and_refuses_images() -> None:
    decoders = DecodingPool(LIMIT)
    decoders.decode(GOOD["png RGB"])
    (process,) = decoders._free
    decoders.close()
    assert not is_running(process.pid)
    with pytest.raises(DecodersUnavailable):
        decoders.decode(GOOD["png RGB"])


LIMITED = """
import sys
from strata.images import DecodersUnavailable, DecodingPool
with DecodingPool(10_000_000, processes=1) as pool:
    for _ in range(2):
        try:
            print(pool.decode(bytes.fromhex(sys.argv[1])).size)
        except DecodersUnavailable as error:
            print("unavailable")
"""


@pytest.mark.parametrize(("kibibytes", "told"), [(8_000_000, "(61, 43)"), (450_000, "unavailable")])
def test_an_inherited_limit_of_address_space_stays_and_is_no_fault_of_an_image(kibibytes: int, told: str) -> None:
    command = f'ulimit -v {kibibytes}; exec "$0" "$@"'
    done = subprocess.run(
        ["/bin/sh", "-c", command, sys.executable, "-c", LIMITED, GOOD["png RGB"].hex()],
        capture_output=True,
        text=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    assert done.stdout.splitlines() == [told] * 2, done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="prlimit(2) is Linux's")
def test_a_limit_of_address_space_can_be_set_while_the_processes_run() -> None:
    with DecodingPool(LIMIT, processes=1) as decoders:
        decoders.decode(GOOD["png RGB"])
        (only,) = decoders._free
        resource.prlimit(only.pid, resource.RLIMIT_AS, (8_000_000_000, 8_000_000_000))
        assert decoders.decode(GOOD["png RGB"]).size == (61, 43)
        assert decoders._free[0] is only
        # less than the image needs: the limit is named, and not the image
        space = memory_of(only.pid, "VmSize")
        resource.prlimit(only.pid, resource.RLIMIT_AS, (space, space))
        with pytest.raises(DecodersUnavailable, match="limit of address space"):
            decoders.decode(BOMBS["png rgba"])


def test_processes_that_cannot_be_started_now_are_started_later(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    with DecodingPool(LIMIT, processes=1) as decoders:
        for name in ("subprocess.Popen", "socket.socketpair", "os.memfd_create", "mmap.mmap"):
            with monkeypatch.context() as patch:
                patch.setattr(f"strata.images.process.{name}", refuse)
                with pytest.raises(DecodersUnavailable, match="temporarily"):
                    decoders.decode(GOOD["png RGB"])
        assert decoders.decode(GOOD["png RGB"]).size == (61, 43)


SANDBOXED = """
import os, socket, subprocess, sys, ctypes, threading
from strata.images.sandbox import Sandbox
def started(thread):
    try:
        thread.start()
    except RuntimeError as error:  # Python's word for a refused thread
        raise OSError(error) from error
kept = os.open("/dev/null", os.O_RDONLY)
sandbox = Sandbox(threads=THREADS)
acts = {
    "open": lambda: open("/etc/passwd"),
    "open after closing": lambda: (os.close(kept), open("/etc/passwd")),
    "socket": lambda: socket.socket(),
    "fork": lambda: os.fork(),
    "execute": lambda: os.execv("/bin/true", ["true"]),
    "write": lambda: os.truncate("/tmp/x", 3),
    "a thread": lambda: started(threading.Thread(target=int)),
    "kill": lambda: os.kill(os.getppid(), 0),
    "ptrace": lambda: os.strerror(ctypes.CDLL(None).ptrace(0, 0, 0, 0)) and 1 / 0 if 0 else os.listdir("/proc"),
}
for name, act in acts.items():
    try:
        act()
    except OSError:
        continue
    print(name, "works", flush=True)
sandbox.allow(20 * 2**20, 60)
try:
    bytearray(40 * 2**20)
except MemoryError:
    pass
else:
    print("memory works")
sandbox.allow(20 * 2**20, 0.1)
while True:
    pass
"""


@pytest.mark.parametrize("threads", [False, True])
def test_the_sandbox_refuses_files_network_processes_memory_and_time(threads: bool) -> None:
    program = SANDBOXED.replace("THREADS", str(threads))
    # as the decoders have it: a thread's own arena of malloc could grow within the address space that it has reserved
    variables = {**os.environ, **pool.ENVIRONMENT}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120)
    assert done.stdout == ("a thread works\n" if threads else "") and done.stderr == ""
    assert done.returncode == -signal.SIGPROF


@settings(max_examples=25)
@given(weights=st.lists(st.integers(1, 120), min_size=1, max_size=12))
def test_the_budget_is_never_exceeded_and_all_get_their_turn(weights: list[int]) -> None:
    budget = Budget(100)

    def use(weight: int) -> None:
        with budget.holding(weight):
            assert budget.in_use <= 100

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(use, weights, timeout=60))
    assert budget.in_use == 0 and budget.most <= 100
