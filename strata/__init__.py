"""The library that the service, the workers and training share.

Its packages form layers: core; queue, store and client; jobs, snapshots and shards; data; cli. Each imports only layers
before it, and none imports FastAPI or torch. Read `strata/core/records.py` first, then docs/architecture.md.

`from strata import describe` describes images in this process; `Client` and `AsyncClient` call the service. They are
imported when they are used first, so that `import strata` is fast; `__init__.pyi` has their types.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PLACES = {
    "AsyncClient": "strata.client",
    "Client": "strata.client",
    "Describer": "strata.describing",
    "describe": "strata.describing",
}


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'strata' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PLACES])
