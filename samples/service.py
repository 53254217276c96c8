"""A temporary service for a demo, a test or a measurement: `strata serve` on a free port, stopped at the end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from strata.client import Client
from strata.components import strata_command
from strata.errors import ProcessFailed, ServiceUnavailable
from strata.processes import leaving_on

READY_SECONDS = 600.0
STOP_SECONDS = 30.0
OURS = ("REDIS_URL", "STRATA_")  # the user's own settings are not passed on to this service
KEPT = ("STRATA_MODELS",)


@contextmanager
def running_service(folder: Path, shard_root: Path, **settings: str) -> Iterator[Client]:
    """Start a service and yield a client once it is ready. Data lie in folder/data, the log in folder/serve.log.

    settings: more settings, such as lease_seconds="4". Raises ProcessFailed if the service ends, ServiceUnavailable if
    it is not ready in time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # let the system choose a free port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # without the user's settings, but with the folder of fetched models
    environment = {name: value for name, value in os.environ.items() if name in KEPT or not name.startswith(OURS)}
    environment |= {
        "STRATA_DATA_DIR": str(folder / "data"),
        "STRATA_PORT": str(port),
        "STRATA_SHARD_ROOTS": f'["{shard_root}"]',
        **{f"STRATA_{name.upper()}": value for name, value in settings.items()},
    }
    # it also ends if this process is ended by SIGTERM
    with leaving_on(signal.SIGTERM):
        with (folder / "serve.log").open("wb") as log:
            server = subprocess.Popen(
                strata_command("serve"),
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            with Client(f"http://127.0.0.1:{port}", timeout=300) as client:
                _await_ready(client, server, folder / "serve.log")
                yield client
        finally:
            _stop(server)


def _await_ready(client: Client, server: subprocess.Popen[bytes], log: Path) -> None:
    begin = time.monotonic()
    while not client.ready():
        if server.poll() is not None:
            last = log.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
            raise ProcessFailed(f"strata serve ended: {last}", server.returncode)
        if time.monotonic() - begin > READY_SECONDS:
            raise ServiceUnavailable(f"strata serve was not ready in {READY_SECONDS:.0f} s; see {log}")
        time.sleep(0.1)


def _stop(server: subprocess.Popen[bytes]) -> None:
    """Send SIGTERM and wait; then kill what is left of its process group."""
    server.terminate()
    with suppress(subprocess.TimeoutExpired):
        server.wait(STOP_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()
