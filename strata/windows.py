"""A window on a file that is read once."""

from __future__ import annotations

from typing import IO


class Window:
    """What was read last of a file that is read once, forward, in large pieces; `data` begins at byte `start`."""

    PIECE = 2 * 2**20
    HINDSIGHT = 256 * 2**10  # bytes kept before the place that is read, to look for headers after a break

    def __init__(self, file: IO[bytes]) -> None:
        self.start, self.data = 0, b""
        self._file = file

    def reach(self, offset: int, size: int) -> int:
        """Read on until bytes offset..offset+size are at hand or the file ends; returns offset's place in data."""
        place = offset - self.start
        while place + size > len(self.data):
            if place > len(self.data) + self.PIECE:  # behind a large member
                self._file.seek(offset)
                self.start, self.data, place = offset, b"", 0
            piece = self._file.read(self.PIECE)
            if not piece:
                break
            dropped = max(0, min(place, len(self.data)) - self.HINDSIGHT)
            self.data = self.data[dropped:] + piece
            self.start += dropped
            place -= dropped
        return place

    def read(self, offset: int, size: int) -> bytes:
        """Bytes offset..offset+size, fewer where the file ends. offset must not lie before `start`."""
        place = offset - self.start
        if place + size > len(self.data):
            place = self.reach(offset, size)
        return self.data[place : place + size]
