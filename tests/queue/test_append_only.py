"""A damaged append-only file is set aside, and the jobs of the store go on without it."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from strata.core.schemas import JobStatus
from strata.errors import DataDirectoryError, RedisUnavailable
from strata.jobs.jobs import Jobs
from strata.queue import append_only, embedded
from strata.queue.embedded import EmbeddedServer
from strata.queue.queue import Queue
from strata.store.store import Store
from tests.fakes import FAKE_PROFILE, FakeMachine, jpeg, wait_for_end, write_shard

Damage = Callable[[Path], object]
IMAGES = 24


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data of an embedded server that was stopped in the middle of a job, and with its store."""
    folder = tmp_path_factory.mktemp("begun")
    shard = write_shard(folder / "a.tar", [jpeg(20 + n) for n in range(IMAGES)])
    with EmbeddedServer(folder / "data") as server:
        jobs = Jobs(Queue(server.url), Store(str(folder / "store")))
        jobs.new.create("batch", [shard], FAKE_PROFILE, "lo")
        client = redis.Redis.from_url(server.url)
        client.bgrewriteaof()
        while client.info("persistence")["aof_rewrite_in_progress"]:
            time.sleep(0.01)
        with FakeMachine(jobs, seconds=0.01) as machine:
            while machine.vision.images < IMAGES // 3:
                time.sleep(0.005)
    return folder


