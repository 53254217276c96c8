"""The reader: samples of a snapshot or a mixture as image and conversation, in one global order.

    source = snapshot_source(store, snapshot, "description")             # strata.data.snapshot_sources
    mixture = Mixture.of(source, "Describe this image.")                 # strata.data.mixtures
    reader = SampleReader(mixture, seed=1, batch_size=8)
    loader = StatefulDataLoader(reader, batch_size=8, num_workers=4, collate_fn=...)
    for epoch in range(3):
        reader.set_epoch(epoch)
        for batch in loader: ...                                         # batch: what collate_fn made of 8 Samples

The order follows from mixture, seed and epoch alone. Of what is left of it, sample i goes to rank i mod ranks; a
rank's samples are dealt to its DataLoader workers by whole batches, as the DataLoader takes them. So the samples of
all readers together, and the batches that a DataLoader gives, are the same whatever the number of workers; give the
reader the DataLoader's batch size for that.

The reader is a torch IterableDataset where torch is installed, and an iterable where it is not. It keeps nothing in
memory that grows with the samples, and can be pickled, so that workers may be spawned.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from strata.core import images
from strata.data.mixtures import Mixture, Share
from strata.data.permutations import Numbers
from strata.data.prefetch import map_ahead
from strata.data.sample_sources import RawSample

try:
    from torch.utils.data import IterableDataset, get_worker_info
except ImportError:  # then there is no DataLoader either
    from collections.abc import Iterable as IterableDataset  # type: ignore[assignment]

    def get_worker_info() -> None:
        """Nobody's worker."""


MAX_PIXELS = 100_000_000
THREADS = 16  # reads side by side: a bucket answers one in some 30 ms
DECODERS = 2  # Pillow lets other threads run while it decodes; each has a run of images ready
RUN = 16  # samples of one read
WINDOW = 1024  # samples whose order is computed at a time

State = dict[str, Any]


class _Run(NamedTuple):
    """Samples that are read together: places in the epoch, shares, and numbers in the shares' sources."""

    places: list[int]
    shares: list[int]
    numbers: list[int]


class _Read(NamedTuple):
    """A sample with its place in the epoch, its share, and its number in the share's source."""

    place: int
    share: Share
    number: int
    raw: RawSample


@dataclass(frozen=True)
class Sample:
    """One sample.

    image: RGB, upright. conversation: turns {"role": "user" | "assistant", "content": text}, the user's first.
    index: its place in the epoch.
    """

    key: str
    image: Image.Image
    conversation: list[dict[str, str]]
    task: str
    index: int


