"""Whether the store can be used, as `/readyz` tells it: tried at most once in a few seconds."""

from __future__ import annotations

import os
import threading
import time

from strata.store import Store, storage_fault

PROBE_SECONDS = 5.0  # a result is told for this long
PROBE_BYTES = 2**16  # as many as a small part has: a disk that is nearly full may still take a few bytes


class StoreProbe:
    """Tries the store when it is asked and its last result is old. Safe to use from several threads.

    However often it is asked, and by whom, it does so at most every PROBE_SECONDS, and only one caller waits for it.
    """

    def __init__(self, store: Store, seconds: float = PROBE_SECONDS) -> None:
        self.store, self.seconds = store, seconds
        self._reason = "the store has not been tried yet"
        self._fault_met = False  # by a request, and no write has succeeded since
        self._until = 0.0  # on the monotonic clock: when the result is old
        self._guard = threading.Lock()

    def reason(self) -> str:
        """Why the store cannot be used; empty if it can.

        Its mark is read, and a file is written only to learn whether a fault that a request has met is over.
        """
        # whoever comes while another one tries gets the last result
        if time.monotonic() >= self._until and self._guard.acquire(blocking=False):
            try:
                self._reason = self._try(self._fault_met)
                self._until = time.monotonic() + self.seconds
            finally:
                self._guard.release()
        return self._reason

    def report(self, error: BaseException) -> None:
        """Tell of a fault of the storage that a request has met, so that it is known before the next attempt."""
        self._reason, self._fault_met = _told(error), True

    def _try(self, write: bool) -> str:
        try:
            self.store.check_mark()
            if write:
                # random bytes, because a file system may store zeros without using space
                self.store.put(self.store.path("health", "api"), os.urandom(PROBE_BYTES))
                self._fault_met = False
        except Exception as error:  # each storage library has its own errors, and all of them mean the same here
            return _told(error)
        return ""


def _told(error: BaseException) -> str:
    # the text of a library may have the storage's address, which is not told to everybody
    reason = (
        error.strerror if isinstance(error, OSError) and error.strerror else type(error.__cause__ or error).__name__
    )
    return f"the store {'is full' if storage_fault(error) == 'full' else 'cannot be written'}: {reason}"
