"""Who has sent a request: one caller for each address, whatever its headers say."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fastapi import Request

from app.dependencies import caller_of
from app.http.limits import ConnectionLimits
from app.http.serving import HttpServer, Proxies
from strata.keys import OPEN


def caller(host: str | None, key: str = "", **headers: str) -> str:
    """The caller of a request from a host. key: the id of the key that was found for it."""
    scope: dict[str, Any] = {
        "type": "http",
        "client": (host, 1) if host is not None else None,
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "strata.access": replace(OPEN, key_id=key),
    }
    return asyncio.run(caller_of(cast(Any, Request(scope))))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("testclient", "testclient", True),
        (None, "", True),
    ],
)
def test_addresses(one: str | None, other: str | None, same: bool) -> None:
    assert (caller(one) == caller(other)) == same


def test_headers_make_no_other_caller() -> None:
    assert caller("10.0.0.1", authorization="Bearer a") == caller("10.0.0.1", authorization="Bearer b")


def test_the_key_is_part_of_the_caller_and_cannot_be_read_from_it() -> None:
    assert caller("10.0.0.1", "one key") != caller("10.0.0.1", "another key")
    assert "key" not in caller("10.0.0.1", "one key") and len(caller("10.0.0.1", "one key")) == 16


def test_a_header_that_anybody_can_send_is_believed_from_a_named_proxy_only(monkeypatch: pytest.MonkeyPatch) -> None:
    app: Any = SimpleNamespace(state=SimpleNamespace(services=SimpleNamespace(stopping=threading.Event())))
    monkeypatch.delenv("FORWARDED_ALLOW_IPS", raising=False)
    assert not isinstance(HttpServer(app, ConnectionLimits()).config.app, Proxies)
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "10.0.0.1")
    made = HttpServer(app, ConnectionLimits()).config.app
    assert isinstance(made, Proxies) and "10.0.0.1" in made.trusted_hosts and "10.0.0.2" not in made.trusted_hosts
