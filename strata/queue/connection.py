"""The connection to Redis or Valkey, and the translation of its client's errors into `QueueUnavailable`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import redis

from strata.addresses import redis_address
from strata.errors import QueueUnavailable

Connection = redis.Redis  # what `connect` gives and every part of the queue takes
P = ParamSpec("P")
Result = TypeVar("Result")
Class = TypeVar("Class")


def connect(url: str) -> Connection:
    """A client for a server's URL. It connects at the first command, and is safe to use from several threads.

    Raises AddressError if the URL has none of the forms of `redis_address`.
    """
    redis_address(url)
    # RESP2 replies have the same shape on all versions of the server and the client that we support
    return redis.Redis.from_url(
        url,
        decode_responses=True,
        protocol=2,
        socket_connect_timeout=5,
        socket_timeout=20,
        health_check_interval=30,
    )


def translate_errors(cls: type[Class]) -> type[Class]:
    """Class decorator: every public method raises QueueUnavailable where the Redis client raises an error."""
    # private methods are only called by public ones
    for name, method in list(vars(cls).items()):
        if inspect.isfunction(method) and not name.startswith("_"):
            setattr(cls, name, _translated(method))
    return cls


def _translated(method: Callable[P, Result]) -> Callable[P, Result]:
    @functools.wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> Result:
        try:
            return method(*args, **kwargs)
        except redis.RedisError as error:
            raise QueueUnavailable(str(error) or type(error).__name__) from error

    return call
