"""File systems of S3 for one test: what earlier tests have made is not used, and no session outlives the test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fsspec.asyn import sync
from s3fs import S3FileSystem

END_SECONDS = 60.0


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
