"""Reading and decoding ahead: while a micro-batch is computed, the next one is decoded, and the next piece is read."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from typing import NamedTuple

from workers.micro_batches import MicroBatch, MicroBatches, Piece, Row, micro_batches, pieces_of

DECODE_THREADS = 2
MIN_DECODE_BATCH = 8  # images that one thread decodes for one future
MAX_DECODE_BATCHES = 4  # futures for one micro-batch


class Coming(NamedTuple):
    """Rows that are computed next; none where only what came before is to be computed first."""

    rows: Sequence[Row]
    decoding: Sequence[Future[None]]

    def wait(self) -> None:
        """Wait until the images are decoded. Raises MachineFault and WorkInterrupted."""
        for future in self.decoding:
            future.result()


class Ahead:
    """Reads and decodes rows of a group in threads. micro_batch: images that the models compute together."""

    def __init__(self, batches: MicroBatches, pool: ThreadPoolExecutor, micro_batch: int) -> None:
        self._batches, self._pool, self._micro_batch = batches, pool, micro_batch

    def micro_batches(self, rows: Sequence[Row]) -> Generator[Coming, None, None]:
        """Rows in micro-batches. When one is yielded, the decoding of the next has begun, if there is memory for both.

        Close it. Raises MachineFault and WorkInterrupted.
        """
        with closing(self._read(rows)) as batches:
            ready = next(batches, MicroBatch([]))
            decoding = self._decode(ready)
            for following in itertools.chain(batches, [MicroBatch([])]):
                ahead = ready.fits_beside(following)
                coming, decoding = decoding, self._decode(following) if ahead else []
                yield Coming(ready.rows, coming)
                ready, decoding = following, decoding if ahead else self._decode(following)

    def _read(self, rows: Sequence[Row]) -> Generator[MicroBatch, None, None]:
        """Rows in micro-batches, with the bytes of their images; while a piece is computed the next one is read."""
        reading: Future[None] | None = None
        try:
            for piece, following in itertools.pairwise([*pieces_of(rows), Piece([])]):
                if reading is None:
                    self._batches.read(piece.rows)
                else:
                    reading.result()
                # a large image is in memory alone: with an empty micro-batch all before it is computed, then it is read
                alone = piece.is_large or following.is_large
                ahead = following.rows and not alone
                reading = self._pool.submit(self._batches.read, following.rows) if ahead else None
                yield from micro_batches(piece.rows, self._micro_batch, self._batches.group.most_pixels)
                if alone:
                    yield MicroBatch([])
        finally:
            if reading is not None:
                wait([reading])

    def _decode(self, batch: MicroBatch) -> list[Future[None]]:
        return [self._pool.submit(self._batches.decode, part) for part in _parts(batch.rows)]


def _parts(rows: Sequence[Row]) -> list[Sequence[Row]]:
    """Rows in parts for the threads that decode: one future for each image would cost more than a small image."""
    size = max(MIN_DECODE_BATCH, -(-len(rows) // MAX_DECODE_BATCHES))
    return [rows[i : i + size] for i in range(0, len(rows), size)]
