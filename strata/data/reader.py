"""Read the samples of a snapshot or a mixture as images and conversations, in one global order.

    source = snapshot_source(store, snapshot, "description")             # strata.data.sources.snapshots
    mixture = Mixture.of(source, "Describe this image.")                 # strata.data.mixtures
    reader = SampleReader(mixture, seed=1, batch_size=8)
    loader = StatefulDataLoader(reader, batch_size=8, num_workers=4, collate_fn=...)
    for epoch in range(3):
        reader.set_epoch(epoch)
        for batch in loader: ...                                         # batch: collate_fn's result for 8 Samples

Mixture, seed and epoch determine the order. Sample i of it goes to rank i mod ranks; a rank's samples are assigned to
its DataLoader workers by whole batches, in the order in which the DataLoader reads from the workers. Therefore the
samples of all readers together, and the batches of a DataLoader, do not depend on the number of workers, provided
that the reader has the DataLoader's batch size.

The reader is a torch IterableDataset if torch is installed, else an iterable. Its memory does not grow with the number
of samples, and it can be pickled, so that workers can be spawned.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from strata import images
from strata.data.mixtures import Mixture, Share
from strata.data.permutations import Numbers, drawn
from strata.data.prefetch import prefetch_map
from strata.data.sources.samples import RawSample

try:
    from torch.utils.data import IterableDataset, get_worker_info
except ImportError:  # torch is optional: without it the reader is a plain iterable
    from collections.abc import Iterable as IterableDataset  # type: ignore[assignment]

    def get_worker_info() -> None:
        """Return None: without torch there are no DataLoader workers."""


MAX_PIXELS = 100_000_000  # width × height of the largest image that is decoded
THREADS = 16  # concurrent reads; one read from a bucket takes about 30 ms
DECODERS = 2  # runs decoded concurrently: Pillow releases the GIL while it decodes
RUN = 16  # samples that are read together
WINDOW = 1024  # samples whose order is computed at a time

State = dict[str, Any]


class _Run(NamedTuple):
    """Samples that are read together: their indexes in the epoch, shares, and numbers in the shares' sources."""

    indexes: list[int]
    shares: list[int]
    numbers: list[int]


class _Read(NamedTuple):
    """A sample before decoding: its position in the epoch, its share, and its number in the share's source."""

    position: int
    share: Share
    number: int
    raw: RawSample


@dataclass(frozen=True)
class Sample:
    """One sample.

    images: RGB, EXIF-upright; none for a sample of text only. conversation: turns {"role": "user" | "assistant" |
    "system", "content": text}, beginning with the user's or with one system turn. One image belongs before the first
    question; with several, the texts have "<image>" at the place of each. index: in the epoch.
    """

    key: str
    images: list[Image.Image]
    conversation: list[dict[str, str]]
    task: str
    index: int

    @property
    def image(self) -> Image.Image:
        """The only image. Raises ValueError if there is none, or more than one."""
        (image,) = self.images
        return image


