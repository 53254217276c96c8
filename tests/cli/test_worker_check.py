"""`strata worker --check`: what checks of containers ask."""

from __future__ import annotations

import socket

import pytest

from strata.cli import exits
from strata.cli.main import main
from strata.processes import process_identity
from strata.queue import Heartbeat
from strata.queue.queue import Queue
from tests.secrets import SECRET

HERE = socket.gethostname()
DEAD = process_identity().rpartition("/")[0] + "/1"  # this process's number, but started at another time


def beat(queue: Queue, name: str, groups: list[str], host: str = HERE, ready: bool = True, process: str = "") -> None:
    told = Heartbeat(name=name, pid=1, process=process, groups=groups, ready=ready, chunks=[], host=host)
    queue.heartbeats.publish(told, 60)


def checked(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exit_:
        main(["worker", "--check", *arguments])
    return int(exit_.value.code or 0)


@pytest.fixture(autouse=True)
def redis_url(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", queue.url)


def test_a_worker_of_this_machine_that_is_ready(queue: Queue, capsys: pytest.CaptureFixture[str]) -> None:
    assert checked() == exits.FAILURE  # nobody is there
    beat(queue, "elsewhere", ["vision", "llm"], host=f"not-{HERE}")
    beat(queue, "ended", ["vision", "llm"], process=DEAD)
    assert checked() == exits.FAILURE
    assert capsys.readouterr().err.splitlines()[-1] == f"strata worker: no worker of {HERE} has sent a heartbeat lately"
    beat(queue, "loading", ["vision"], ready=False)
    assert checked() == exits.FAILURE
    assert capsys.readouterr().err == f"strata worker: the worker of {HERE} has not loaded its models yet\n"
    beat(queue, "here", ["vision"])
    assert checked() == checked("--groups", "vision") == 0
    assert checked("--groups", "llm") == checked("--groups", "vision,llm") == exits.FAILURE
    queue.heartbeats.withdraw("here")
    assert checked("--groups", "vision") == exits.FAILURE


def test_what_cannot_be_asked(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert checked("--groups", "video") == exits.USAGE
    monkeypatch.setenv("REDIS_URL", f"redis://:{SECRET}@127.0.0.1:1/0")
    assert checked() == exits.REDIS_UNREACHABLE
    monkeypatch.delenv("REDIS_URL")
    assert checked() == exits.REDIS_UNREACHABLE
    told = capsys.readouterr().err
    assert "unknown groups video" in told and "needs REDIS_URL" in told
    assert SECRET not in told and len(told.splitlines()) == 3
