"""A reader's samples as an endless sequence of batches from any step on, so that a resumed run gets the same data."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch.utils.data import DataLoader

from strata.data import Sample, SampleReader

Batch = dict[str, Any]


class Batches:
    """The batches of one rank, epoch after epoch, each in its own order. An incomplete last batch is left out.

    The number of batches seen determines the position in the data, so that a checkpoint needs no state of the reader,
    and training can continue with another number of DataLoader workers. It has no length: the trainer counts steps.

    group: this many batches are read together, their samples sorted by `length`, and cut into batches of similar
    lengths, which come in a random order. The order is the same on all ranks, so that they compute similar lengths at
    one time. A resumed run reads its group again, and leaves out the batches that were seen.
    """

    def __init__(
        self,
        reader: SampleReader,
        batch_size: int,
        collate: Callable[[Sequence[Sample]], Batch],
        workers: int = 0,
        seen: int = 0,
        group: int = 1,
        length: Callable[[Sample], float] | None = None,
    ) -> None:
        self.reader, self.batch_size, self.collate = reader, batch_size, collate
        self.workers, self.seen, self.group = workers, seen, group
        self.length = length or text_length

    @property
    def in_epoch(self) -> int:
        """The number of this rank's batches in an epoch, in complete groups."""
        return len(self.reader) // (self.batch_size * self.group) * self.group

    def __iter__(self) -> Iterator[Batch]:
        epoch, batches = divmod(self.seen, self.in_epoch)
        ranks = self.reader.state_dict()["ranks"]
        while True:
            self.reader.set_epoch(epoch)
            # skip the groups of this epoch that were seen, of all ranks, and the batches of the first one
            groups, passed = divmod(batches, self.group)
            if groups:
                self.reader.load_state_dict(self.reader.state_at(groups * self.group * self.batch_size * ranks))
            in_order = (batch for group in self._loader(ranks) for batch in group)
            yield from islice(in_order, passed, None)
            epoch, batches = epoch + 1, 0

    def _loader(self, ranks: int) -> DataLoader[Any]:
        return DataLoader(
            self.reader,
            self.batch_size * self.group,
            num_workers=self.workers,
            collate_fn=Grouped(self.collate, self.length, self.batch_size, ranks),
            drop_last=True,
            multiprocessing_context="spawn" if self.workers else None,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # drawing from torch's default one would change the dropout of a resumed run
        )


@dataclass(frozen=True)
class Grouped:
    """Collates the samples of one group into batches of similar lengths."""

    collate: Callable[[Sequence[Sample]], Batch]
    length: Callable[[Sample], float]
    batch_size: int
    ranks: int

    def __call__(self, samples: Sequence[Sample]) -> list[Batch]:
        """The group's batches, in an order that depends on the group's place in the epoch alone."""
        if len(samples) <= self.batch_size:
            return [self.collate(samples)]
        in_order = sorted(samples, key=self.length)
        batches = [in_order[start : start + self.batch_size] for start in range(0, len(samples), self.batch_size)]
        # the samples of a group are neighbours in the epoch, so that all ranks find the same number of the group
        number = min(sample.index for sample in samples) // (len(samples) * self.ranks)
        random.Random(number).shuffle(batches)
        return [self.collate(batch) for batch in batches]


def text_length(sample: Sample) -> float:
    """The length of a sample's texts in tokens, about (a token of English text has about four characters)."""
    return sum(len(turn["content"]) for turn in sample.conversation) / 4


def sample_length(processor: Any) -> Callable[[Sample], float]:
    """The function that gives a sample's length in tokens, about: of its texts, and its images if their size matters.

    The Qwen-VL families make one token of merge_size × merge_size patches; others make equally many of each image.
    """
    images = processor.image_processor
    patch, merge = getattr(images, "patch_size", None), getattr(images, "merge_size", None)
    if not isinstance(patch, int) or not isinstance(merge, int):
        return text_length
    return partial(_with_image, pixels=(patch * merge) ** 2)


def _with_image(sample: Sample, pixels: int) -> float:
    return text_length(sample) + sum(image.width * image.height for image in sample.images) / pixels
