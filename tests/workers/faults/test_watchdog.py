"""The watchdog: real workers that hang are ended from outside, and the image at fault is found."""

from __future__ import annotations

import math
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.deadlines import FACTOR, Activity, Deadlines, Flight, Limits, Pace
from strata.core import Chunk, load_profile
from strata.jobs.jobs import Jobs
from strata.queue import Claim
from tests.fakes import jpeg, write_shard
from tests.workers.programs.hanging_worker import ONCE_WIDTH
from tests.workers.programs.machines import BATCH_PROFILE, ForkedProcess, fake_profile
from workers.isolation import Blame, Flying, Hang, Isolation, Verdict
from workers.watchdog import (
    LOOKS,
    MOST_STARVED,
    TICK_SECONDS,
    Board,
    Starvation,
    Told,
    Watch,
    Watchdog,
    is_stopped,
    waits_of,
)

FLOOR = 3.0  # seconds; a call of the fake stage takes less than 0.01 s
NEVER_STARVED = Starvation(dict)


@pytest.mark.usefixtures("scheduler")
def test_one_image_hangs_for_ever_and_one_process_once(jobs: Jobs, valkey_url: str, tmp_path: Path) -> None:
    always, log = 100 + 11, tmp_path / "worker.log"
    (tmp_path / "hanging.toml").write_text(BATCH_PROFILE)
    (tmp_path / "once").touch()
    environment = {
        "REDIS_URL": valkey_url,
        "STRATA_STORE": jobs.store.uri,
        "STRATA_PROFILES_DIR": str(tmp_path),
        "STRATA_PROFILE": "hanging",
        "STRATA_LEASE_SECONDS": "20",  # the watchdog gives the chunks back: nobody waits for the end of a lease
        "STRATA_HANG_SECONDS": str(FLOOR),
        "STRATA_LOG_FORMAT": "text",
        "STRATA_LOG_LEVEL": "debug",  # with the names of images
    }
    shard = write_shard(tmp_path / "a.tar", [jpeg(100 + n, 8) for n in range(32)])
    arguments = ["--always", str(always), "--once", str(tmp_path / "once")]
    worker = ForkedProcess("tests.workers.programs.hanging_worker", arguments, environment, log)
    try:
        job = jobs.new.create("batch", [shard], load_profile("hanging", tmp_path), "lo")
        deadline = time.monotonic() + 300
        while not jobs.view(job.id).status.final:
            assert time.monotonic() < deadline, log.read_text()
            worker.look_after()
            time.sleep(0.05)
    finally:
        worker.end()
    # all but the image that hangs always; its row tells the stage and the seconds
    request = jobs.request(job.id)
    chunks = [chunk for one in jobs.summaries(job.id).values() for chunk in request.chunks(one, "llm")]
    rows = [record for chunk in chunks for record in jobs.store.read_records(chunk)]
    failed = {n: row.failure for n, row in enumerate(rows) if row.failure}
    assert list(failed) == [11] and len(rows) == 32
    (failure,) = failed.values()
    assert failure is not None
    assert (failure.stage, failure.error_type, failure.transient) == ("captioner", "time_limit", False)
    assert re.fullmatch(r"captioner took longer than \d+ s", failure.detail)
    assert not (tmp_path / "once").exists() and ONCE_WIDTH - 100 not in failed
    # every death has its line
    told = re.compile(r"is ended: captioner takes longer than \d+ s on ")  # more than 3 s if batches were slow before
    lines = [line for line in log.read_text().splitlines() if told.search(line)]
    # four, and one more for each call that a busy machine keeps for 3 s
    assert len(lines) == len(worker.deaths) >= 4, log.read_text()
    assert set(worker.deaths) == {-signal.SIGKILL}
    key = rows[11].key
    assert sum(line.endswith(f"on {key}") for line in lines) == 2, lines


def test_a_worker_that_is_stopped_is_not_late(tmp_path: Path) -> None:
    board = Board(os.memfd_create("test"), create=True)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        try:
            watch = Watch(board, process.pid, NEVER_STARVED)
            told = tuple(vars(Activity("vision", "captioner", 3 * TICK_SECONDS)).values())
            board.write(pickle.dumps(({1: told}, {})))
            process.send_signal(signal.SIGSTOP)
            while not is_stopped(process.pid):
                time.sleep(0.01)
            watch._looked -= 3600
            assert watch.overdue() is None and watch.overdue() is None
            process.send_signal(signal.SIGCONT)
            while is_stopped(process.pid):
                time.sleep(0.01)
            # an hour in which the watchdog itself did not run counts as two ticks
            watch._looked -= 3600
            assert watch.overdue() is None
            watch._looked -= 3600
            assert watch.overdue() == (Told(*told), {})
        finally:
            process.kill()


