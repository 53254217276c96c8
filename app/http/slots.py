"""Places for what is open for long, such as streams of events: so many in all, and so many for one caller."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from app.problems import ProblemError

RETRY_SECONDS = 10


class Slots:
    """So many places. Use it in one event loop."""

    def __init__(self, most: int, of_caller: int) -> None:
        self.most, self.of_caller = most, of_caller
        self.taken: Counter[str] = Counter()

    @contextmanager
    def place(self, caller: str) -> Iterator[None]:
        """A place until the end of the block. Raises ProblemError if there is none, or none for this caller."""
        if self.taken[caller] >= self.of_caller or self.taken.total() >= self.most:
            allowed = f"at most {self.of_caller} streams may be open for one caller, and {self.most} in all"
            headers = {"Retry-After": str(RETRY_SECONDS)}
            raise ProblemError("too-many-streams", f"{allowed}; close some of them", headers=headers)
        self.taken[caller] += 1
        try:
            yield
        finally:
            self.taken[caller] -= 1
            if not self.taken[caller]:
                del self.taken[caller]
