"""The reader: one global sequence for any number of readers, also when it is resumed."""

from __future__ import annotations

import itertools
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from strata.core.layers import LAYERS, NOTHING_FOUND, LayerError, layer_named
from strata.data.mixtures import Mixture
from strata.data.permutations import Permutation
from strata.data.prefetch import prefetch_map
from strata.data.reader import Partition, Sample, SampleReader, merge_states
from strata.data.sources.samples import SampleError, TableSource
from strata.data.sources.snapshots import snapshot_source
from strata.data.sources.tables import SampleRow, kept_table
from strata.store.part_files import PartFiles
from strata.store.store import Store
from tests.pinned import pin, write_shards

SHARDS, IMAGES = 3, 7
ALL = SHARDS * IMAGES
BATCH = 4

Seen = tuple[str, int, int, str]


def seen(batch: Sequence[Sample]) -> list[Seen]:
    """Values that identify a sample, and show that its image and text belong together."""
    return [(s.key, s.index, s.image.width - 100, s.conversation[1]["content"]) for s in batch]


def rest(reader: SampleReader) -> list[Seen]:
    """All samples of a reader."""
    return seen(list(reader))


@pytest.fixture
def shards(tmp_path: Path) -> list[str]:
    """Tars with 21 images."""
    return write_shards(tmp_path / "shards", SHARDS, IMAGES)


@pytest.fixture
def mixture(store: Store, shards: list[str], tmp_path: Path) -> Mixture:
    """Their descriptions."""
    return Mixture.of(snapshot_source(store, pin(store, shards), "description", tmp_path / "cache"), "What is it?")


@pytest.mark.parametrize("cores", [1, 64])
def test_samples_are_the_same_with_and_without_decoding_threads(
    mixture: Mixture, cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = rest(SampleReader(mixture, seed=3))
    monkeypatch.setattr("strata.data.reader._cores", lambda: cores)
    assert rest(SampleReader(mixture, seed=3)) == expected
    assert len(expected) == ALL


# the order


@given(st.integers(1, 3000), st.integers(0, 5))
def test_a_permutation_is_one(length: int, seed: int) -> None:
    numbers = Permutation(length, str(seed))(np.arange(length))
    assert sorted(numbers.tolist()) == list(range(length))


def test_a_permutation_is_the_same_everywhere_and_for_ever() -> None:
    assert Permutation(100, "0/0")(np.arange(8)).tolist() == [27, 34, 25, 55, 26, 45, 68, 71]
    assert Permutation(3_300_000, "0/0")(np.arange(3)).tolist() == [1074656, 1430124, 1413789]


def test_a_permutation_shuffles() -> None:
    first = [Permutation(4, str(name))(np.arange(4)).tolist() for name in range(2400)]
    counts = [first.count(list(order)) for order in itertools.permutations(range(4))]
    assert min(counts) > 60 and max(counts) < 140  # 100 each, with a standard deviation of 10
    numbers = Permutation(10_000, "name")(np.arange(10_000))
    assert abs(np.corrcoef(numbers, np.arange(10_000))[0, 1]) < 0.05


def test_every_sample_once_with_its_own_image_and_text(mixture: Mixture) -> None:
    found = rest(SampleReader(mixture, seed=3))
    assert [index for _, index, _, _ in found] == list(range(ALL))
    assert sorted(number for _, _, number, _ in found) == list(range(ALL))
    assert all(key == f"{number:09d}" and text == f"description {key}" for key, _, number, text in found)
    sample = next(iter(SampleReader(mixture)))
    assert sample.image.mode == "RGB" and sample.task == "caption"
    assert [turn["role"] for turn in sample.conversation] == ["user", "assistant"]
    assert sample.conversation[0]["content"] == "What is it?"


def test_seed_and_epoch_make_the_order(mixture: Mixture) -> None:
    reader = SampleReader(mixture, seed=1)
    first = rest(reader)
    assert rest(reader) == first == rest(SampleReader(mixture, seed=1))
    reader.set_epoch(1)
    second = rest(reader)
    assert second != first and sorted(key for key, *_ in second) == sorted(key for key, *_ in first)
    assert rest(SampleReader(mixture, seed=2)) != first
    reader.set_epoch(0)
    assert rest(reader) == first


# partition among readers

LAYOUTS = st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 6))


