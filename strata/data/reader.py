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
that the reader has the DataLoader's batch size. The same holds for the samples that take the place of broken ones
(`substitutes.py`).

The reader is a torch IterableDataset if torch is installed, else an iterable. Its memory does not grow with the number
of samples, and it can be pickled, so that workers can be spawned.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from itertools import chain
from typing import Any, Literal, NamedTuple

import numpy as np

from strata.data.mixtures import Mixture
from strata.data.permutations import Numbers, drawn
from strata.data.prefetch import prefetch_map
from strata.data.samples import MAX_PIXELS, Place, Sample, Skipped, decoded
from strata.data.sources.samples import RawSample, SampleError
from strata.data.substitutes import PAUSES, SkipLimit, Substitutes

try:
    import torch
    from torch.utils.data import IterableDataset, get_worker_info
except ImportError:  # torch is optional: without it the reader is a plain iterable
    from collections.abc import Iterable as IterableDataset  # type: ignore[assignment]

    torch = None  # type: ignore[assignment]

    def get_worker_info() -> None:
        """Return None: without torch there are no DataLoader workers."""


__all__ = ["MAX_PIXELS", "Partition", "Sample", "SampleReader", "merge_states"]

THREADS = 16  # concurrent reads; one read from a bucket takes about 30 ms
DECODERS = 2  # runs decoded concurrently if there are cores for it: Pillow releases the GIL while it decodes
RUN = 16  # samples that are read together
WINDOW = 1024  # samples whose order is computed at a time

OnError = Literal["skip", "stop"]
State = dict[str, Any]


