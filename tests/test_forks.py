"""Forks of a template: what they are told, how they end, and what ends with what."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil  # type: ignore[import-untyped]
import pytest

from strata import forks
from strata.cli import exits
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
    made = Template(COMMAND, os.environ)
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


def test_forks_end_with_their_template(template: Template) -> None:
    fork = template.fork("time.sleep(600)")
    os.kill(template.pid, signal.SIGKILL)
    assert fork.wait(60) == -signal.SIGKILL and not template.alive
    await_end([fork.pid])
    with pytest.raises(TemplateEnded, match="SIGKILL"):
        template.fork("pass")


PARENT = """
import os, sys, time
from strata.forks import Template
template = Template([sys.executable, "-c", sys.argv[1]], os.environ)
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
    template = Template([sys.executable, "-c", program], {**os.environ, "PYTHONWARNINGS": "ignore"})
    with pytest.raises(TemplateEnded, match="exit code"):
        template.fork("pass")
    assert not template.alive and not template.was_ready
    with pytest.raises(OSError, match="no_such_program"):
        Template(["/no_such_program"], {})


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
    template = Template(strata_command("worker", "--forks"), os.environ)
    try:
        assert template.fork({"groups": "nothing", "environment": environment}).wait(120) == exits.USAGE
        del environment["REDIS_URL"]
        assert template.fork({"groups": "llm", "environment": environment}).wait(120) == exits.REDIS_UNREACHABLE
    finally:
        template.end()
    told = capfd.readouterr().err
    assert "unknown groups nothing" in told and "a worker needs REDIS_URL" in told
