"""A receiver of events on loopback, and the schemas that OpenLineage has published for them.

The schemas are those of OpenLineage/OpenLineage, folder spec, commit 8f02abfb7 of 20 August 2026 (Apache-2.0).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

SCHEMAS = Path(__file__).parent / "schemas"
EVENT = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
Event = dict[str, Any]

REGISTRY: Registry[Any] = Registry().with_resources(
    (content["$id"], Resource.from_contents(content))
    for content in (json.loads(file.read_text(encoding="utf-8")) for file in SCHEMAS.glob("*.json"))
)


@dataclass
class Received:
    """What a receiver was sent. url: its address; keys: the headers `Authorization`."""

    url: str
    events: list[Event] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)


@pytest.fixture
def received() -> Iterator[Received]:
    """A receiver that takes every event."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/api/v1/lineage":
                found.events.append(json.loads(body))
                found.keys.append(self.headers["Authorization"])
            self.send_response(201)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = Received(f"http://127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield found
        server.shutdown()


@pytest.fixture(autouse=True)
def nothing_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The variables and files of this machine ask for no events."""
    import os

    for name in list(os.environ):
        if name.startswith("OPENLINEAGE"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def check(event: Event) -> None:
    """Check an event and each of its facets by the published schemas; every facet must have one of those here."""
    _check(EVENT, event)
    facets = [*event["run"]["facets"].values(), *event["job"]["facets"].values()]
    for kind in ("inputs", "outputs"):
        for data in event.get(kind, []):
            facets += [*data.get("facets", {}).values(), *data.get(f"{kind[:-1]}Facets", {}).values()]
    for facet in facets:
        _check(facet["_schemaURL"], facet)


def _check(schema: str, content: Any) -> None:
    checker = Draft202012Validator.FORMAT_CHECKER
    Draft202012Validator({"$ref": schema}, registry=REGISTRY, format_checker=checker).validate(content)


def names(data: list[Event]) -> list[tuple[str, str]]:
    """The names of data sets with their namespaces."""
    return [(one["namespace"], one["name"]) for one in data]