def dealt(start: int, end: int, ranks: int, workers: int, batch_size: int) -> list[list[int]]:
    """The indexes that each rank gets: the batches of its workers in turn, as a DataLoader takes them."""
    sequences = []
    for rank in range(ranks):
        dealings = [Partition(start, rank, ranks, worker, workers, batch_size) for worker in range(workers)]
        own = [partition.indexes(np.arange(partition.count(end))).tolist() for partition in dealings]
        batches = [[mine[i : i + batch_size] for i in range(0, len(mine), batch_size)] for mine in own]
        turns = itertools.zip_longest(*batches, fillvalue=[])
        sequences.append([index for turn in turns for batch in turn for index in batch])
    return sequences


@given(st.integers(0, 120), st.integers(0, 20), LAYOUTS)
def test_all_readers_together_see_the_one_sequence(count: int, start: int, layout: tuple[int, int, int]) -> None:
    ranks = dealt(start, start + count, *layout)
    merged = [index for turn in itertools.zip_longest(*ranks) for index in turn if index is not None]
    assert merged == list(range(start, start + count))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_batches_are_the_same_for_any_number_of_workers(mixture: Mixture, workers: int) -> None:
    expected = rest(SampleReader(mixture, 1))
    loader = DataLoader(SampleReader(mixture, 1, batch_size=BATCH), BATCH, num_workers=workers, collate_fn=seen)
    assert list(loader) == [expected[i : i + BATCH] for i in range(0, ALL, BATCH)]
    assert len(loader) == 6


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_ranks_with_workers_together_see_the_one_sequence(mixture: Mixture, ranks: int) -> None:
    readers = [SampleReader(mixture, 1, rank, ranks, BATCH) for rank in range(ranks)]
    loaders = [DataLoader(reader, BATCH, num_workers=2, collate_fn=seen) for reader in readers]
    found = [[sample for batch in loader for sample in batch] for loader in loaders]
    assert [len(reader) for reader in readers] == [len(samples) for samples in found]
    assert sorted(itertools.chain(*found), key=lambda sample: sample[1]) == rest(SampleReader(mixture, 1))
    for rank, samples in enumerate(found):
        assert [index for _, index, _, _ in samples] == list(range(rank, ALL, ranks))


def test_workers_may_be_spawned(mixture: Mixture) -> None:
    reader = SampleReader(mixture, 1, batch_size=BATCH)
    loader = DataLoader(reader, BATCH, num_workers=2, collate_fn=seen, multiprocessing_context="spawn")
    assert [sample for batch in loader for sample in batch] == rest(reader)
    assert rest(pickle.loads(pickle.dumps(reader))) == rest(reader)


def test_what_does_not_fill_a_batch_on_every_rank_is_dropped(mixture: Mixture) -> None:
    readers = [SampleReader(mixture, 1, rank, 2, BATCH, drop_last=True) for rank in range(2)]
    assert [len(rest(reader)) for reader in readers] == [len(reader) for reader in readers] == [8, 8]


# resumed


def loader_of(mixture: Mixture, workers: int, rank: int = 0, ranks: int = 1) -> StatefulDataLoader[Any]:
    """A loader of a reader of seed 1."""
    return StatefulDataLoader(SampleReader(mixture, 1, rank, ranks, BATCH), BATCH, num_workers=workers, collate_fn=seen)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stateful_loader_goes_on_where_it_was(mixture: Mixture, workers: int) -> None:
    whole = list(loader_of(mixture, workers))
    for taken in range(len(whole)):
        loader = loader_of(mixture, workers)
        begun = list(itertools.islice(loader, taken))
        state = pickle.loads(pickle.dumps(loader.state_dict()))
        resumed = loader_of(mixture, workers)
        resumed.load_state_dict(state)
        assert begun + list(resumed) == whole, taken
        assert list(resumed) == whole  # and then the epoch from its beginning


