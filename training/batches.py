"""A reader's samples as an endless sequence of batches from any step on, so that a resumed run gets the same data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader

from strata.data import Sample, SampleReader

Batch = dict[str, Any]


class Batches:
    """The batches of one rank, epoch after epoch, each in its own order. An incomplete last batch is left out.

    The number of batches seen determines the position in the data, so that a checkpoint needs no state of the reader,
    and training can continue with another number of DataLoader workers. It has no length: the trainer counts steps.
    """

    def __init__(
        self,
        reader: SampleReader,
        batch_size: int,
        collate: Callable[[Sequence[Sample]], Batch],
        workers: int = 0,
        seen: int = 0,
    ) -> None:
        self.reader, self.batch_size, self.collate = reader, batch_size, collate
        self.workers, self.seen = workers, seen

    @property
    def in_epoch(self) -> int:
        """The number of this rank's complete batches in an epoch."""
        return len(self.reader) // self.batch_size

    def __iter__(self) -> Iterator[Batch]:
        epoch, batches = divmod(self.seen, self.in_epoch)
        ranks = self.reader.state_dict()["ranks"]
        while True:
            self.reader.set_epoch(epoch)
            # skip the batches of this epoch that were seen, of all ranks
            if batches:
                self.reader.load_state_dict(self.reader.state_at(batches * self.batch_size * ranks))
            yield from self._loader()
            epoch, batches = epoch + 1, 0

    def _loader(self) -> DataLoader[Any]:
        return DataLoader(
            self.reader,
            self.batch_size,
            num_workers=self.workers,
            collate_fn=self.collate,
            drop_last=True,
            multiprocessing_context="spawn" if self.workers else None,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # drawing from torch's default one would change the dropout of a resumed run
        )
