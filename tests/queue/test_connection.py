"""Connections to servers behind TLS and behind sentinels, and the errors of servers that refuse commands."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import redis

from strata.core.schemas import JobStatus
from strata.errors import QueueUnavailable
from strata.jobs.jobs import Jobs
from strata.queue.connection import connect
from strata.queue.queue import Queue
from strata.queue.server_process import find_server
from strata.store.store import Store
from tests.fakes import FAKE_PROFILE, FakeMachine, jpeg, write_shard
from tests.queue.requests import chunk
from tests.secrets import SECRET
from tests.servers.certificates import write_certificates

SECONDS = 60.0


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while True:
        with suppress(redis.RedisError, QueueUnavailable, OSError):
            if condition():
                return
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port)):
        return True


@contextmanager
def server(folder: Path, *options: str, sentinel: str = "") -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A server on a port of loopback, or a sentinel with this configuration."""
    folder.mkdir()
    port, command = free_port(), [str(find_server())]
    if sentinel:
        (folder / "sentinel.conf").write_text(f"port {port}\nbind 127.0.0.1\ndir {folder}\n{sentinel}\n")
        command += [str(folder / "sentinel.conf"), "--sentinel"]
    else:
        command += ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "", *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: answers(port))
        yield port, process
    finally:
        process.kill()
        process.wait()


# TLS