def test_a_state_at_any_sample(mixture: Mixture) -> None:
    whole = rest(SampleReader(mixture, 1))
    for taken in range(ALL + 1):
        reader = SampleReader(mixture, 1)
        begun = seen(list(itertools.islice(reader, taken)))
        resumed = SampleReader(mixture, 1)
        resumed.load_state_dict(reader.state_dict())
        assert begun + rest(resumed) == whole
        assert rest(resumed) == whole


def test_another_number_of_readers_goes_on_from_the_merged_state(mixture: Mixture) -> None:
    whole = rest(SampleReader(mixture, 1))
    loaders = [loader_of(mixture, 2, rank=rank, ranks=2) for rank in range(2)]
    for loader in loaders:
        next(iter(loader))
    state = merge_states(loader.state_dict() for loader in loaders)
    assert state["start"] == 2 * BATCH
    one = SampleReader(mixture, 1, batch_size=3)
    one.load_state_dict(state)
    assert [sample for batch in DataLoader(one, 3, num_workers=2, collate_fn=seen) for sample in batch] == whole[8:]
    four = [SampleReader(mixture, 1, rank, 4) for rank in range(4)]
    for reader in four:
        reader.load_state_dict(state)
    assert in_turns(map(rest, four)) == whole[8:]


@pytest.mark.parametrize("before", [1, 2, 4])
def test_readers_go_on_from_any_point_as_any_number(mixture: Mixture, before: int) -> None:
    whole = rest(SampleReader(mixture, 1))
    for end in range(ALL + 1):
        readers = [SampleReader(mixture, 1, rank, before) for rank in range(before)]
        counts = [Partition(rank=rank, ranks=before).count(end) for rank in range(before)]
        begun = [seen(list(itertools.islice(reader, count))) for reader, count in zip(readers, counts, strict=True)]
        state = merge_states(reader.state_dict() for reader in readers)
        for after in (1, 2, 4):
            others = [SampleReader(mixture, 1, rank, after) for rank in range(after)]
            for reader in others:
                reader.load_state_dict(state)
            assert in_turns(begun) + in_turns(map(rest, others)) == whole


def in_turns(parts: Iterable[list[Seen]]) -> list[Seen]:
    """The samples of several readers as one sequence."""
    return [sample for turn in itertools.zip_longest(*parts) for sample in turn if sample]


@given(st.integers(0, 60), LAYOUTS, st.integers(0, 12))
def test_merged_states_of_any_layout(count: int, layout: tuple[int, int, int], batches: int) -> None:
    ranks, workers, batch_size = layout
    taken = min(count, batches * batch_size * ranks)
    common = {"mixture": "m", "seed": 0, "epoch": 2, "start": 0}
    states: list[dict[str, Any]] = []
    for rank, worker in itertools.product(range(ranks), range(workers)):
        partition = Partition(0, rank, ranks, worker, workers, batch_size)
        reader = {"rank": rank, "ranks": ranks, "worker": worker, "workers": workers, "batch_size": batch_size}
        states.append({**common, **reader, "taken": partition.count(taken)})
    assert merge_states(states) == {**common, "start": taken}
    if len(states) > 1:
        with pytest.raises(ValueError, match="readers have a state each"):
            merge_states(states[1:])
        states[0]["taken"] += 2 * batch_size * ranks * workers
        with pytest.raises(ValueError, match="different batches"):
            merge_states(states)