@dataclass(frozen=True)
class Partition:
    """One reader's part of an epoch's samples from `start` on: that of `worker` among the workers of `rank`."""

    start: int = 0
    rank: int = 0
    ranks: int = 1
    worker: int = 0
    workers: int = 1
    batch_size: int = 1

    def indexes(self, numbers: Numbers) -> Numbers:
        """The indexes in the epoch of this reader's samples, given by their numbers among its own."""
        # number -> index among the rank's samples (batches go to the workers in turn) -> index in the epoch
        block, inside = numbers // self.batch_size, numbers % self.batch_size
        of_rank = (block * self.workers + self.worker) * self.batch_size + inside
        return self.start + self.rank + of_rank * self.ranks

    def count(self, end: int) -> int:
        """The number of this reader's samples among those from `start` to `end`."""
        # whole batches go to the workers in turn; an incomplete one at the end goes to the next worker
        of_rank = max(0, -(-(end - self.start - self.rank) // self.ranks))
        blocks, rest = divmod(of_rank, self.batch_size)
        rounds, last = divmod(blocks, self.workers)
        return (rounds + (self.worker < last)) * self.batch_size + (rest if self.worker == last else 0)


class SampleReader(IterableDataset[Sample]):
    """Reads a mixture's samples in an order that a seed and an epoch determine.

    rank, ranks: this training process, and their number. batch_size: that of the DataLoader. drop_last: leave out the
    samples at the end of an epoch that do not give every rank a whole batch.

    Iterating raises SampleError if a shard or file is missing or has changed, or an image cannot be decoded.
    """

    def __init__(
        self,
        mixture: Mixture,
        seed: int = 0,
        rank: int = 0,
        ranks: int = 1,
        batch_size: int = 1,
        drop_last: bool = False,
    ) -> None:
        self.mixture, self.seed, self.epoch = mixture, seed, 0
        self._partition = Partition(rank=rank, ranks=ranks, batch_size=batch_size)
        # drop_last removes the samples that do not fill a batch on every rank
        self._end = len(mixture) - (len(mixture) % (ranks * batch_size) if drop_last else 0)
        self._taken = 0
        self._resumed = False

    def __len__(self) -> int:
        """The number of this rank's samples in an epoch."""
        return replace(self._partition, start=0, worker=0, workers=1).count(self._end)

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of another epoch. Has no effect if the reader is in this epoch already."""
        # the same epoch: keep the position that `load_state_dict` has set
        if epoch != self.epoch:
            self.epoch, self._partition = epoch, replace(self._partition, start=0)
            self._taken, self._resumed = 0, False

    def __iter__(self) -> Iterator[Sample]:
        """Iterate from the beginning of the epoch; once after `load_state_dict`, from the loaded state."""
        if not self._resumed:
            self._partition, self._taken = replace(self._partition, start=0), 0
        self._resumed = False
        # the DataLoader copies the reader to its workers, so the worker's number is known only now
        worker, workers = _worker()
        self._partition = replace(self._partition, worker=worker, workers=workers)
        return self._samples()

    def _samples(self) -> Iterator[Sample]:
        # two stages of threads: reading waits for storage, decoding uses the CPU
        read = prefetch_map(self._read, self._runs(), THREADS)
        for sample in chain.from_iterable(prefetch_map(self._decoded, read, DECODERS)):
            self._taken += 1
            yield sample

    def _runs(self) -> Iterator[_Run]:
        """Yield the runs that this reader has not read yet, in order."""
        order, end = self.mixture.order(self.seed, self.epoch), self._partition.count(self._end)
        for first in range(self._taken, end, WINDOW):
            # this reader's numbers -> indexes in the epoch -> numbers in the mixture -> share and number in its source
            indexes = self._partition.indexes(np.arange(first, min(first + WINDOW, end)))
            shares, numbers = self.mixture.locate(order(indexes), self.seed)
            for start in range(0, len(indexes), RUN):
                part = slice(start, start + RUN)
                yield _Run(indexes[part].tolist(), shares[part].tolist(), numbers[part].tolist())

    def _read(self, run: _Run) -> list[_Read]:
        """Read the samples of a run, in order."""
        found: dict[int, RawSample] = {}
        # one call per share, so that its source can join neighbouring reads
        for chosen in set(run.shares):
            mine = [index for index, share in enumerate(run.shares) if share == chosen]
            raws = self.mixture.shares[chosen].source.read([run.numbers[index] for index in mine])
            found.update(zip(mine, raws, strict=True))
        shares = [self.mixture.shares[share] for share in run.shares]
        in_order = (found[index] for index in range(len(found)))
        return [_Read(*sample) for sample in zip(run.indexes, shares, run.numbers, in_order, strict=True)]

    def _decoded(self, run: Sequence[_Read]) -> list[Sample]:
        draws = drawn(np.array([read.position for read in run]), f"instruction/{self.seed}/{self.epoch}").tolist()
        return [_sample(*read, draw) for read, draw in zip(run, draws, strict=True)]

    def state_dict(self) -> State:
        """The reader's position as plain values. Each of several readers has its own: see `merge_states`."""
        return {**self.state_at(self._partition.start), **asdict(self._partition), "taken": self._taken}

    def state_at(self, start: int) -> State:
        """A state from which any number of readers can continue after the first `start` samples of this epoch."""
        return {"mixture": self.mixture.identity, "seed": self.seed, "epoch": self.epoch, "start": start}

    def load_state_dict(self, state: State) -> None:
        """Continue from a state of `merge_states` or `state_at`, or of a reader with the same rank and worker.

        Raises ValueError if the state is of another mixture or seed, or of a reader with another part of the samples.
        """
        for name, mine in (("mixture", self.mixture.identity), ("seed", self.seed)):
            if state[name] != mine:
                raise ValueError(f"the state is of another {name}: {state[name]}, not {mine}")
        # a state with "taken" counts one reader's own samples, and so is valid only for the same part
        worker, workers = _worker()
        partition = replace(self._partition, start=state["start"], worker=worker, workers=workers)
        if "taken" in state and any(state[name] != value for name, value in asdict(partition).items()):
            raise ValueError("the state is of a reader among others or of another batch size: use merge_states")
        self.epoch, self._partition = state["epoch"], partition
        self._taken, self._resumed = state.get("taken", 0), True


def _sample(index: int, share: Share, number: int, raw: RawSample, draw: int) -> Sample:
    try:
        decoded = [images.decode(data, MAX_PIXELS) for data in raw.images]
    except images.ImageError as error:
        raise share.source.explain(number, str(error)) from None
    return Sample(raw.key, decoded, share.conversation(raw, draw), share.task, index)


def merge_states(states: Iterable[Mapping[str, Any]]) -> State:
    """Merge the states of all readers of an epoch into one, to continue with another number of readers or batch size.

    states: of SampleReader.state_dict, or of StatefulDataLoaders, which contain their workers' states. Raises
    ValueError if states are missing, or if the samples read so far are not the first ones of the epoch.
    """
    found = [state for given in states for state in _reader_states(given)]
    if not found:
        raise ValueError("the states contain no state of a SampleReader")
    # all states must be of one epoch, and of each reader exactly once
    first, members = found[0], {(state["rank"], state["worker"]) for state in found}
    common = {name: first[name] for name in ("mixture", "seed", "epoch", "start", "ranks", "workers", "batch_size")}
    if any(state[name] != value for state in found for name, value in common.items()):
        raise ValueError("the states are of different mixtures, epochs or numbers of readers")
    if len(found) != len(members) or len(members) != common["ranks"] * common["workers"]:
        raise ValueError(f"{common['ranks'] * common['workers']} readers have a state each, {len(members)} are given")
    # together the readers must have read exactly the first samples, each reader its part of them
    end = common["start"] + sum(state["taken"] for state in found)
    for state in found:
        partition = Partition(**{field.name: state[field.name] for field in fields(Partition)})
        if partition.count(end) != state["taken"]:
            raise ValueError("the readers are at different batches: save their states after the same one")
    return {name: common[name] for name in ("mixture", "seed", "epoch")} | {"start": end}


def _reader_states(value: Any) -> Iterator[State]:
    """Find the states of readers in nested mappings."""
    if isinstance(value, Mapping):
        # a StatefulDataLoader nests the states of its workers' readers
        if "taken" in value and "mixture" in value:
            yield dict(value)
        else:
            for inner in value.values():
                yield from _reader_states(inner)


def _worker() -> tuple[int, int]:
    """The number of this DataLoader worker, and the number of workers; (0, 1) outside of a DataLoader."""
    info = get_worker_info()
    return (info.id, info.num_workers) if info else (0, 1)