@contextmanager
def behind_tls(folder: Path, port: int) -> Iterator[int]:
    """A port on which TLS ends before the server, because the server of the wheel is built without TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def serve() -> None:
        with suppress(OSError):
            while True:
                plain, _ = listener.accept()
                with suppress(OSError):
                    client = context.wrap_socket(plain, server_side=True)
                    upstream = socket.create_connection(("127.0.0.1", port))
                    for pair in ((client, upstream), (upstream, client)):
                        threading.Thread(target=pump, args=pair, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.close()


def test_a_server_behind_tls(tmp_path: Path) -> None:
    write_certificates(tmp_path)
    with server(tmp_path / "redis", "--requirepass", SECRET) as (port, _), behind_tls(tmp_path, port) as tls:
        ca = f"ssl_ca_certs={tmp_path / 'ca.pem'}"
        queue = Queue(f"rediss://:{SECRET}@localhost:{tls}/1?{ca}")
        queue.broker.enqueue(chunk(), "one", "lo")
        assert queue.broker.depth("vision") == 1
        assert Queue(f"redis://:{SECRET}@127.0.0.1:{port}/1").broker.depth("vision") == 1
        # not the CA, not the name of the certificate, no TLS
        for url in (
            f"rediss://:{SECRET}@localhost:{tls}/1",
            f"rediss://:{SECRET}@127.0.0.1:{tls}/1?{ca}",
            f"redis://:{SECRET}@localhost:{tls}/1",
        ):
            with pytest.raises(QueueUnavailable) as caught:
                Queue(url).ping()
            assert SECRET not in str(caught.value)
        Queue(f"rediss://:{SECRET}@127.0.0.1:{tls}/1?{ca}&ssl_check_hostname=false").ping()


# sentinels


def test_a_service_behind_sentinels_goes_on_after_a_failover(store: Store, tmp_path: Path) -> None:
    with server(tmp_path / "first") as (first, master), server(tmp_path / "second") as (second, _):
        redis.Redis(port=second).execute_command("REPLICAOF", "127.0.0.1", first)
        replica: Any = redis.Redis(port=second)
        wait_for(lambda: replica.info("replication")["master_link_status"] == "up")
        watched = (
            f"sentinel monitor mine 127.0.0.1 {first} 1\n"
            "sentinel down-after-milliseconds mine 500\nsentinel failover-timeout mine 3000\n"
        )
        with server(tmp_path / "sentinel", sentinel=watched) as (port, _):
            sentinel: Any = redis.Redis(port=port, decode_responses=True)
            wait_for(lambda: sentinel.execute_command("SENTINEL REPLICAS mine"))
            queue = Queue(f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{port}/mine/0")
            queue.ping()
            jobs = Jobs(queue, store)
            shard = write_shard(tmp_path / "a.tar", [jpeg(20 + n) for n in range(40)])
            with FakeMachine(jobs, seconds=0.05) as machine:
                job = jobs.new.create("batch", [shard], FAKE_PROFILE, "lo")
                wait_for(lambda: machine.vision.images >= 8)
                master.kill()
                wait_for(lambda: jobs.view(job.id).status is JobStatus.COMPLETED)
            assert jobs.view(job.id).request_counts.succeeded == 40
            address = sentinel.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME mine")
            assert int(address[1]) == second


def test_sentinels_that_know_no_such_service_or_are_away_are_no_queue(tmp_path: Path) -> None:
    with (
        server(tmp_path / "sentinel", sentinel="# no service") as (port, _),
        pytest.raises(QueueUnavailable, match="No master found for 'mine'"),
    ):
        Queue(f"redis+sentinel://127.0.0.1:{port}/mine").ping()
    ports = free_port(), free_port()
    with pytest.raises(QueueUnavailable) as caught:
        Queue(f"redis+sentinel://:{SECRET}@127.0.0.1:{ports[0]},127.0.0.1:{ports[1]}/mine").ping()
    # one readable line with each sentinel's address
    line = str(caught.value)
    assert len(line.splitlines()) == 1 and len(line) < 300 and "redis." not in line and SECRET not in line
    assert all(f"127.0.0.1:{port} - " in line for port in ports) and "ConnectionError" in line


# servers that answer every command with an error

ERRORS = (
    "LOADING Redis is loading the dataset in memory",
    "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
    "CLUSTERDOWN The cluster is down",
    "WRONGPASS invalid username-password pair or user is disabled.",
    "TRYAGAIN Multiple keys request during rehashing of slot",
    "BUSY Redis is busy running a script.",
    "NOPERM this user has no permissions to run the command",
    "ERR unknown command",
)


@pytest.mark.parametrize("error", ERRORS)
def test_a_server_that_refuses_every_command_is_no_queue(error: str) -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def answer(client: socket.socket) -> None:
        with suppress(OSError), client, client.makefile("rb") as lines:
            for line in lines:
                # a command begins with the number of its words
                if line.startswith(b"*"):
                    client.sendall(f"-{error}\r\n".encode())

    def serve() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    queue = Queue(f"redis://127.0.0.1:{listener.getsockname()[1]}/0")
    try:
        started = time.monotonic()
        for act in (queue.ping, lambda: queue.broker.depth("vision"), lambda: queue.broker.claim("vision", "w", 1)):
            with pytest.raises(QueueUnavailable):
                act()
        assert time.monotonic() - started < 60  # about 2 s: a route answers soon
    finally:
        listener.close()


def test_sentinels_have_a_password_of_their_own_and_tls(tmp_path: Path) -> None:
    write_certificates(tmp_path)
    authority = str(tmp_path / "ca.pem")
    client: Any = connect(
        f"rediss+sentinel://user:one-{SECRET}@127.0.0.1:7001,127.0.0.1:7002/mine/3"
        f"?sentinel_username=asker&sentinel_password=two-{SECRET}&ssl_ca_certs={authority}"
    )
    pool = client.connection_pool
    given = pool.connection_kwargs
    assert (given["username"], given["password"], given["db"]) == ("user", f"one-{SECRET}", 3)
    assert pool.service_name == "mine" and issubclass(pool.connection_class, redis.SSLConnection)
    for port, sentinel in zip((7001, 7002), pool.sentinel_manager.sentinels, strict=True):
        asked = sentinel.connection_pool.connection_kwargs
        assert (asked["host"], asked["port"]) == ("127.0.0.1", port)
        assert (asked["username"], asked["password"], asked["db"]) == ("asker", f"two-{SECRET}", 0)
        assert issubclass(sentinel.connection_pool.connection_class, redis.SSLConnection)
        assert asked["ssl_ca_certs"] == given["ssl_ca_certs"] == authority
