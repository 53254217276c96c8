"""Server-sent events, as the HTML standard (section 9.2) parses them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class ServerSentEvent:
    """One event: its id to resume after (None if never given), its name, and its data as text."""

    id: str | None
    event: str
    data: str


def parse_events(chunks: Iterable[bytes]) -> Iterator[ServerSentEvent]:
    """The events of a stream's bytes. An event that the stream breaks off in the middle of is left out."""
    last_id: str | None = None
    name, data = "", list[str]()
    for line in _lines(chunks):
        if not line:
            if data:
                yield ServerSentEvent(last_id, name or "message", "\n".join(data))
            name, data = "", []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "id" and "\0" not in value:
            last_id = value
        elif field == "event":
            name = value
        elif field == "data":
            data.append(value)


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Whole lines, split at line feeds only: str.splitlines would also split JSON at U+2028 and its like."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line.removesuffix(b"\r").decode("utf-8", "replace") for line in lines)