class _Read(NamedTuple):
    """A sample before decoding, or why it cannot be read."""

    place: Place
    raw: RawSample | SampleError


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
    samples at the end of an epoch that do not give every rank a whole batch. on_error: "skip" gives another sample of
    the same source in the place of one that cannot be read or decoded, and lists it in `Sample.skipped`; limit: how
    many. pauses: seconds between the attempts to read from a storage that is away.

    Iterating raises SampleError if a shard or file is missing or has changed or an image cannot be decoded, and
    on_error is "stop"; else TooManySkipped; SourceAway if the storage of a source is away.
    """

    def __init__(
        self,
        mixture: Mixture,
        seed: int = 0,
        rank: int = 0,
        ranks: int = 1,
        batch_size: int = 1,
        drop_last: bool = False,
        on_error: OnError = "skip",
        limit: SkipLimit | None = None,
        pauses: Sequence[float] = PAUSES,
    ) -> None:
        self.mixture, self.seed, self.on_error, self.limit = mixture, seed, on_error, limit or SkipLimit()
        self._substitutes = Substitutes(mixture, seed, pauses)
        self._partition = Partition(rank=rank, ranks=ranks, batch_size=batch_size)
        # drop_last removes the samples that do not fill a batch on every rank
        self._end = len(mixture) - (len(mixture) % (ranks * batch_size) if drop_last else 0)
        self._taken = 0
        self._resumed = False
        # of this process, over all epochs
        self._read_count = self._skipped_count = 0
        # the epoch of the position here, and the one that all copies of the reader in DataLoader workers shall be in
        self._epoch, self._shared_epoch = 0, _SharedNumber()

    @property
    def epoch(self) -> int:
        """The epoch that is read next."""
        return self._shared_epoch.value

    def __len__(self) -> int:
        """The number of this rank's samples in an epoch."""
        return replace(self._partition, start=0, worker=0, workers=1).count(self._end)

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of another epoch. Has no effect if the reader is in this epoch already.

        DataLoader workers that stay between the epochs (persistent_workers) follow when they begin to iterate.
        """
        self._shared_epoch.value = epoch
        self._enter(epoch)

    def _enter(self, epoch: int) -> None:
        # the same epoch: keep the position that `load_state_dict` has set
        if epoch != self._epoch:
            self._epoch, self._partition = epoch, replace(self._partition, start=0)
            self._taken, self._resumed = 0, False

    def __iter__(self) -> Iterator[Sample]:
        """Iterate from the beginning of the epoch; once after `load_state_dict`, from the loaded state."""
        self._enter(self.epoch)
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
        # where the workers of the DataLoader fill all cores, more threads only take turns
        decoded = (
            prefetch_map(self._decoded, read, DECODERS)
            if self._partition.workers < _cores()
            else map(self._decoded, read)
        )
        for sample in chain.from_iterable(decoded):
            self._taken += 1
            self._count(sample)
            yield sample

    def _count(self, sample: Sample) -> None:
        self._read_count += 1
        if sample.skipped:
            self._skipped_count += 1
            self.limit.check(self._skipped_count, self._read_count, sample.skipped[0].reason, part=True)

    def _runs(self) -> Iterator[list[Place]]:
        """Yield the places that this reader has not read yet, in order, some at a time."""
        epoch, end = self._epoch, self._partition.count(self._end)
        order = self.mixture.order(self.seed, epoch)
        for first in range(self._taken, end, WINDOW):
            # this reader's numbers -> indexes in the epoch -> numbers in the mixture -> share and number in its source
            indexes = self._partition.indexes(np.arange(first, min(first + WINDOW, end)))
            shares, numbers = self.mixture.locate(order(indexes), self.seed)
            draws = drawn(indexes, f"instruction/{self.seed}/{epoch}")
            window = zip(*(values.tolist() for values in (indexes, shares, numbers, draws)), strict=True)
            places = [Place(epoch, *of) for of in window]
            yield from (places[start : start + RUN] for start in range(0, len(places), RUN))

    def _read(self, run: Sequence[Place]) -> list[_Read]:
        """Read the samples of a run, in order."""
        found: dict[Place, RawSample | SampleError] = {}
        # one call per share, so that its source can join neighbouring reads
        for share in {place.share for place in run}:
            mine = [place for place in run if place.share == share]
            try:
                raws = self.mixture.shares[share].source.read([place.number for place in mine])
            except SampleError:
                # one of them is broken: read the others without it
                found.update((place, self._read_alone(place)) for place in mine)
            else:
                self._substitutes.saw(share, mine[-1].number)
                found.update(zip(mine, raws, strict=True))
        return [_Read(place, found[place]) for place in run]

    def _read_alone(self, place: Place) -> RawSample | SampleError:
        try:
            return self._substitutes.read(place.share, place.number)
        except SampleError as error:
            return error

    def _decoded(self, run: Sequence[_Read]) -> list[Sample]:
        return [self._sample(*read) for read in run]

    def _sample(self, place: Place, raw: RawSample | SampleError) -> Sample:
        share = self.mixture.shares[place.share]
        try:
            if isinstance(raw, SampleError):
                raise raw
            return decoded(place, share, place.number, raw)
        except SampleError as error:
            if self.on_error == "stop":
                raise
            return self._substitutes.substitute(place, (Skipped.of(share.name, place.number, error),))

    def instead_of(self, sample: Sample, error: SampleError) -> Sample:
        """Read the sample that takes the place of one that was read but cannot be used. Raises as iterating does."""
        if self.on_error == "stop":
            raise error
        return self._substitutes.substitute(
            sample.place, (*sample.skipped, Skipped.of(sample.source, sample.number, error))
        )

    def state_dict(self) -> State:
        """The reader's position as plain values. Each of several readers has its own: see `merge_states`."""
        return {**self.state_at(self._partition.start), **asdict(self._partition), "taken": self._taken}

    def state_at(self, start: int) -> State:
        """A state from which any number of readers can continue after the first `start` samples of this epoch."""
        return {"mixture": self.mixture.identity, "seed": self.seed, "epoch": self._epoch, "start": start}

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
        self._epoch, self._partition = state["epoch"], partition
        self._shared_epoch.value = state["epoch"]
        self._taken, self._resumed = state.get("taken", 0), True


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


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _SharedNumber:
    """A number that all copies of it in other processes see change, also in those that were forked or spawned."""

    def __init__(self) -> None:
        self._number = [0] if torch is None else torch.zeros(1, dtype=torch.int64)
        if torch is not None:
            with suppress(RuntimeError):  # no shared memory: then DataLoader workers cannot run either
                self._number.share_memory_()  # type: ignore[no-untyped-call]

    @property
    def value(self) -> int:
        return int(self._number[0])

    @value.setter
    def value(self, value: int) -> None:
        self._number[0] = value
