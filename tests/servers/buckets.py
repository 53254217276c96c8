"""A server of S3 for tests, and file systems for one test: no earlier one is used, and no session outlives it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from fsspec.asyn import sync
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem

END_SECONDS = 60.0


@contextmanager
def s3_server() -> Iterator[str]:
    """The URL of an S3-compatible server in this process."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    yield f"http://{host}:{port}"
    moto.stop()


@contextmanager
def fresh_sessions() -> Iterator[None]:
    """A block with file systems of S3 of its own, whose sessions end with it."""
    end_sessions()
    yield
    end_sessions()


def end_sessions() -> None:
    """End the sessions of all file systems that fsspec keeps, each in its event loop, and forget these file systems.

    s3fs itself ends a session when its file system is collected as garbage, in whatever event loop runs then. If that
    is another one than the session's, asyncio logs an error: in the logs of a later test.
    """
    for client in list(S3FileSystem._cache.values()):
        end_session(client)
    S3FileSystem.clear_instance_cache()


def end_session(client: S3FileSystem) -> None:
    """End the session of one file system; what s3fs does later has no effect then."""
    if client._s3 is not None:
        sync(client.loop, client._s3creator.__aexit__, None, None, None, timeout=END_SECONDS)
