"""The connection to Redis or Valkey, and the translation of its client's errors into `QueueUnavailable`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar, cast

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from strata.addresses import redis_address
from strata.errors import QueueUnavailable

_COMMON: Mapping[str, Any] = {
    "decode_responses": True,
    # RESP2 replies have the same shape on all versions of the server and the client that we support
    "protocol": 2,
    "socket_connect_timeout": 5,
    "socket_timeout": 20,
    "health_check_interval": 30,
}
Connection = redis.Redis  # what `connect` gives and every part of the queue takes
P = ParamSpec("P")
Result = TypeVar("Result")
Class = TypeVar("Class")


class _SentinelClient(redis.Redis):
    """A client of one sentinel, whose representation is in the message if no sentinel knows the service's server."""

    def __repr__(self) -> str:
        kept = self.connection_pool.connection_kwargs
        return f"{kept['host']}:{kept['port']}"


def connect(url: str) -> Connection:
    """A client for a server's URL. It connects at the first command, and is safe to use from several threads.

    Of sentinels it asks for the server's address at every new connection, so that it follows a failover. Raises
    AddressError if the URL has none of the forms of `redis_address`.
    """
    address = redis_address(url)
    options: dict[str, Any] = {**_COMMON} | {name: _value(name, text) for name, text in address.options.items()}
    options |= {"retry": _retry(), "username": address.username, "password": address.password, "db": address.database}
    # a sentinel has no databases, and a user and a password of its own
    asked = {"username": options.pop("sentinel_username", None), "password": options.pop("sentinel_password", None)}
    if address.path:
        return redis.Redis(unix_socket_path=address.path, **options)
    options |= {"ssl": True} if address.tls else {}
    if address.sentinel:
        untyped: Any = Sentinel  # the client has no types for it
        sentinel = untyped([], **options)
        asking = options | asked | {"db": 0, "retry": _retry()}
        sentinel.sentinels = [_SentinelClient(host=host, port=port, **asking) for host, port in address.hosts]
        return cast(Connection, sentinel.master_for(address.service))
    host, port = address.hosts[0]
    return redis.Redis(host=host, port=port, **options)


def _retry() -> Retry:
    """Two more attempts within half a second, for what a new connection cures; the client's own take half a minute.

    A caller that can wait longer waits by itself, and one that cannot gets its answer soon.
    """
    return Retry(ExponentialBackoff(cap=0.2, base=0.05), 2)


def _value(name: str, text: str) -> str | int | bool:
    """The value of an option of a Redis URL."""
    if name == "ssl_check_hostname":
        return text.lower() not in ("0", "false", "no", "off")
    return int(text) if text.isdigit() else text


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
