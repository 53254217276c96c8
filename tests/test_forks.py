"""Forks of a template: what they are told, how they end, and what ends with what."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from strata import forks
from strata.cli import exits
from strata.cli.processes import worker_template
from strata.components import strata_command
from strata.forks import Template, TemplateEnded

PROGRAM = """
import os, sys, time
from strata.forks import fork_when_asked
found = fork_when_asked(int(sys.argv[1]))
if found is not None:
    task, descriptors = found
    exec(task)
"""
COMMAND = [sys.executable, "-c", PROGRAM]


@pytest.fixture
def template() -> Iterator[Template]:
    made = Template("tasks", COMMAND, os.environ)
    yield made
    made.end()


def test_a_fork_does_its_task_and_its_end_is_told_as_of_any_process(template: Template) -> None:
    codes = {"pass": 0, "sys.exit(7)": 7, "os.kill(os.getpid(), 9)": -signal.SIGKILL, "raise SystemExit": 0}
    found = {task: template.fork(task) for task in codes}
    assert {task: fork.wait(60) for task, fork in found.items()} == codes
    assert [fork.poll() for fork in found.values()] == list(codes.values())


@pytest.mark.parametrize("size", [0, 100, 65_536, 1_000_000])
def test_a_fork_gets_its_files_and_a_task_of_any_length(template: Template, size: int) -> None:
    reading, writing = os.pipe()
    fork = template.fork(f"os.write(descriptors[0], str(len({'x' * size!r})).encode())", [writing])
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        # it ends, since the template keeps none of the files
        assert file.read() == str(size).encode()
    assert fork.wait(60) == 0


def test_many_threads_may_ask(template: Template) -> None:
    with ThreadPoolExecutor(8) as threads:
        codes = list(threads.map(lambda number: template.fork(f"sys.exit({number})").wait(60), range(40)))
    assert codes == list(range(40))


def test_many_threads_may_wait_for_one_fork(template: Template) -> None:
    fork = template.fork("time.sleep(0.2); sys.exit(3)")
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda _: fork.wait(60), range(8))) == [3] * 8
    assert template.fork("pass").wait(60) == 0


def test_a_signal_to_all_processes_ends_a_fork_in_its_own_way(template: Template) -> None:
    """As systemd sends it. A template that ended by it would end its forks by SIGKILL."""
    reading, writing = os.pipe()
    tidy = "signal = __import__('signal'); signal.signal(15, lambda *_: sys.exit(3)); os.write(descriptors[0], b'x'); "
    careful, careless = template.fork(f"{tidy}time.sleep(600)", [writing]), template.fork("time.sleep(600)")
    assert os.read(reading, 1) == b"x"
    for number in (template.pid, careful.pid, careless.pid):
        os.kill(number, signal.SIGTERM)
    assert careful.wait(60) == 3 and careless.wait(60) == -signal.SIGTERM
    assert template.fork("pass").wait(60) == 0
    os.close(reading)
    os.close(writing)


def test_a_fork_is_ended_and_a_number_that_is_free_gets_no_signal(
    template: Template, monkeypatch: pytest.MonkeyPatch
) -> None:
    asleep, deaf = (template.fork(f"{first}time.sleep(600)") for first in ("", "__import__('signal').signal(15, 1); "))
    with pytest.raises(subprocess.TimeoutExpired):
        asleep.wait(0.05)
    asleep.terminate()
    assert asleep.wait(60) == -signal.SIGTERM
    deaf.kill()
    assert deaf.wait(60) == -signal.SIGKILL
    sent: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append(pid))
    asleep.terminate()
    deaf.kill()
    assert not sent


def test_forks_end_with_their_template_and_the_log_names_it(
    template: Template, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    forked = [template.fork("time.sleep(600)") for _ in range(3)]
    os.kill(template.pid, signal.SIGKILL)
    await_end([one.pid for one in forked])
    # their numbers may be those of other processes now
    sent: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append(pid))
    for one in forked:
        one.kill()
        assert one.wait(60) == -signal.SIGKILL
    assert not sent and not template.alive
    with pytest.raises(TemplateEnded, match="SIGKILL"):
        template.fork("pass")
    (told,) = [record.getMessage() for record in caplog.records]
    named = f"the process from which the tasks are forked (pid {template.pid})"
    assert told == f"{named} has ended: SIGKILL; they have ended with it"


def test_a_template_is_ended_while_it_is_asked(caplog: pytest.LogCaptureFixture) -> None:
    with Template("tasks", [sys.executable, "-c", "import time; time.sleep(600)"], os.environ) as template:
        with ThreadPoolExecutor(1) as threads:
            asking = threads.submit(template.fork, "pass")
            await_busy(template)
            template.end()
            with pytest.raises(TemplateEnded):
                asking.result(60)
        assert not caplog.records


def await_busy(template: Template) -> None:
    """Wait until another thread asks."""
    deadline = time.monotonic() + 60
    while template._guard.acquire(blocking=False):
        template._guard.release()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("asked", ["", '{"fork": "time.sleep(600)"}\n', '{"fork": "time.sl'])
def test_a_template_whose_caller_has_ended_ends_in_silence(asked: str) -> None:
    ours, theirs = socket.socketpair()
    command, passed = [*COMMAND, str(theirs.fileno())], [theirs.fileno()]
    with subprocess.Popen(command, pass_fds=passed, stderr=subprocess.PIPE) as process:
        theirs.close()
        # it has not asked yet, or what it has asked is not answered, or it has not read the answer
        ours.sendall(asked.encode())
        ours.close()
        assert process.stderr is not None and process.stderr.read() == b""
        assert process.wait(60) == 0


PARENT = """
import os, sys, time
from strata.forks import Template
template = Template("tasks", [sys.executable, "-c", sys.argv[1]], os.environ)
print(template.pid, template.fork("time.sleep(600)").pid, flush=True)
time.sleep(600)
"""


def test_a_template_and_its_forks_end_with_the_process_that_started_them() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, PROGRAM], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        numbers = [int(word) for word in parent.stdout.readline().split()]
        assert len(numbers) == 2
        parent.kill()
    await_end(numbers)


def test_a_template_that_hangs_is_given_up(template: Template, monkeypatch: pytest.MonkeyPatch) -> None:
    fork = template.fork("time.sleep(600)")
    os.kill(template.pid, signal.SIGSTOP)
    monkeypatch.setattr(forks, "ANSWER_SECONDS", 0.1)
    assert fork.wait(60) == -signal.SIGKILL
    await_end([fork.pid])


@pytest.mark.parametrize("program", ["import no_such_module", "print()"])
def test_a_template_that_cannot_start_is_told(program: str) -> None:
    template = Template("tasks", [sys.executable, "-c", program], {**os.environ, "PYTHONWARNINGS": "ignore"})
    with pytest.raises(TemplateEnded, match="exit code"):
        template.fork("pass")
    assert not template.alive and not template.was_ready
    with pytest.raises(OSError, match="no_such_program"):
        Template("tasks", ["/no_such_program"], {})


def await_end(numbers: list[int]) -> None:
    deadline = time.monotonic() + 60
    while any(psutil.pid_exists(number) and not is_zombie(number) for number in numbers):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_zombie(number: int) -> bool:
    try:
        return bool(psutil.Process(number).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def test_a_worker_is_a_fork_with_the_environment_and_the_groups_that_it_is_told(
    capfd: pytest.CaptureFixture[str],
) -> None:
    environment = {**os.environ, "STRATA_LOG_FORMAT": "json", "REDIS_URL": "redis://127.0.0.1:1/0"}
    with worker_template(strata_command("worker", "--forks")) as template:
        assert template.fork({"groups": "nothing", "environment": environment}).wait(120) == exits.USAGE
        del environment["REDIS_URL"]
        assert template.fork({"groups": "llm", "environment": environment}).wait(120) == exits.REDIS_UNREACHABLE
        # a fork of a process with threads may hang, and CUDA cannot be used in a fork of a process that has used it
        names = [path.read_text(encoding="ascii").strip() for path in Path(f"/proc/{template.pid}/task").glob("*/comm")]
        assert len([name for name in names if name != "jemalloc_bg_thd"]) == 1
        assert "libtorch" not in Path(f"/proc/{template.pid}/maps").read_text(encoding="utf-8")
    told = capfd.readouterr().err
    assert "unknown groups nothing" in told and "a worker needs REDIS_URL" in told
