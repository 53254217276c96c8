"""The storage of a URI: its file system, and the time limits after which a server that does not answer is given up."""

from __future__ import annotations

import os
from typing import Any

import fsspec

from strata.egress import EgressRules

CONNECT_SECONDS, SILENT_SECONDS = 10.0, 30.0  # to connect to a storage's server; without a byte from it
SLOWEST_WRITE = 64 * 2**10  # bytes per second, with which a server must take what is written
CONNECTIONS = 64  # to a storage's server at a time; botocore's own limit of 10 would slow down the reader
ATTEMPTS = 2  # of botocore for a request to S3, and of s3fs, which calls botocore


def file_system(uri: str, rules: EgressRules | None = None) -> tuple[Any, str]:
    """The file system of a URI and the path in it. Raises ImportError or ValueError if none is known for the URI.

    rules: what may be connected to for a web address; None: its own host may be private, as the operator has named it.

    Listings are not cached, because other processes write files: a cached listing would not have them. A server that
    does not answer is given up after a while, with an OSError (`_limits`).
    """
    if _scheme(uri) in ("http", "https"):
        from strata.store.web_files import WebFiles  # aiohttp is an extra

        return WebFiles(rules or EgressRules.of_root(uri), **_limits(uri)), uri
    found: tuple[Any, str] = fsspec.url_to_fs(uri, use_listings_cache=False, **_limits(uri))
    if uri.startswith(("s3://", "s3a://")):
        found[0].retries = ATTEMPTS
    return found


def write_limit(storage: Any, size: int) -> dict[str, float]:
    """The option by which fsspec limits a call that writes so many bytes, where the file system has one."""
    attempts = ATTEMPTS * ATTEMPTS  # s3fs and botocore
    seconds = attempts * (CONNECT_SECONDS + SILENT_SECONDS + size / SLOWEST_WRITE)
    return {"timeout": seconds} if getattr(storage, "async_impl", False) else {}


def whole_file(storage: Any) -> dict[str, int]:
    """The option by which s3fs reads a whole file with one request: without it, it asks for the size first."""
    protocols = storage.protocol if isinstance(storage.protocol, tuple | list) else (storage.protocol,)
    return {"max_concurrency": 1} if "s3" in protocols else {}


def _limits(uri: str) -> dict[str, Any]:
    """Options with time limits for the file system of a web server or of S3; what fsspec's configuration sets stays.

    The whole of a transfer has no limit: it may be large. The libraries' own limits are 5 minutes for a transfer from a
    web server, and for S3 25 attempts, which take longer. aiohttp counts no time before it has sent what is
    written: `write_limit` bounds that time.
    """
    scheme = _scheme(uri)
    if scheme in ("http", "https"):
        import aiohttp  # an extra

        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENT_SECONDS)
        return {"client_kwargs": {"timeout": timeout, **_configured(("http", "https"), "client_kwargs")}}
    if scheme in ("s3", "s3a"):
        limits = {"connect_timeout": CONNECT_SECONDS, "read_timeout": SILENT_SECONDS}
        limits["max_pool_connections"] = CONNECTIONS
        retries = {} if "AWS_MAX_ATTEMPTS" in os.environ else {"retries": {"total_max_attempts": ATTEMPTS}}
        return {"config_kwargs": {**limits, **retries, **_configured(("s3", "s3a"), "config_kwargs")}}
    return {}


def _scheme(uri: str) -> str:
    """The scheme of a URI; empty for a path, and for a file system inside another."""
    return uri.partition("://")[0].lower() if "://" in uri and "::" not in uri else ""


def _configured(protocols: tuple[str, ...], name: str) -> dict[str, Any]:
    """A group of options for a file system in the user's configuration of fsspec."""
    found: dict[str, Any] = {}
    for protocol in protocols:
        found |= fsspec.config.conf.get(protocol, {}).get(name) or {}
    return found