def test_states_that_do_not_fit_are_refused(mixture: Mixture, tmp_path: Path, store: Store) -> None:
    reader = SampleReader(mixture, 1, batch_size=BATCH)
    state = reader.state_dict()
    with pytest.raises(ValueError, match="of another seed"):
        SampleReader(mixture, 2, batch_size=BATCH).load_state_dict(state)
    with pytest.raises(ValueError, match="merge_states"):
        SampleReader(mixture, 1, batch_size=2).load_state_dict(state)
    other = Mixture.of(mixture.shares[0].source, "Another question?")
    with pytest.raises(ValueError, match="of another mixture"):
        SampleReader(other, 1, batch_size=BATCH).load_state_dict(state)
    later = SampleReader(mixture, 1, batch_size=BATCH)
    later.set_epoch(1)
    for states, reason in (
        ([], "no state of a SampleReader"),
        ([{**state, "workers": 2}, {**later.state_dict(), "workers": 2, "worker": 1}], "different mixtures, epochs"),
    ):
        with pytest.raises(ValueError, match=reason):
            merge_states(states)


def test_an_epoch_that_is_set_again_keeps_the_place(mixture: Mixture) -> None:
    whole = rest(SampleReader(mixture, 1))
    reader = SampleReader(mixture, 1)
    reader.load_state_dict(reader.state_at(5))
    reader.set_epoch(0)  # as trainers do before they iterate
    assert rest(reader) == whole[5:]
    reader.load_state_dict(reader.state_at(5))
    reader.set_epoch(1)
    assert len(rest(reader)) == ALL


# changed shards


def test_a_vanished_shard_is_named(mixture: Mixture, shards: list[str]) -> None:
    Path(shards[1]).unlink()
    with pytest.raises(SampleError, match=rf"^no such shard: {shards[1]}$"):
        rest(SampleReader(mixture, on_error="stop"))
    loader = DataLoader(SampleReader(mixture, on_error="stop"), BATCH, num_workers=2, collate_fn=seen)
    with pytest.raises(SampleError, match=f"no such shard: {shards[1]}"):
        list(loader)
    assert mixture.shares[0].source.missing().lines == [f"no such shard: {shards[1]}"]


def test_a_changed_shard_is_named(mixture: Mixture, shards: list[str]) -> None:
    os.utime(shards[2], (1, 1))
    rest(SampleReader(mixture))  # another time stamp alone is no change
    data = Path(shards[2]).read_bytes()
    Path(shards[2]).write_bytes(data.replace(b"000000000.txt", b"000000007.txt").replace(b"\xff\xd8", b"\0\0"))
    with pytest.raises(SampleError, match=rf"^{shards[2]} has changed since it was indexed"):
        rest(SampleReader(mixture, on_error="stop"))


def test_a_shard_that_changes_while_it_is_read_is_named(mixture: Mixture, shards: list[str]) -> None:
    source = mixture.shares[0].source
    assert isinstance(source, TableSource)
    list(SampleReader(mixture))  # has checked all shards
    Path(shards[0]).write_bytes(b"x" * Path(shards[0]).stat().st_size)
    os.utime(shards[0], (1, 1))
    with pytest.raises(SampleError, match=rf"^{shards[0]} has changed since it was indexed"):
        rest(SampleReader(mixture, on_error="stop"))
    rows = {row.uri: number for number, row in enumerate(source.table.rows(range(ALL)))}
    Path(shards[1]).write_bytes(b"")
    with pytest.raises(SampleError, match=rf"^{shards[1]} has changed since it was indexed"):
        source.read([rows[shards[1]]])
    Path(shards[1]).unlink()
    with pytest.raises(SampleError, match=rf"^no such shard: {shards[1]}$"):
        source.read([rows[shards[1]]])


def test_an_image_that_is_none_is_named(store: Store, tmp_path: Path, shards: list[str]) -> None:
    snapshot = pin(store, shards)
    path = Path(shards[0])
    data, written = path.read_bytes(), path.stat()
    path.write_bytes(data.replace(b"\xff\xd8", b"\0\0"))
    os.utime(path, ns=(written.st_atime_ns, written.st_mtime_ns))  # so that the change cannot be detected
    mixture = Mixture.of(snapshot_source(store, snapshot, "caption", tmp_path / "cache"), "?")
    with pytest.raises(SampleError, match=rf"^{path}, image 00000000\d: not_an_image"):
        rest(SampleReader(mixture, on_error="stop"))


