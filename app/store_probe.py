"""Whether the store can be written, as `/readyz` tells it: tried at most once in a few seconds."""

from __future__ import annotations

import os
import threading
import time

from strata.store import Store, storage_fault

PROBE_SECONDS = 5.0  # a result is told for this long
PROBE_BYTES = 2**16  # as many as a small part has: a disk that is nearly full may still take a few bytes


class StoreProbe:
    """Writes a file to the store when it is asked and its last result is old. Safe to use from several threads.

    However often it is asked, and by whom, it writes at most every PROBE_SECONDS, and only one caller waits for it.
    """

    def __init__(self, store: Store, seconds: float = PROBE_SECONDS) -> None:
        self.store, self.seconds = store, seconds
        self._reason = "the store has not been written yet"
        self._until = 0.0  # on the monotonic clock: when the result is old
        self._guard = threading.Lock()

    def reason(self) -> str:
        """Why the store cannot be written; empty if it can."""
        # whoever comes while another one writes gets the last result
        if time.monotonic() >= self._until and self._guard.acquire(blocking=False):
            try:
                self._reason = self._write()
                self._until = time.monotonic() + self.seconds
            finally:
                self._guard.release()
        return self._reason

    def report(self, error: BaseException) -> None:
        """Tell of a fault of the storage that a request has met, so that it is known before the next attempt."""
        self._reason = _told(error)

    def _write(self) -> str:
        try:
            self.store.check_mark()
            # random bytes, because a file system may store zeros without using space
            self.store.put(self.store.path("health", "api"), os.urandom(PROBE_BYTES))
        except Exception as error:  # each storage library has its own errors, and all of them mean the same here
            return _told(error)
        return ""


def _told(error: BaseException) -> str:
    # the text of a library may have the storage's address, which is not told to everybody
    reason = (
        error.strerror if isinstance(error, OSError) and error.strerror else type(error.__cause__ or error).__name__
    )
    return f"the store {'is full' if storage_fault(error) == 'full' else 'cannot be written'}: {reason}"
