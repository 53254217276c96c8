"""Folders and buckets through fsspec: no listing is kept, and every fault of a storage is an OSError."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import fsspec

# these raise exceptions of their own: no credentials, an endpoint that is away, a connection that breaks
LIBRARIES = frozenset({"aiobotocore", "aiohttp", "botocore", "gcsfs", "google"})

P = ParamSpec("P")
Answer = TypeVar("Answer")


def file_system(uri: str) -> tuple[Any, str]:
    """The file system of a URI and the path in it. Raises ImportError or ValueError where there is none for it.

    Other processes write what is read here: a listing that was kept would deny files that are there by now.
    """
    return cast("tuple[Any, str]", fsspec.url_to_fs(uri, use_listings_cache=False))


def as_os_error(act: Callable[P, Answer]) -> Callable[P, Answer]:
    """A function that raises OSError where a storage's library raised something else."""

    @functools.wraps(act)
    def told(*args: P.args, **kwargs: P.kwargs) -> Answer:
        try:
            return act(*args, **kwargs)
        except Exception as error:
            library = type(error).__module__.partition(".")[0]
            if isinstance(error, OSError) or library not in LIBRARIES:
                raise
            raise OSError(f"{type(error).__name__}: {error}") from error

    return told