# layers and tables


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        ("alt_text", "alt 0"),
        ("caption", "caption 000000000"),
        ("regions", "thing 000000000; an edge"),
        ("description", "description 000000000"),
    ],
)
def test_the_text_of_a_layer(store: Store, shards: list[str], tmp_path: Path, layer: str, text: str) -> None:
    source = snapshot_source(store, pin(store, shards[:1]), layer, tmp_path / "cache")
    assert source.read([0])[0].turns == [text]


def test_what_the_text_of_a_layer_leaves_out() -> None:
    entry = {"phrase": "a dog", "kept": False, "text": "A dog."}
    kept, nameless = {**entry, "kept": True}, {**entry, "kept": True, "phrase": None}
    for name, layer in LAYERS.items():
        assert layer.text_of({name: None}) is None
    assert LAYERS["alt_text"].text_of({"alt_text": "  "}) is None
    assert LAYERS["caption"].text_of({"caption": entry}) is None
    assert LAYERS["description"].text_of({"description": {"text": NOTHING_FOUND, "sentences": []}}) is None
    assert LAYERS["objects"].text_of({"objects": [entry, nameless]}) is None
    assert LAYERS["objects"].text_of({"objects": [entry, kept, nameless, kept]}) == "a dog; a dog"
    assert LAYERS["text"].text_of({"text": [kept, entry, kept]}) == "A dog.\nA dog."
    with pytest.raises(LayerError, match=r"no layer 'poem'; there are alt_text, caption"):
        layer_named("poem")


def test_rows_without_text_are_no_samples(store: Store, shards: list[str], tmp_path: Path) -> None:
    assert len(snapshot_source(store, pin(store, shards), "objects", tmp_path / "cache")) == 0


def test_parts_are_read_once(store: Store, shards: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = pin(store, shards)
    first = snapshot_source(store, snapshot, "caption", tmp_path / "cache")
    monkeypatch.delattr(PartFiles, "read_columns")
    again = snapshot_source(store, snapshot, "caption", tmp_path / "cache")
    assert len(again) == ALL and again.table.rows(range(ALL)) == first.table.rows(range(ALL))
    with pytest.raises(AttributeError):
        snapshot_source(store, snapshot, "description", tmp_path / "cache")


def test_a_table_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    def rows() -> Iterator[SampleRow]:
        for number in range(10_000):
            yield SampleRow(str(number), "uri", number, 1, "", ["text", str(number)])

    def broken() -> Iterator[SampleRow]:
        yield from rows()
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        kept_table(tmp_path, "name", broken)
    assert list(tmp_path.iterdir()) == []
    table = kept_table(tmp_path, "name", rows)
    assert len(table) == 10_000 and table.files() == [("uri", "", "0")]
    assert [row.offset for row in table.rows([9999, 0, 4096, 4095])] == [9999, 0, 4096, 4095]
    assert len(list(tmp_path.iterdir())) == 1


def test_work_ahead_is_in_order_and_bounded() -> None:
    asked: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(100):
            asked.append(number)
            yield number

    double: Callable[[int], int] = lambda number: 2 * number  # noqa: E731
    results = prefetch_map(double, numbers(), 4)
    assert next(results) == 0 and len(asked) == 4
    assert list(results) == list(range(2, 200, 2))
    with pytest.raises(ZeroDivisionError):
        list(prefetch_map(lambda number: 1 // number, [1, 0], 2))


def test_without_torch_the_reader_is_an_iterable(mixture: Mixture, tmp_path: Path) -> None:
    reader = tmp_path / "reader"
    reader.write_bytes(pickle.dumps(mixture))
    program = (
        "import sys; sys.modules['torch'] = None; sys.modules['torch.utils.data'] = None\n"
        "import pickle; from strata.data.reader import SampleReader\n"
        "print(*(sample.key for sample in SampleReader(pickle.load(open(sys.argv[1], 'rb')), 1)))"
    )
    done = subprocess.run([sys.executable, "-c", program, reader], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [key for key, *_ in rest(SampleReader(mixture, 1))]
