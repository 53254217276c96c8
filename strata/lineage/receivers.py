"""Whom events are told: a URL, a file, or what the client's own variables and files name; and the thread that sends.

The client is openlineage-python, of the extra `lineage`. Its variables are OPENLINEAGE_URL (with OPENLINEAGE_API_KEY
and OPENLINEAGE_ENDPOINT), OPENLINEAGE_CONFIG and those that begin with OPENLINEAGE__TRANSPORT; its file is
openlineage.yml, here or in ~/.openlineage.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import strata
from strata.addresses import service_url, without_secrets
from strata.errors import InvalidInput

MOST_WAITING = 1000  # events that wait to be sent; those of a service that finds no receiver must not fill its memory
CLOSE_SECONDS = 5.0  # for which the end of a command waits for its events
EXTRA = "events need openlineage-python: pip install 'strata[lineage]'"

Make = Callable[[], Any]  # makes an event, in the thread that sends it
Tell = Callable[[str], object]


def is_asked(environment: Mapping[str, str]) -> bool:
    """Whether the client's variables or files ask for events. Nothing of the client is imported for it."""
    if environment.get("OPENLINEAGE_DISABLED", "").strip().lower() == "true":
        return False
    if environment.get("OPENLINEAGE_URL") or any(name.startswith("OPENLINEAGE__TRANSPORT") for name in environment):
        return True
    named = environment.get("OPENLINEAGE_CONFIG")
    files = [Path(named)] if named else []
    files += [Path("openlineage.yml"), Path("~/.openlineage/openlineage.yml").expanduser()]
    return any(file.is_file() for file in files)


def open_receiver(place: str | None, tell: Tell) -> Receiver | None:
    """Who is told of events; None if nobody asks. place: a URL or a file; None: as the environment says.

    Raises InvalidInput for a place that cannot be used. What is wrong with the environment is told, and stops nothing.
    """
    if place is None and not is_asked(os.environ):
        return None
    try:
        return Receiver(_client(place), tell)
    except InvalidInput as error:
        if place is not None:
            raise
        tell(f"OpenLineage: {error}")
        return None


def _client(place: str | None) -> Any:
    """The client of a place, or of the environment. Raises InvalidInput."""
    checked = None if place is None else _checked(place)
    try:
        from openlineage.client import OpenLineageClient
        from openlineage.client.event_v2 import set_producer
        from openlineage.client.transport import get_default_factory
    except ImportError:
        raise InvalidInput(EXTRA) from None
    set_producer(f"urn:strata:{strata.__version__}")
    try:
        if checked is None:
            return OpenLineageClient()
        return OpenLineageClient(transport=get_default_factory().create(_transport(checked)))
    except Exception as error:  # of whatever a configuration names
        raise InvalidInput(f"its configuration cannot be used: {_line(error)}") from None


def _checked(place: str) -> str:
    scheme = place.partition("://")[0].lower() if "://" in place else ""
    if scheme in ("http", "https"):
        return service_url(place, "--openlineage")
    if scheme or not place:
        raise InvalidInput("--openlineage: right is http://HOST:PORT, or the path of a file")
    if not Path(place).absolute().parent.is_dir() or Path(place).is_dir():
        raise InvalidInput(f"--openlineage: {place} cannot be written: it is a folder, or its folder does not exist")
    return place


def _transport(place: str) -> dict[str, Any]:
    """The configuration for a place. What the variables say of OPENLINEAGE_URL holds for a URL too."""
    if "://" not in place:
        return {"type": "file", "log_file_path": place, "append": True}
    # the client tries for nine seconds, and the end of a command waits for less
    found: dict[str, Any] = {"type": "http", "url": place, "retry": {"total": 2, "connect": 2, "read": 2}}
    if key := os.environ.get("OPENLINEAGE_API_KEY"):
        found["auth"] = {"type": "api_key", "apiKey": key}
    if endpoint := os.environ.get("OPENLINEAGE_ENDPOINT"):
        found["endpoint"] = endpoint
    return found


class Receiver:
    """Sends events one after another in a thread of its own. Nothing that goes wrong stops who tells them.

    tell: is called with one line when sending has failed, and not again before it has succeeded in between.
    """

    def __init__(self, client: Any, tell: Tell) -> None:
        self._client, self._tell = client, tell
        self._failing = False
        self._waiting: queue.Queue[Make | None] = queue.Queue(MOST_WAITING)
        self._thread = threading.Thread(target=self._work, name="lineage", daemon=True)
        self._thread.start()

    def send(self, make: Make) -> None:
        """Have an event sent; it returns at once. make: makes the event."""
        try:
            self._waiting.put_nowait(make)
        except queue.Full:
            self._failed(f"{MOST_WAITING:,} events wait; others are lost")

    def close(self) -> None:
        """Send what waits, for at most CLOSE_SECONDS."""
        try:
            self._waiting.put_nowait(None)
        except queue.Full:
            self._failed(f"{MOST_WAITING:,} events wait, and are lost")
            return
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            self._failed(f"not all events were taken within {CLOSE_SECONDS:g} s")

    def _work(self) -> None:
        # each attempt of urllib3 would be a line of its own
        quiet, me = logging.getLogger("urllib3.connectionpool"), threading.get_ident()
        of_others = _OfOthers(me)
        quiet.addFilter(of_others)
        try:
            while (make := self._waiting.get()) is not None:
                try:
                    self._client.emit(make())
                    self._failing = False
                except Exception as error:
                    self._failed(_line(error))
            self._client.close()
        finally:
            quiet.removeFilter(of_others)

    def _failed(self, reason: str) -> None:
        if not self._failing:
            self._failing = True
            self._tell(f"OpenLineage: an event could not be sent, and the work goes on: {reason}")


class _OfOthers(logging.Filter):
    """Passes what other threads than one have logged."""

    def __init__(self, thread: int) -> None:
        super().__init__()
        self._thread = thread

    def filter(self, record: logging.LogRecord) -> bool:
        return record.thread != self._thread


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if key := os.environ.get("OPENLINEAGE_API_KEY"):
        text = text.replace(key, "…")
    return without_secrets(text)[:300]
