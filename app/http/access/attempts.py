"""Wrong keys at the sign-in: after some of them a network has to wait longer and longer for its next attempt."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

from app.problems import ProblemError
from strata.core import growing_pause

FREE = 5  # wrong keys in a row before the first pause
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds
FORGOTTEN = 600.0  # seconds without an attempt, after which a network begins anew
MOST_NETWORKS = 10_000  # that are remembered


@dataclass
class _Network:
    """attempts: since the last right key; last, until: on the monotonic clock."""

    attempts: int = 0
    last: float = 0.0
    until: float = 0.0


class Attempts:
    """The attempts to sign in at one process. Use it in one event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._networks: dict[str, _Network] = {}

    def begin(self, network: str) -> None:
        """An attempt begins; it counts as wrong until `succeeded` or `withdraw`.

        Raises ProblemError if the network has to wait.
        """
        now = self._clock()
        known = self._networks.pop(network, None)
        if known is None or now - known.last >= FORGOTTEN:
            known = _Network()
        self._networks[network] = known  # the last one
        if now < known.until:
            seconds = ceil(known.until - now)
            detail = "too many wrong keys came from your network; try again later"
            raise ProblemError("too-many-sign-ins", detail, headers={"Retry-After": str(seconds)})
        known.attempts, known.last = known.attempts + 1, now
        if known.attempts >= FREE:
            known.until = now + growing_pause(known.attempts - FREE, FIRST_PAUSE, LONGEST_PAUSE)
        if len(self._networks) > MOST_NETWORKS:
            del self._networks[next(iter(self._networks))]

    def withdraw(self, network: str) -> None:
        """The attempt does not count: nobody could say whether its key was right."""
        known = self._networks.get(network)
        if known is not None:
            known.attempts, known.until = max(0, known.attempts - 1), 0.0

    def succeeded(self, network: str) -> None:
        """The attempt had a right key."""
        self._networks.pop(network, None)
