"""The prefix of the API's addresses: what lies below it needs a key."""

from __future__ import annotations

from starlette.types import Scope

V1 = "/v1"


def is_below_v1(scope: Scope) -> bool:
    """Whether a connection is a request below V1."""
    return scope["type"] == "http" and f"{scope['path']}/".startswith(f"{scope.get('root_path', '')}{V1}/")
