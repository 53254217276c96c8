"""Whether a process that somebody else has named still runs, and what a signal leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strata.processes import has_ended, process_identity

SLEEP = [sys.executable, "-I", "-S", "-c", "import time; print(flush=True); time.sleep(600)"]


def test_a_process_has_ended_when_it_was_killed_also_before_its_parent_asks() -> None:
    with subprocess.Popen(SLEEP, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline()
        identity = process_identity(process.pid)
        assert identity and not has_ended(identity)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie
        assert has_ended(identity)
    assert has_ended(identity) and process_identity(process.pid) == ""


def test_this_process_runs_and_one_with_its_number_before_it_has_ended() -> None:
    own = process_identity()
    place, start = own.rpartition("/")[0], int(own.rpartition("/")[2])
    assert not has_ended(own)
    assert has_ended(f"{place}/{start - 1}")


def test_nothing_is_known_of_other_machines_containers_and_hidden_processes() -> None:
    boot, namespace, pid, start = process_identity().split("/")
    assert not has_ended(f"other/{namespace}/{pid}/{int(start) - 1}")
    assert not has_ended(f"{boot}/{int(namespace) + 1}/{pid}/{int(start) - 1}")


def test_a_process_that_proc_hides_may_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen(SLEEP, stdout=subprocess.PIPE) as process:
        identity = process_identity(process.pid)
        # as with `hidepid`: there is no folder of a process that runs, and a signal tells that it exists
        monkeypatch.setattr(Path, "read_bytes", _hidden)
        assert not has_ended(identity)
        process.kill()
    assert has_ended(identity)


def _hidden(path: Path) -> bytes:
    raise FileNotFoundError(path)


@given(st.text() | st.from_regex(r"[a-f0-9-]{0,9}/\d{0,25}/\d{0,25}/\d{0,25}"))
def test_any_other_text_names_no_process(text: str) -> None:
    assert not has_ended(text)


def ended_by_sigterm(program: str, folder: Path) -> tuple[int, list[psutil.Process]]:
    """The exit code of a program that gets SIGTERM once it has printed a line; and its processes that still run."""
    with subprocess.Popen([sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline()
        family = psutil.Process(process.pid).children(recursive=True)
        assert family
        for _ in range(2):  # a second one must not interrupt the end; `send_signal` would ask for an exit code between
            os.kill(process.pid, signal.SIGTERM)
        code = process.wait(60)
    _, alive = psutil.wait_procs(family, 15)
    return code, alive


SERVICE = """
import sys, time
from pathlib import Path
import psutil, samples.service
# what stands for `strata serve`, and has a process of its own
child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])"
samples.service.strata_command = lambda *_: [sys.executable, "-c", child]
def tell(*_):
    while len(psutil.Process().children(recursive=True)) < 2:
        time.sleep(0.05)
    print(flush=True)
    time.sleep(600)
samples.service._await_ready = tell
with samples.service.running_service(Path(sys.argv[1]), Path(sys.argv[1])):
    pass
"""
FLEET = """
import sys, time
from pathlib import Path
from bench.processes import Fleet
with Fleet(Path(sys.argv[1]) / "fleet", sys.argv[1], []):
    print(flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("program", [SERVICE, FLEET])
def test_a_measurement_that_is_ended_leaves_no_service_behind(program: str, tmp_path: Path) -> None:
    code, alive = ended_by_sigterm(program, tmp_path)
    assert (code, alive) == (128 + signal.SIGTERM, [])