def _overdue_after(watch: Watch, seconds: float) -> Told | None:
    for _ in range(round(seconds / TICK_SECONDS)):
        watch._looked -= TICK_SECONDS
        if found := watch.overdue():
            return found[0]
    return None


def _watched(deadlines: Deadlines) -> Watch:
    """What watches this process, which reports its activities from now on."""
    watchdog = Watchdog.__new__(Watchdog)
    watchdog._board = Board(os.memfd_create("test"), create=True)
    deadlines.report(watchdog.publish, Limits())
    return Watch(watchdog._board, os.getpid(), NEVER_STARVED)


def test_time_counts_for_each_activity_and_between_them_only_while_there_is_none() -> None:
    deadlines = Deadlines()
    watch = _watched(deadlines)
    with deadlines.watch(Activity("vision", "between", 20, between=True)):
        # ten calls of a stage, of which none is late, and the time between them is not theirs
        for _ in range(10):
            with deadlines.watch(Activity("vision", "captioner", 20)):
                assert _overdue_after(watch, 15) is None
        with deadlines.watch(Activity("llm", "composer", 1000)):
            assert _overdue_after(watch, 15) is None
            found = _overdue_after(watch, 15)
            assert found is not None and found.part == "between"
    # progress begins anew
    with deadlines.watch(Activity("index", "index", 20)) as progress:
        assert _overdue_after(watch, 15) is None
        time.sleep(1.01)
        progress()
        assert _overdue_after(watch, 15) is None
        assert _overdue_after(watch, 15) is not None
    assert _overdue_after(watch, 50) is None


def test_progress_does_not_count_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.deadlines.PROGRESS_SECONDS", 0.0)
    deadlines = Deadlines()
    watch = _watched(deadlines)
    with deadlines.watch(Activity("vision", "ocr", 20, longest=100)) as progress:
        # 105 seconds with progress, of which that after 105 is the last but does not count: 20 after that of 90
        for _ in range(7):
            assert _overdue_after(watch, 15) is None
            progress()
        assert _overdue_after(watch, 4) is None
        assert _overdue_after(watch, 2) is not None


def test_progress_does_not_count_after_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.deadlines.PROGRESS_SECONDS", 0.0)
    deadlines, told = Deadlines(), list[list[int]]()
    deadlines.report(lambda activities, _: told.append([one.progress for one in activities.values()]), Limits())
    with deadlines.watch(Activity("vision", "ocr", 20)) as progress:
        progress()
        assert told[-1] == [1]
    # a thread of the call may still run
    progress()
    assert told[-1] == []


class Machine:
    """A machine with one processor for a worker's threads, as `/proc` shows it: a wait is counted when it is over.

    busy: which threads always want to run; the others sleep. Each turn on the processor is followed by a wait.
    """

    def __init__(self, busy: Sequence[bool], run: float, wait: float) -> None:
        self.busy, self.run, self.wait = busy, run, wait
        self.seconds = 0.0

    def waits(self) -> dict[int, int]:
        """Nanoseconds that each thread has waited; a thread that sleeps has waited a moment at its start."""
        turns = math.floor((self.seconds + self.run) / (self.run + self.wait))
        return {number: round(turns * self.wait * 1e9) if busy else 1_000_000 for number, busy in enumerate(self.busy)}

    def used(self) -> float:
        """Seconds that a thread that wants to run has run."""
        return self.seconds * self.run / (self.run + self.wait)


def _seconds_until_overdue(machine: Machine, seconds: float, monkeypatch: pytest.MonkeyPatch) -> float:
    """After how many seconds by the clock an activity with this deadline is overdue."""
    board = Board(os.memfd_create("test"), create=True)
    board.write(pickle.dumps(({1: tuple(vars(Activity("llm", "composer", seconds)).values())}, {})))
    began = time.monotonic()
    with monkeypatch.context() as patched:
        patched.setattr("workers.watchdog.time.monotonic", lambda: began + machine.seconds)
        watch = Watch(board, os.getpid(), Starvation(machine.waits))
        while watch.overdue() is None:
            machine.seconds += TICK_SECONDS
            assert machine.seconds < 1000 * seconds
    return machine.seconds


