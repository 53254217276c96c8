"""Orders: files by which the harness tells the other processes which fault comes next.

An order is taken by one process once. A state holds for all processes until its time is over. Times are those of the
system's monotonic clock, which all processes of a machine share, so that a process with a wrong clock reads them right.
"""

from __future__ import annotations

import os
import time
import uuid
from contextlib import suppress
from pathlib import Path

VARIABLE = "BENCH_FAULTS"  # the environment variable with the orders' folder


class Orders:
    """The orders in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def from_environment(cls) -> Orders | None:
        """The orders of this process's harness; None if it has none."""
        folder = os.environ.get(VARIABLE)
        return cls(Path(folder)) if folder else None

    def give(self, kind: str) -> None:
        """Order a fault, for the process that takes it first."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"{kind}.{uuid.uuid4().hex}").touch()

    def take(self, kind: str) -> bool:
        """Whether a fault of this kind was ordered and is now this process's to cause."""
        for path in self.folder.glob(f"{kind}.*"):
            # of several processes that try it, one removes the file
            with suppress(FileNotFoundError):
                path.unlink()
                return True
        return False

    def open(self, kind: str) -> int:
        """How many faults of this kind were ordered and not caused yet."""
        return len(list(self.folder.glob(f"{kind}.*")))

    def hold(self, state: str, seconds: float) -> None:
        """Let a state hold for so many seconds."""
        self._met.mkdir(parents=True, exist_ok=True)
        (self._met / state).unlink(missing_ok=True)
        temporary = self.folder / f"tmp-{uuid.uuid4().hex}"
        temporary.write_text(str(time.monotonic() + seconds), encoding="ascii")
        temporary.rename(self.folder / state)

    def meet(self, state: str) -> None:
        """Note that a call has failed because the state holds."""
        self._met.mkdir(parents=True, exist_ok=True)
        (self._met / state).touch()

    def met(self, state: str) -> bool:
        """Whether a call has failed because of the state since it was last let hold."""
        return (self._met / state).exists()

    @property
    def _met(self) -> Path:
        return self.folder / "met"

    def holds(self, state: str) -> bool:
        """Whether a state holds now."""
        try:
            return time.monotonic() < float((self.folder / state).read_text(encoding="ascii"))
        except FileNotFoundError:
            return False
