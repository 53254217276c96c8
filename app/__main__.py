"""`strata serve`: the service, and with no REDIS_URL also its Redis; and its workers as children."""

from __future__ import annotations

import argparse
import ipaddress
import logging
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from urllib.parse import urlsplit

import uvicorn
from pydantic import ValidationError

from app.main import create_app
from app.routes.health import ready_workers
from app.supervisor import Supervisor, worker_environment, workers
from strata.cli.exits import code_of
from strata.core.errors import InvalidInput, PortInUse, RedisUnavailable, StrataError, UnsafeBind
from strata.core.profiles import GROUPS, load_profile
from strata.core.settings import Settings
from strata.queue.embedded import EmbeddedServer
from strata.queue.errors import QueueUnavailable
from strata.queue.queue import Queue
from strata.store.store import Store

log = logging.getLogger("strata")

GRACE_SECONDS = 5  # for requests in hand at shutdown


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal; returns the exit code."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", datefmt="%H:%M:%S"
    )
    try:
        return serve(*_parse(arguments))
    except StrataError as error:
        print(f"strata serve: {error}", file=sys.stderr, flush=True)
        return code_of(error) or 1


def serve(settings: Settings, with_workers: bool) -> int:
    """Run everything. Raises StrataError if it cannot; returns the exit code of a worker that gave up, else 0."""
    _refuse_unsafe_bind(settings)
    load_profile(settings.profile, settings.profiles_dir)
    with ExitStack() as stack:
        stack.enter_context(_signals())
        listening = stack.enter_context(_bind(settings.host, settings.port))
        embedded = None if settings.redis_url else stack.enter_context(EmbeddedServer(settings.data_dir))
        url = settings.redis_url or (embedded.url if embedded else "")
        queue = Queue(url)
        _ping(queue)
        app = create_app(settings, queue, Store(settings.store_uri))
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_config=None,
                log_level="warning",
                access_log=False,
                timeout_graceful_shutdown=GRACE_SECONDS,
            )
        )
        watch = Watch(server, queue, embedded, _address(listening, settings.host))
        children = workers() if with_workers else []
        environment = worker_environment(settings, url)
        with Supervisor(children, environment, watch.beat, watch.end) as supervisor:
            server.run(sockets=[listening])
        if supervisor.error is not None:
            raise supervisor.error
        if supervisor.code is None and not server.started:
            raise StrataError("the service could not start; the lines above say why")
        return supervisor.code or 0


class Watch:
    """Says when the service listens and when it is ready, and keeps the embedded server running."""

    def __init__(self, server: uvicorn.Server, queue: Queue, embedded: EmbeddedServer | None, address: str) -> None:
        self.server, self.queue, self.embedded, self.address = server, queue, embedded, address
        self.listening = self.ready = False

    def beat(self) -> None:
        """Look once. Raises StrataError if the embedded server cannot be started again."""
        if self.embedded is not None and self.embedded.ensure_running():
            log.warning("the embedded Redis had ended and runs again")
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


def _parse(arguments: Sequence[str] | None) -> tuple[Settings, bool]:
    try:
        defaults = Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = "_".join(str(part) for part in first["loc"]).upper()
        raise InvalidInput(f"setting {name}: {first['msg']}") from error
    parser = argparse.ArgumentParser(prog="strata serve", description=__doc__)
    parser.add_argument("--host", default=defaults.host, help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=_port, default=defaults.port, help="0: a free port (%(default)s)")
    parser.add_argument("--data-dir", type=Path, default=defaults.data_dir, help="%(default)s")
    parser.add_argument("--profile", default=defaults.profile, help="of requests that name none (%(default)s)")
    parser.add_argument("--threads", type=int, default=defaults.threads, help="a worker's CPU threads (%(default)s)")
    parser.add_argument("--no-workers", action="store_true", help="workers are started elsewhere")
    given = parser.parse_args(arguments)
    changed = {
        "host": given.host,
        "port": given.port,
        "data_dir": given.data_dir,
        "profile": given.profile,
        "threads": max(1, given.threads),
    }
    return defaults.model_copy(update=changed), not given.no_workers


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError("a port is a number from 0 to 65535")
    return number


def _refuse_unsafe_bind(settings: Settings) -> None:
    if not settings.api_key and not _is_loopback(settings.host):
        raise UnsafeBind(settings.host)


def _is_loopback(host: str) -> bool:
    """Whether all that the host stands for is loopback; what cannot be found out is not."""
    try:
        found = socket.getaddrinfo(host or "0.0.0.0", None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return bool(found) and all(ipaddress.ip_address(str(entry[4][0]).partition("%")[0]).is_loopback for entry in found)


@contextmanager
def _bind(host: str, port: int) -> Iterator[socket.socket]:
    """The socket, before anything else is started: a port in use is told within a moment."""
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
    """SIGTERM and SIGINT unwind the stack, so that everything that was started is stopped."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        for other in (signal.SIGTERM, signal.SIGINT):
            signal.signal(other, signal.SIG_IGN)  # a second one must not break the cleaning up
        raise SystemExit(0)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main())