@pytest.fixture
def folder(begun: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(begun, tmp_path / "copy")


def part(pattern: str) -> Callable[[Path], Path]:
    return lambda parts: next(parts.glob(pattern))


BASE, INCREMENT, MANIFEST = part("*.base.rdb"), part("*.incr.aof"), part("*.manifest")


def cut(find: Callable[[Path], Path]) -> Damage:
    return lambda parts: os.truncate(find(parts), find(parts).stat().st_size // 2)


def emptied(find: Callable[[Path], Path]) -> Damage:
    return lambda parts: os.truncate(find(parts), 0)


def foreign(find: Callable[[Path], Path]) -> Damage:
    return lambda parts: find(parts).write_bytes(b"*3\r\n$3\r\nSET\r\nthis is no append-only file\r\n" * 50)


def missing(find: Callable[[Path], Path]) -> Damage:
    return lambda parts: find(parts).unlink()


def directory(find: Callable[[Path], Path]) -> Damage:
    def damage(parts: Path) -> None:
        path = find(parts)
        path.unlink()
        path.mkdir()

    return damage


def fifo(find: Callable[[Path], Path]) -> Damage:
    def damage(parts: Path) -> None:
        path = find(parts)
        path.unlink()
        os.mkfifo(path)

    return damage


def flipped(parts: Path) -> None:
    data = bytearray(BASE(parts).read_bytes())
    data[len(data) // 2] ^= 8
    BASE(parts).write_bytes(data)


def of_a_later_version(parts: Path) -> None:
    data = BASE(parts).read_bytes()
    BASE(parts).write_bytes(data[:6] + b"999" + data[9:])


def file_in_its_place(parts: Path) -> None:
    shutil.rmtree(parts)
    parts.write_text("a file", encoding="utf-8")


CASES: dict[str, Damage] = {
    f"{damage.__name__} {name}": damage(find)
    for name, find in (("base", BASE), ("increment", INCREMENT), ("manifest", MANIFEST))
    for damage in (cut, emptied, foreign, missing, directory, fifo)
    if (name, damage) not in (("increment", cut), ("increment", emptied))  # the server loads these
} | {"flipped": flipped, "later version": of_a_later_version, "file": file_in_its_place}


@pytest.mark.parametrize("case", CASES)
def test_a_damaged_file_is_set_aside(
    folder: Path, case: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = folder / "data" / "redis" / "appendonlydir"
    CASES[case](parts)
    before = {path.name: path.stat().st_size for path in (parts.iterdir() if parts.is_dir() else [parts])}
    caplog.set_level(logging.WARNING)
    with EmbeddedServer(folder / "data") as server:
        assert redis.Redis.from_url(server.url).dbsize() == 0
    # one line says so; nothing is deleted
    (line,) = [record.getMessage() for record in caplog.records if record.name == embedded.__name__]
    assert "append-only file was damaged" in line and len(line.splitlines()) == 1
    (aside,) = parts.parent.glob("appendonlydir.damaged-*")
    assert str(aside) in line
    after = {path.name: path.stat().st_size for path in (aside.iterdir() if aside.is_dir() else [aside])}
    assert list(after.values()) == list(before.values())
    # the next start needs nothing
    caplog.clear()
    with EmbeddedServer(folder / "data") as server:
        assert server.pid and not caplog.records
    assert len(list(parts.parent.glob("*.damaged-*"))) == 1


@pytest.mark.parametrize("case", ["foreign base", "missing manifest", "cut increment", "emptied increment"])
def test_a_job_goes_on_from_the_store(folder: Path, case: str) -> None:
    damages = CASES | {"cut increment": cut(INCREMENT), "emptied increment": emptied(INCREMENT)}
    append_only.unseal(folder / "data" / "redis")  # as after a crash
    damages[case](folder / "data" / "redis" / "appendonlydir")
    with EmbeddedServer(folder / "data") as server:
        jobs = Jobs(Queue(server.url), Store(str(folder / "store")))
        (job_id,) = jobs.store.job_ids()
        with FakeMachine(jobs):
            wait_for_end(jobs, job_id)
        view = jobs.view(job_id)
    assert view.status is JobStatus.COMPLETED and view.request_counts.succeeded == IMAGES


@given(place=st.integers(0), bit=st.integers(0, 7))
def test_no_changed_bit_of_a_stopped_server_is_loaded(begun: Path, place: int, bit: int) -> None:
    folder = begun / "data" / "redis"
    files = sorted((folder / "appendonlydir").glob("appendonly.aof.*"))
    assert append_only.fault_of(folder) == "" and len(files) == 3
    place %= sum(file.stat().st_size for file in files)
    for file in files:
        data = file.read_bytes()
        if place < len(data):
            file.write_bytes(data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :])
            fault = append_only.fault_of(folder)
            file.write_bytes(data)
            assert fault
            return
        place -= len(data)


def test_a_crash_leaves_no_seal(folder: Path) -> None:
    seal = folder / "data" / "redis" / "appendonlydir" / "strata-hashes.json"
    assert seal.is_file()
    with EmbeddedServer(folder / "data") as server:
        assert not seal.exists() and server.pid
        os.kill(server.pid, signal.SIGKILL)
    assert not seal.exists()
    # one that was cut off, or is of something else, says nothing
    for text in ("", "{", "[]", "1"):
        seal.write_text(text, encoding="utf-8")
        assert append_only.fault_of(folder / "data" / "redis") == ""
    with EmbeddedServer(folder / "data"):
        pass
    assert seal.is_file() and append_only.fault_of(folder / "data" / "redis") == ""


def test_a_server_that_does_not_start_without_the_file_leaves_it_where_it_was(folder: Path) -> None:
    redis_folder = folder / "data" / "redis"
    foreign(BASE)(redis_folder / "appendonlydir")
    before = BASE(redis_folder / "appendonlydir").read_bytes()
    with pytest.raises(RedisUnavailable, match="did not start"):
        EmbeddedServer(folder / "data", {"nonsense": "1"}).start()
    assert BASE(redis_folder / "appendonlydir").read_bytes() == before
    assert not list(redis_folder.glob("*.damaged-*"))


def test_a_server_that_is_killed_while_it_loads_keeps_its_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the system when memory lacks, for example."""
    fake = folder / "killed"
    fake.write_text("#!/bin/sh\n[ $1 = --version ] && echo v=8.0 || kill -9 $$\n")
    fake.chmod(0o755)
    monkeypatch.setattr(embedded, "find_server", lambda: fake)
    with pytest.raises(RedisUnavailable, match="did not start"):
        EmbeddedServer(folder / "data").start()
    assert not list((folder / "data" / "redis").glob("*.damaged-*"))


def test_a_folder_in_which_nothing_can_be_renamed_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    emptied(BASE)(folder / "data" / "redis" / "appendonlydir")

    def refuse(*_: object) -> None:
        raise OSError(30, os.strerror(30))

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(DataDirectoryError, match="Read-only file system"):
        EmbeddedServer(folder / "data").start()


def test_a_file_of_an_earlier_version_is_set_aside_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "redis").mkdir()
    (tmp_path / "redis" / "appendonly.aof").write_text("no append-only file")
    with EmbeddedServer(tmp_path) as server:
        assert server.pid
    (aside,) = (tmp_path / "redis").glob("*.damaged-*/appendonly.aof")
    assert aside.read_text() == "no append-only file" and "was damaged" in caplog.text


def test_an_absent_and_an_empty_folder_are_no_fault(tmp_path: Path) -> None:
    assert append_only.fault_of(tmp_path) == ""
    (tmp_path / "appendonlydir").mkdir()
    assert append_only.fault_of(tmp_path) == ""
