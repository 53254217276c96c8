"""The process of `strata serve`: it runs the service, an embedded Redis without REDIS_URL, and workers as children."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from app.http.audit import audit_file
from app.http.networks import is_loopback
from app.supervisor import Child, Supervisor, process_groups, worker_environment, workers
from strata.addresses import redis_address, without_secrets
from strata.components import load
from strata.core import GROUPS, Settings, load_profile
from strata.errors import PortInUse, QueueUnavailable, RedisUnavailable, StrataError, UnsafeBind
from strata.forks import Template
from strata.garbage import collector_spared
from strata.jobs import pair
from strata.keys import StoredKeys
from strata.processes import leaving_on
from strata.queue import EmbeddedServer, Queue
from strata.store import Store, import_ahead, reason_of
from strata.telemetry import begin_traces

if TYPE_CHECKING:
    from app.http.serving import HttpServer

log = logging.getLogger("strata")

BACKLOG = 2048  # connections that wait to be accepted
UNACKNOWLEDGED_MS = 60_000  # after which a connection ends, if its client acknowledges nothing that was sent


def serve(
    settings: Settings, with_workers: bool, template: Template | None = None, children: Sequence[Child] = ()
) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit code of a worker that cannot be restarted, else 0.

    template: what workers are forked from, if there is one; children: workers in place of those of the default profile.
    Raises StrataError if the service cannot start, or if its embedded server ended and cannot be restarted.
    """
    # check the settings before anything is started
    _refuse_unsafe_bind(settings)
    profile = load_profile(settings.profile, settings.profiles_dir)
    with ExitStack() as stack:
        stack.enter_context(leaving_on(signal.SIGTERM, signal.SIGINT, code=0))
        stack.enter_context(audit_file(settings.audit_log))
        # bind the socket first: if the port is in use, nothing has been started yet
        listening = stack.enter_context(_bind(settings.host, settings.port))
        # Redis: that of REDIS_URL, else an embedded server that ends with this process
        embedded = None if settings.redis_url else stack.enter_context(EmbeddedServer(settings.data_dir))
        url = settings.redis_url.get_secret_value() if settings.redis_url else embedded.url if embedded else ""
        queue = Queue(url)
        store = _paired_store(settings, queue)
        # the supervisor's thread starts and restarts the workers while this thread imports the service and serves
        if with_workers:
            children = children or workers(process_groups(profile))
        watch = Watch(queue, embedded, _address(listening, settings.host), children)
        supervisor = Supervisor(children, worker_environment(settings, url), watch.check, watch.end, template)
        with supervisor:
            server = _http_server(settings, queue, store)
            watch.look_at(server)
            with collector_spared():
                server.run(sockets=[listening])
        if supervisor.error is not None:
            raise supervisor.error
        if supervisor.code is None and not server.started:
            raise StrataError("the service could not start; the log lines above have the reason")
        return supervisor.code or 0


def _http_server(settings: Settings, queue: Queue, store: Store) -> HttpServer:
    """The REST service. What it consists of is imported here: the workers load their models meanwhile.

    Raises InvalidInput if a package is not installed.
    """
    import_ahead()  # first: what is imported next would import pandas
    load("app.main", "all")
    from app.http.serving import HttpServer, connection_limits
    from app.main import create_app

    begin_traces("api")
    app = create_app(settings, queue, store)
    app.state.services.decoder.start()
    return HttpServer(app, connection_limits())


class Watch:
    """Prints when the service listens and when it is ready, and restarts the embedded server when it has ended."""

    def __init__(self, queue: Queue, embedded: EmbeddedServer | None, address: str, children: Sequence[Child]) -> None:
        self.queue, self.embedded, self.address, self.children = queue, embedded, address, children
        self.listening = self.ready = False
        self._server: HttpServer | None = None
        self._ended = False

    def look_at(self, server: HttpServer) -> None:
        """The service begins: tell when it listens, and end it when `end` is called, or was called already."""
        self._server = server
        if self._ended:
            server.should_exit = True

    def check(self) -> None:
        """Check once; called several times a second. Raises StrataError if the embedded server cannot be restarted."""
        if self.embedded is not None and self.embedded.ensure_running():
            log.warning("the embedded Redis had ended and was restarted")
        if self._server is not None and self._server.started and not self.listening:
            self.listening = True
            print(f"Strata listens on {self.address}", flush=True)
        # ready: each group has a worker that has loaded its models
        if self.listening and not self.ready:
            try:
                # the heartbeats of workers that were killed with the last service have not expired yet
                own = {child.process.pid for child in self.children if child.process is not None}
                ready = self.queue.heartbeats.ready_workers(own if self.children else None)
            except QueueUnavailable:
                return
            if all(ready[group] for group in GROUPS):
                self.ready = True
                print(f"Strata is ready on {self.address}", flush=True)

    def end(self) -> None:
        """Stop serving."""
        self._ended = True
        if self._server is not None:
            self._server.should_exit = True


def _refuse_unsafe_bind(settings: Settings) -> None:
    if settings.api_key is None and not is_loopback(settings.host) and not _has_stored_key(settings):
        raise UnsafeBind(settings.host)
    if settings.api_key is None and "STRATA_API_KEY" in os.environ:
        log.warning("STRATA_API_KEY is empty: requests need no key, unless the store has one")


def _has_stored_key(settings: Settings) -> bool:
    """Whether the store has a key. Raises StrataError if it cannot be read: then it is not known."""
    try:
        return StoredKeys(Store(settings.store_uri)).exist()
    except OSError as error:
        reason = without_secrets(reason_of(error))
        raise StrataError(f"the list of keys cannot be read, and STRATA_API_KEY is not set: {reason}") from error


@contextmanager
def _bind(host: str, port: int) -> Iterator[socket.socket]:
    """The listening socket. Raises PortInUse."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        raise PortInUse(host, port, error.strerror or str(error)) from error
    # send the body of a response without waiting until the client has acknowledged its head, which Linux delays by 40
    # ms; accepted connections inherit this, and asyncio does not set it, because it does not know their protocol
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # a client that went away without a word, so that a stream of events to it ends; Linux alone has it
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS)
    with listening:
        yield listening


def _address(listening: socket.socket, host: str) -> str:
    port = listening.getsockname()[1]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _paired_store(settings: Settings, queue: Queue) -> Store:
    """The store, with its mark, which Redis remembers. Raises RedisUnavailable, and OtherStore if that is another."""
    store = Store(settings.store_uri, settings.moved_roots)
    try:
        queue.ping()
        pair(queue, store)
    except QueueUnavailable as error:
        raise RedisUnavailable(f"Redis at {redis_address(queue.url)} cannot be reached: {error}") from error
    except OSError as error:  # requests are answered with 503 until it is back; the scheduler pairs the two then
        log.warning("the store cannot be used: %s", without_secrets(str(error)))
    return store