@given(
    run=st.floats(0.001, 0.02),
    share=st.floats(0.1, 1.0),
    sleepers=st.integers(0, 5),
    seconds=st.sampled_from([30.0, 61.5, 120.0]),
)
@settings(deadline=None, max_examples=25)
def test_of_a_starved_process_only_the_time_on_a_processor_counts(
    run: float, share: float, sleepers: int, seconds: float
) -> None:
    machine = Machine([True] + [False] * sleepers, run, run / share - run)
    with pytest.MonkeyPatch.context() as monkeypatch:
        taken = _seconds_until_overdue(machine, seconds, monkeypatch)
    # at the beginning nothing is known; then the average of some looks is not exact
    slack = LOOKS * TICK_SECONDS + seconds / 5
    assert seconds - slack <= machine.used() <= seconds + slack, taken


@given(threads=st.integers(1, 6), run=st.floats(0.001, 0.1), wait=st.floats(0.0, 2.0))
@settings(deadline=None, max_examples=10)
def test_a_process_that_sleeps_is_late_by_the_clock_and_a_starved_one_at_last(
    threads: int, run: float, wait: float
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        asleep = _seconds_until_overdue(Machine([False] * threads, run, wait), 60.0, monkeypatch)
        assert 60 <= asleep <= 60 + 2 * TICK_SECONDS
        starved = _seconds_until_overdue(Machine([True] * threads, 0.0, 0.01), 60.0, monkeypatch)
        assert starved <= 60 / (1 - MOST_STARVED) + LOOKS * TICK_SECONDS


COMPETITORS = 8
SPIN = "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])}); print(flush=True)\nwhile True: pass"
SLEEP = "import os, sys, time; os.sched_setaffinity(0, {int(sys.argv[1])}); print(flush=True); time.sleep(600)"


@contextmanager
def _on_one_core(*codes: str) -> Iterator[list[int]]:
    """Processes that share one core, by their ids."""
    core = str(min(os.sched_getaffinity(0)))
    with ExitStack() as ends:
        found = list[int]()
        for code in codes:
            process = subprocess.Popen([sys.executable, "-I", "-S", "-c", code, core], stdout=subprocess.PIPE)
            ends.enter_context(process)
            ends.callback(process.kill)
            assert process.stdout is not None and process.stdout.readline() == b"\n"
            found.append(process.pid)
        yield found


@pytest.mark.skipif(not dict(waits_of(os.getpid())), reason="this system does not count waits for a processor")
def test_a_real_process_without_a_processor_is_not_late_and_one_that_sleeps_is() -> None:
    deadline, pause = 0.8, TICK_SECONDS / 4
    content = pickle.dumps(({1: tuple(vars(Activity("llm", "composer", deadline)).values())}, {}))
    with _on_one_core(SLEEP, SPIN, *[SPIN] * COMPETITORS) as (sleeper, starved, *_):
        board = Board(os.memfd_create("test"), create=True)
        board.write(content)
        watches = {pid: Watch(board, pid) for pid in (sleeper, starved)}
        # the waits of some looks are known, as those of a worker that has run for a while
        for _ in range(LOOKS):
            watches[starved]._starvation.share(time.monotonic())
            time.sleep(pause)
        began, late = time.monotonic(), dict[int, float]()
        for watch in watches.values():
            watch._looked = began
        ran = psutil.Process(starved).cpu_times().user
        # by the clock the starved process is late three times
        while sleeper not in late or time.monotonic() < began + 3 * deadline:
            time.sleep(pause)
            for pid, watch in watches.items():
                if pid not in late and watch.overdue() is not None:
                    late[pid] = time.monotonic() - began
        ran = psutil.Process(starved).cpu_times().user - ran
    assert deadline <= late[sleeper]
    assert starved not in late or late[starved] > 2 * late[sleeper] or ran > deadline / 2, (late, ran)


def test_a_content_that_is_being_written_leaves_the_last_one() -> None:
    board = Board(os.memfd_create("test"), create=True)
    assert board.read() == b""
    for content in (b"one", b"another", b"x"):
        board.write(content)
        assert board.read() == content
    with pytest.raises(ValueError, match="too long"):
        board.write(b"y" * 2**21)
    assert board.read() == b"x"
    start = board._start(1 - board._place)
    board._memory[start : start + 4] = b"torn"
    assert board.read() == b"x"


def test_a_limit_follows_from_what_calls_take() -> None:
    pace, limits = Pace(), Limits()
    assert pace.limit(2, limits) == limits.first + 2 == 302
    pace.add(1, 50.0)  # the first call of a process may take long
    assert pace.limit(1, limits) == 301
    for _ in range(3):
        pace.add(4, 2.0)
    assert pace.limit(1, limits) == 60 + FACTOR * 0.5
    assert pace.limit(100, limits) == 60 + FACTOR * 50


def _claimed(jobs: Jobs) -> Claim:
    """A chunk of five images, claimed by worker "one"."""
    request = jobs.new.create("batch", ["/shards/a.tar"], fake_profile(), "lo")
    chunk = Chunk("vision", "fake", fake_profile().fingerprint("vision"), "/shards/a.tar", "ab" * 32, 0, 5)
    jobs.queue.broker.enqueue(chunk, request.id, "lo")
    jobs.queue.broker.claim("vision", "one", 1)  # the first call creates the consumer groups
    (claim,) = jobs.queue.broker.claim("vision", "one", 1)
    return claim


def _next(jobs: Jobs, claim: Claim, holder: str, following: str) -> tuple[Claim, Verdict]:
    """What the next worker finds when the holder's lease has lapsed."""
    jobs.queue.broker.release(claim, holder, counted=True)
    (again,) = jobs.queue.broker.reclaim("vision", following, 60)
    return again, Isolation(jobs.queue.isolation_notes, again).begin()


def test_a_storage_that_hangs_accuses_no_image(jobs: Jobs) -> None:
    claim = _claimed(jobs)
    reason = "storage took longer than 900 s"
    hang = Hang(jobs.queue, "one", [Flying(claim)], [])
    hang.note(Blame("storage", "time_limit", reason), storage=True)
    hang.release()
    (again,) = jobs.queue.broker.reclaim("vision", "two", 60)
    assert again.deliveries == 2
    verdict = Isolation(jobs.queue.isolation_notes, again).begin()
    assert (verdict.doubt, verdict.deaths) == (reason, {})
    # the next holder tries it again, and no row is suspected
    _, verdict = _next(jobs, again, "two", "three")
    assert (verdict.doubt, verdict.alone) == ("", frozenset())


def test_where_another_worker_has_the_chunk_already_only_the_reason_is_noted(jobs: Jobs) -> None:
    claim = _claimed(jobs)
    blame = Blame("captioner", "time_limit", "captioner took longer than 60 s")
    notes = jobs.queue.isolation_notes
    # the first worker holds the interpreter, so that its lease lapses before its watchdog acts
    jobs.queue.broker.release(claim, "one", counted=True)
    notes.mark(claim.chunk.id, 3)
    (again,) = jobs.queue.broker.reclaim("vision", "two", 60)
    assert Isolation(notes, again).begin().deaths == {3: 1}
    hang = Hang(jobs.queue, "one", [Flying(claim, (3,))], [])
    hang.note(blame, storage=False)
    hang.release()
    # the second one's lease lapses, too
    Hang(jobs.queue, "two", [Flying(again, (3,))], []).note(blame, storage=False)
    _, verdict = _next(jobs, again, "two", "three")
    assert (verdict.deaths, verdict.condemned) == ({3: 2}, {3: blame})


def test_more_rows_in_flight_than_can_be_told_are_left_out() -> None:
    board, deadlines = Board(os.memfd_create("test"), create=True), Deadlines()
    watchdog = Watchdog.__new__(Watchdog)
    watchdog._board = board
    deadlines.report(watchdog.publish, Limits())
    deadlines.fly("vision", Flight(("a",), b"rows"))
    assert pickle.loads(board.read()) == ({}, {"vision": (("a",), b"rows")})
    with deadlines.watch(Activity("vision", "captioner", 20)):
        deadlines.fly("vision", Flight(("a",), bytes(2**21)))
        activities, flights = pickle.loads(board.read())
        assert [Told(*one).part for one in activities.values()] == ["captioner"] and flights == {}


def test_a_flight_is_told_by_its_keys() -> None:
    told: list[object] = []
    deadlines = Deadlines()
    deadlines.report(lambda activities, flights: told.append(dict(flights)), Limits())
    deadlines.fly("vision", Flight(("a", "b"), b""))
    deadlines.fly("vision", None)
    assert told == [{}, {"vision": Flight(("a", "b"), b"")}, {}]
