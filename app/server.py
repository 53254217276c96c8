"""The body of `strata serve`: the service; with no REDIS_URL also its Redis; and its workers as child processes."""

from __future__ import annotations

import ipaddress
import logging
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI

from app.main import create_app
from app.routes.health import ready_workers
from app.supervisor import Supervisor, worker_environment, workers
from strata.core import GROUPS, Settings, load_profile
from strata.errors import PortInUse, QueueUnavailable, RedisUnavailable, StrataError, UnsafeBind
from strata.queue import EmbeddedServer, Queue
from strata.store import Store

log = logging.getLogger("strata")

GRACE_SECONDS = 5  # for requests that are being answered at shutdown


def serve(settings: Settings, with_workers: bool) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code of a worker that gave up, else 0.

    Raises StrataError if the service cannot start, or loses its embedded server for good.
    """
    _refuse_unsafe_bind(settings)
    load_profile(settings.profile, settings.profiles_dir)
    with ExitStack() as stack:
        stack.enter_context(_signals())
        # The socket comes first: if the port is in use, nothing has been started yet.
        listening = stack.enter_context(_bind(settings.host, settings.port))
        # Redis: that of REDIS_URL, else an embedded server that ends with us.
        embedded = None if settings.redis_url else stack.enter_context(EmbeddedServer(settings.data_dir))
        url = settings.redis_url or (embedded.url if embedded else "")
        queue = Queue(url)
        _ping(queue)
        # The supervisor's thread starts the workers and watches them while this thread serves requests.
        server = _http_server(create_app(settings, queue, Store(settings.store_uri)))
        watch = Watch(server, queue, embedded, _address(listening, settings.host))
        children = workers() if with_workers else []
        with Supervisor(children, worker_environment(settings, url), watch.beat, watch.end) as supervisor:
            server.run(sockets=[listening])
        if supervisor.error is not None:
            raise supervisor.error
        if supervisor.code is None and not server.started:
            raise StrataError("the service could not start; the lines above say why")
        return supervisor.code or 0


def _http_server(app: FastAPI) -> uvicorn.Server:
    return uvicorn.Server(
        uvicorn.Config(
            app, log_config=None, log_level="warning", access_log=False, timeout_graceful_shutdown=GRACE_SECONDS
        )
    )


class Watch:
    """Prints when the service listens and when it is ready, and keeps the embedded server running."""

    def __init__(self, server: uvicorn.Server, queue: Queue, embedded: EmbeddedServer | None, address: str) -> None:
        self.server, self.queue, self.embedded, self.address = server, queue, embedded, address
        self.listening = self.ready = False

    def beat(self) -> None:
        """Check once, several times a second. Raises StrataError if the embedded server cannot be started again."""
        if self.embedded is not None and self.embedded.ensure_running():
            log.warning("the embedded Redis had ended and was started again")
        if self.server.started and not self.listening:
            self.listening = True
            print(f"Strata listens on {self.address}", flush=True)
        if self.listening and not self.ready:
            try:
                ready = ready_workers(self.queue)
            except QueueUnavailable:
                return
            if all(ready[group] for group in GROUPS):
                self.ready = True
                print(f"Strata is ready on {self.address}", flush=True)

    def end(self) -> None:
        """Stop serving."""
        self.server.should_exit = True


def _refuse_unsafe_bind(settings: Settings) -> None:
    if not settings.api_key and not _is_loopback(settings.host):
        raise UnsafeBind(settings.host)


def _is_loopback(host: str) -> bool:
    """Whether every address of the host is loopback; False if its addresses cannot be looked up."""
    try:
        found = socket.getaddrinfo(host or "0.0.0.0", None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return bool(found) and all(ipaddress.ip_address(str(entry[4][0]).partition("%")[0]).is_loopback for entry in found)


@contextmanager
def _bind(host: str, port: int) -> Iterator[socket.socket]:
    """The listening socket. Raises PortInUse."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.create_server(address[:2], family=family, backlog=2048)
    except OSError as error:
        raise PortInUse(host, port, error.strerror or str(error)) from error
    with listening:
        yield listening


def _address(listening: socket.socket, host: str) -> str:
    port = listening.getsockname()[1]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _ping(queue: Queue) -> None:
    try:
        queue.ping()
    except QueueUnavailable as error:
        place = urlsplit(queue.url)
        shown = f"{place.scheme}://{place.hostname or ''}{f':{place.port}' if place.port else ''}{place.path}"
        raise RedisUnavailable(f"Redis at {shown} cannot be reached: {error}") from error


@contextmanager
def _signals() -> Iterator[None]:
    """Let SIGTERM and SIGINT raise SystemExit, so that every context manager stops what it has started."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        for other in (signal.SIGTERM, signal.SIGINT):
            signal.signal(other, signal.SIG_IGN)  # a second signal must not interrupt the shutdown
        raise SystemExit(0)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
