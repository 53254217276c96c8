"""The embedded server: a Valkey in the data directory, for machines without Redis.

Strata talks to it as to the Redis of REDIS_URL. The server is a child process that ends with its parent, even if the
parent is killed; its data are restored from its append-only file.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from threading import RLock
from types import TracebackType
from typing import IO

import redis

from strata.errors import DataDirectoryError, RedisUnavailable
from strata.queue import append_only
from strata.queue.server_process import (
    STOP_SECONDS,
    check_version,
    client,
    end_orphan,
    find_server,
    shut_down,
    socket_url,
    spawn,
)

log = logging.getLogger(__name__)

MAX_SOCKET_PATH = 100  # bytes; the system's limit is 104 to 108
START_SECONDS = 30.0  # to wait for an answer; a server that answers that it is loading its file may take longer


class _NotStarted(RedisUnavailable):
    """The server has not answered. reason: the last line of its log."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the embedded server did not start: {reason}")
        self.reason = reason


class _ServerEnded(_NotStarted):
    """The server has ended by itself before it answered."""


class EmbeddedServer:
    """A Valkey server in a data directory. Use as a context manager, or call start and stop.

    There is one instance for each data directory. `url` is empty until it is started. options: further options of the
    server's command line, which are read at each start.
    """

    def __init__(self, data_dir: Path, options: Mapping[str, str] | None = None) -> None:
        self.data_dir = Path(data_dir).absolute()
        self.options = dict(options or {})
        self.url = ""
        self._guard = RLock()
        self._lock: IO[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._binary = Path()

    def __enter__(self) -> EmbeddedServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        """The id of the server's process; None if it does not run."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self) -> None:
        """Lock the data directory, end a server without a parent, start a new one, and wait until it answers.

        Raises DataDirectoryError if the directory cannot be used, and RedisUnavailable if no server can be started.
        """
        with self._guard:
            self._binary = find_server()
            check_version(self._binary)
            # the lock comes first: whoever holds it may end a server that still listens there
            self._lock = _lock(self.data_dir)
            try:
                (self.data_dir / "redis").mkdir(mode=0o700, exist_ok=True)
                end_orphan(_socket_path(self.data_dir))
                self._launch()
            except OSError as error:  # a full or read-only disk, or something else lies at one of the paths
                self.stop()
                raise _unusable(self.data_dir, error) from None
            except BaseException:
                self.stop()
                raise

    def ensure_running(self) -> bool:
        """Start the server again if it has ended; True if it had. Call it regularly between start and stop.

        Raises RedisUnavailable if it cannot be started, and DataDirectoryError.
        """
        with self._guard:
            if self._lock is None or self.pid is not None:
                return False
            try:
                self._launch()
            except OSError as error:
                raise _unusable(self.data_dir, error) from None
            return True

    def stop(self) -> None:
        """Shut the server down, kill it if that takes too long, and unlock the directory. Harmless if not started."""
        with self._guard:
            process, self._process = self._process, None
            if process is not None:
                shut_down(self.url)
                try:
                    process.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                # a disk that is full keeps no seal, and the next start compares nothing
                if process.returncode == 0:
                    with contextlib.suppress(OSError):
                        append_only.seal(self.data_dir / "redis")
            if self._lock is not None:
                _remove_socket(self.data_dir)
                self._lock.close()
                self._lock = None

    def _launch(self) -> None:
        """Start a server; if its append-only file is damaged, without that: what the store has is enough to go on."""
        folder = self.data_dir / "redis"
        fault = append_only.fault_of(folder)
        if not fault:
            try:
                self._launch_once()
                return
            except _ServerEnded as error:
                fault = error.reason
        # if the server starts without its file, the file was the cause
        aside = append_only.set_aside(folder)
        try:
            self._launch_once()
        except RedisUnavailable:
            if aside:
                append_only.put_back(folder, aside)
            raise
        if aside:
            line = "the append-only file was damaged (%s) and is now %s; the queue follows from the store"
            log.warning(line, fault, aside)

    def _launch_once(self) -> None:
        _remove_socket(self.data_dir)
        append_only.unseal(self.data_dir / "redis")
        path = _make_socket_path(self.data_dir)
        self.url = socket_url(path)
        self._process = spawn([str(self._binary), *_options(self.data_dir / "redis", path, self.options)])
        self._wait_until_ready(self._process)

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        connection = client(self.url)
        deadline = time.monotonic() + START_SECONDS
        try:
            while process.poll() is None and time.monotonic() < deadline:
                try:
                    connection.ping()
                    return
                except redis.BusyLoadingError:  # it reads its append-only file
                    deadline = time.monotonic() + START_SECONDS
                except redis.RedisError:  # it does not listen yet
                    pass
                time.sleep(0.02)
        finally:
            connection.close()
        code = process.poll()
        self.stop_child(process)
        # somebody who kills it, or the system when memory lacks, says nothing about its files
        ended = code is not None and -code not in (signal.SIGKILL, signal.SIGTERM)
        raise (_ServerEnded if ended else _NotStarted)(_last_line(self.data_dir))

    @staticmethod
    def stop_child(process: subprocess.Popen[bytes]) -> None:
        """Kill a child that does not end by itself."""
        if process.poll() is None:
            process.kill()
            process.wait()


def _options(folder: Path, socket_path: str, more: Mapping[str, str] = {}) -> list[str]:
    options = {
        "port": "0",
        "unixsocket": socket_path,
        "unixsocketperm": "700",
        "dir": str(folder),
        "logfile": str(folder / "server.log"),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        **more,
    }
    return [word for name, value in options.items() for word in (f"--{name}", value)]


def _lock(data_dir: Path) -> IO[str]:
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (data_dir / "lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise _unusable(data_dir, error) from None
    # the system releases the lock when the process ends, however it ends
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.seek(0)
        holder = lock.read().strip() or "unknown"
        lock.close()
        raise DataDirectoryError(
            data_dir, f"the data directory {data_dir} is in use by process {holder}; stop it or set STRATA_DATA_DIR"
        ) from None
    # write the process id for the error message that another process gets
    try:
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
    except OSError as error:
        raise _unusable(data_dir, error) from None
    return lock


def _unusable(data_dir: Path, error: OSError) -> DataDirectoryError:
    return DataDirectoryError(data_dir, f"cannot use the data directory {data_dir}: {error}")


def _make_socket_path(data_dir: Path) -> str:
    """The path of the server's socket: data_dir/redis.sock, or if that is too long, a short path to which it links."""
    # the length of a Unix socket's path is limited
    direct = data_dir / "redis.sock"
    if len(os.fsencode(direct)) <= MAX_SOCKET_PATH:
        return str(direct)
    short = Path(tempfile.mkdtemp(prefix="strata-")) / "redis.sock"  # mode 0700
    direct.symlink_to(short)
    return str(short)


def _socket_path(data_dir: Path) -> str:
    direct = data_dir / "redis.sock"
    return str(direct.readlink() if direct.is_symlink() else direct)


def _remove_socket(data_dir: Path) -> None:
    direct = data_dir / "redis.sock"
    if direct.is_symlink():
        target = direct.readlink()
        target.unlink(missing_ok=True)
        # remove the folder that `_make_socket_path` created, and no other
        if target.parent.name.startswith("strata-") and target.parent.is_dir():
            with contextlib.suppress(OSError):
                target.parent.rmdir()
    direct.unlink(missing_ok=True)


def _last_line(data_dir: Path) -> str:
    path = data_dir / "redis" / "server.log"
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    return next((line for line in reversed(lines) if line.strip()), "it has written no log")
