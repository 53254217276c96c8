"""Many images of this machine to the service: hashed, compared with what it has, and sent several at a time.

Nothing is kept here: after an interruption the service says what is still missing.
"""

from __future__ import annotations

import functools
import hashlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from strata.client.client import Client
from strata.client.responses import ApiError
from strata.errors import plain_line

Item = TypeVar("Item")
Result = TypeVar("Result")

AT_A_TIME = 4  # files that are hashed, and images that are sent
ASKED_TOGETHER = 5000  # hashes in one request
_PIECE = 2**20
Show = Callable[[str, int, int | None], object]  # gets the step's name, how many files are done, and of how many


@dataclass
class Sent:
    """What has become of files. digests: by file, of those that the service has; refused: the others, with a reason.

    new: how many were sent now; the service had the rest.
    """

    digests: dict[Path, str] = field(default_factory=dict)
    refused: dict[Path, str] = field(default_factory=dict)
    new: int = 0


def send_images(client: Client, files: Sequence[Path], show: Show = lambda name, done, total: None) -> Sent:
    """Send the files that the service has not got. A file that cannot be read or used does not stop the others.

    Raises ApiError if the service fails, or has no room, and httpx.TransportError.
    """
    sent, known = Sent(), dict[Path, tuple[str, int]]()
    # hash all, since equal files are sent once
    for number, (file, done) in enumerate(in_turn(_hashed, files, AT_A_TIME), 1):
        try:
            known[file] = done.result()
        except OSError as error:
            sent.refused[file] = error.strerror or plain_line(error)
        show("hashed", number, len(files))
    # ask which are missing; of equal files the first one stands for all
    first = {digest: file for file, (digest, _) in reversed(known.items())}
    missing, reasons = _missing(client, {digest: known[file][1] for digest, file in first.items()})
    # send them
    now: dict[str, str] = {}
    send = functools.partial(_send, client, first)
    for number, (digest, outcome) in enumerate(in_turn(send, missing, AT_A_TIME), 1):
        try:
            now[digest] = outcome.result()
        except OSError as error:
            reasons[digest] = plain_line(error)
        except ApiError as error:
            # a failure of the service itself, or of the key, would repeat for every image
            if error.problem.status not in (413, 422):
                raise
            reasons[digest] = str(error)
        show("sent", number, len(missing))
    for file, (digest, _) in known.items():
        if digest in reasons:
            sent.refused[file] = reasons[digest]
        else:
            sent.digests[file] = now.get(digest, digest)
    sent.new = len(now)
    return sent


def _missing(client: Client, sizes: Mapping[str, int]) -> tuple[list[str], dict[str, str]]:
    """Which images, by hash and bytes, the service has not got, and why it takes others never."""
    missing: list[str] = []
    reasons: dict[str, str] = {}
    for digests in _slices(list(sizes), ASKED_TOGETHER):
        view = client.missing_uploads({digest: sizes[digest] for digest in digests})
        missing += view.missing
        reasons |= dict.fromkeys(view.too_large, "larger than the service takes (STRATA_MAX_BODY_BYTES)")
    return missing, reasons


def in_turn(
    act: Callable[[Item], Result], items: Iterable[Item], at_a_time: int
) -> Iterator[tuple[Item, Future[Result]]]:
    """Yield each item with what act gives for it, in order; act runs in threads, and a little ahead.

    The threads end with the process: after Ctrl-C nobody waits for a response.
    """
    work: queue.SimpleQueue[tuple[Item, Future[Result]] | None] = queue.SimpleQueue()
    for _ in range(at_a_time):
        threading.Thread(target=_work, args=(work, act), daemon=True).start()
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    try:
        for item in items:
            waiting.append((item, Future()))
            work.put(waiting[-1])
            if len(waiting) >= 2 * at_a_time:
                waiting[0][1].exception()
                yield waiting.popleft()
        for item, done in waiting:
            done.exception()
            yield item, done
    finally:
        # what has not been begun is not begun any more
        with suppress(queue.Empty):
            while True:
                work.get_nowait()
        for _ in range(at_a_time):
            work.put(None)


def _work(work: queue.SimpleQueue[tuple[Item, Future[Result]] | None], act: Callable[[Item], Result]) -> None:
    while (taken := work.get()) is not None:
        item, done = taken
        try:
            done.set_result(act(item))
        except BaseException as error:
            done.set_exception(error)


def _hashed(file: Path) -> tuple[str, int]:
    """The SHA-256 of a file, and its bytes. Raises OSError."""
    digest, size = hashlib.sha256(), 0
    with file.open("rb") as opened:
        while piece := opened.read(_PIECE):
            digest.update(piece)
            size += len(piece)
    return digest.hexdigest(), size


def _send(client: Client, files: Mapping[str, Path], digest: str) -> str:
    """Send a file; returns its SHA-256, which is another one if the file has changed meanwhile."""
    return client.upload(files[digest].read_bytes()).sha256


def _slices(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    return (items[start : start + size] for start in range(0, len(items), size))