@dataclass(frozen=True)
class Dealing:
    """How an epoch's samples from `start` on are dealt out, and which of the readers this is."""

    start: int = 0
    rank: int = 0
    ranks: int = 1
    worker: int = 0
    workers: int = 1
    batch_size: int = 1

    def places(self, numbers: Numbers) -> Numbers:
        """Where in the epoch this reader's samples stand, by their numbers among its own."""
        block, inside = numbers // self.batch_size, numbers % self.batch_size
        of_rank = (block * self.workers + self.worker) * self.batch_size + inside
        return self.start + self.rank + of_rank * self.ranks

    def count(self, end: int) -> int:
        """How many of the samples from start to end are this reader's."""
        of_rank = max(0, -(-(end - self.start - self.rank) // self.ranks))
        blocks, rest = divmod(of_rank, self.batch_size)
        rounds, last = divmod(blocks, self.workers)
        return (rounds + (self.worker < last)) * self.batch_size + (rest if self.worker == last else 0)


class SampleReader(IterableDataset[Sample]):
    """Reads a mixture's samples, in the order of a seed and an epoch.

    rank, ranks: which of several training processes this is. batch_size: the DataLoader's. drop_last: leave out what
    would not give every rank a whole batch at the end of an epoch.

    Iterating raises SampleError for a shard or file that has vanished or changed, or holds no image.
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
        self._dealing = Dealing(rank=rank, ranks=ranks, batch_size=batch_size)
        self._end = len(mixture) - (len(mixture) % (ranks * batch_size) if drop_last else 0)
        self._taken = 0
        self._resumed = False

    def __len__(self) -> int:
        """Samples of this rank in an epoch."""
        return replace(self._dealing, start=0, worker=0, workers=1).count(self._end)

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of another epoch; to set the one that it is in changes nothing."""
        if epoch != self.epoch:
            self.epoch, self._dealing = epoch, replace(self._dealing, start=0)
            self._taken, self._resumed = 0, False

    def __iter__(self) -> Iterator[Sample]:
        """The samples from the beginning of the epoch, or once from where a loaded state stands."""
        if not self._resumed:
            self._dealing, self._taken = replace(self._dealing, start=0), 0
        self._resumed = False
        worker, workers = _worker()
        self._dealing = replace(self._dealing, worker=worker, workers=workers)
        return self._samples()

    def _samples(self) -> Iterator[Sample]:
        read = map_ahead(self._read, self._runs(), THREADS)
        for sample in chain.from_iterable(map_ahead(_decoded, read, DECODERS)):
            self._taken += 1
            yield sample

    def _runs(self) -> Iterator[_Run]:
        """What this reader has still to read, in order."""
        order, end = self.mixture.order(self.seed, self.epoch), self._dealing.count(self._end)
        for first in range(self._taken, end, WINDOW):
            places = self._dealing.places(np.arange(first, min(first + WINDOW, end)))
            shares, numbers = self.mixture.locate(order(places), self.seed)
            for start in range(0, len(places), RUN):
                part = slice(start, start + RUN)
                yield _Run(places[part].tolist(), shares[part].tolist(), numbers[part].tolist())

    def _read(self, run: _Run) -> list[_Read]:
        """The samples of a run."""
        found: dict[int, RawSample] = {}
        for chosen in set(run.shares):
            mine = [place for place, share in enumerate(run.shares) if share == chosen]
            raws = self.mixture.shares[chosen].source.read([run.numbers[place] for place in mine])
            found.update(zip(mine, raws, strict=True))
        shares = [self.mixture.shares[share] for share in run.shares]
        in_order = (found[place] for place in range(len(found)))
        return [_Read(*sample) for sample in zip(run.places, shares, run.numbers, in_order, strict=True)]

    def state_dict(self) -> State:
        """Where this reader stands, as plain values. Of many readers each has its own: see `merge_states`."""
        return {**self.state_at(self._dealing.start), **asdict(self._dealing), "taken": self._taken}

    def state_at(self, start: int) -> State:
        """Where readers of any number and kind begin if the first `start` samples of this epoch have been taken."""
        return {"mixture": self.mixture.identity, "seed": self.seed, "epoch": self.epoch, "start": start}

    def load_state_dict(self, state: State) -> None:
        """Go on from a state: of `merge_states` or `state_at`, or of a reader with the same place among as many.

        Raises ValueError for the state of another mixture or seed, or of a reader of another place.
        """
        for name, mine in (("mixture", self.mixture.identity), ("seed", self.seed)):
            if state[name] != mine:
                raise ValueError(f"the state is of another {name}: {state[name]}, not {mine}")
        worker, workers = _worker()
        dealing = replace(self._dealing, start=state["start"], worker=worker, workers=workers)
        if "taken" in state and any(state[name] != value for name, value in asdict(dealing).items()):
            raise ValueError("the state is of a reader among others or of another batch size: use merge_states")
        self.epoch, self._dealing = state["epoch"], dealing
        self._taken, self._resumed = state.get("taken", 0), True


def _decoded(run: Sequence[_Read]) -> list[Sample]:
    return [_sample(*read) for read in run]


def _sample(place: int, share: Share, number: int, raw: RawSample) -> Sample:
    try:
        image = images.decode(raw.data, MAX_PIXELS)
    except images.ImageError as error:
        raise share.source.explain(number, str(error)) from None
    return Sample(raw.key, image, share.conversation(raw.turns), share.task, place)


def merge_states(states: Iterable[Mapping[str, Any]]) -> State:
    """One state of the states of all readers of an epoch, to go on with readers of another number or batch size.

    states: of SampleReader.state_dict, or of StatefulDataLoaders, whose workers' states are found inside.
    Raises ValueError if some are missing, or if the samples that were taken are not the first ones of the epoch.
    """
    found = [state for given in states for state in _reader_states(given)]
    if not found:
        raise ValueError("no reader's state is in there")
    first, places = found[0], {(state["rank"], state["worker"]) for state in found}
    common = {name: first[name] for name in ("mixture", "seed", "epoch", "start", "ranks", "workers", "batch_size")}
    if any(state[name] != value for state in found for name, value in common.items()):
        raise ValueError("the states are of different mixtures, epochs or numbers of readers")
    if len(found) != len(places) or len(places) != common["ranks"] * common["workers"]:
        raise ValueError(f"{common['ranks'] * common['workers']} readers have a state each, {len(places)} are given")
    end = common["start"] + sum(state["taken"] for state in found)
    for state in found:
        dealing = Dealing(**{field.name: state[field.name] for field in fields(Dealing)})
        if dealing.count(end) != state["taken"]:
            raise ValueError("the readers stand at different batches: save their states after the same one")
    return {name: common[name] for name in ("mixture", "seed", "epoch")} | {"start": end}


def _reader_states(value: Any) -> Iterator[State]:
    """The states of readers, wherever in nested mappings they are."""
    if isinstance(value, Mapping):
        if "taken" in value and "mixture" in value:
            yield dict(value)
        else:
            for inner in value.values():
                yield from _reader_states(inner)


def _worker() -> tuple[int, int]:
    """This DataLoader worker's number, and how many there are."""
    info = get_worker_info()
    return (info.id, info.num_workers) if info else (0, 1)
