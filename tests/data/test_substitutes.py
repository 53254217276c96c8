"""Samples that cannot be read: which samples take their places, and when reading ends instead."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from strata.data.mixtures import Mixture, Share
from strata.data.reader import SampleReader, merge_states
from strata.data.samples import Place
from strata.data.sources.files import conversation_source
from strata.data.sources.samples import Cause, SampleError
from strata.data.substitutes import SkipLimit, SourceAway, Substitutes, TooManySkipped
from tests.data.fragile import BATCH, Fragile, fragile_mixture, reader_of, seen
from tests.data.test_mixtures import llava, write_json
from tests.fakes import jpeg


def test_broken_samples_are_replaced_by_others_of_their_source_and_the_rest_is_as_before() -> None:
    found = list(reader_of(fragile_mixture()))
    whole = Mixture(
        [Share(share.name, "t", Fragile(len(share.source)), share.count, "?") for share in fragile_mixture().shares]
    )
    expected = list(reader_of(whole))
    assert [(one.index, one.source) for one in found] == [(one.index, one.source) for one in expected]
    for one, before in zip(found, expected, strict=True):
        assert one.key == before.key if not one.skipped else one.skipped[0].key == before.key
    skipped = [entry for one in found for entry in one.skipped if entry.source == "a"]
    assert {entry.number for entry in skipped} == {3, 9, 15, 21, 27, 33, 39}
    assert {entry.reason for entry in skipped if entry.number in (3, 9)} == {
        "file 3 is broken",
        "file 9: not_an_image: the first bytes match no image format",
    }
    assert all(entry.uri == f"uri{entry.key}" for entry in skipped)
    # chains of broken samples
    assert max(len(one.skipped) for one in found if one.source == "b") > 2
    assert {one.key for one in found if one.source == "b"} <= {"9", "10", "11"}


def test_an_epoch_replaces_by_other_samples_than_the_one_before() -> None:
    reader = reader_of(fragile_mixture())
    found = []
    for epoch in range(4):
        reader.set_epoch(epoch)
        found.append({one.skipped[0].number: one.key for one in reader if one.source == "a" and one.skipped})
    assert len({tuple(sorted(one.items())) for one in found}) == 4


@pytest.mark.parametrize(("ranks", "workers"), [(1, 0), (1, 2), (2, 1), (3, 0)])
def test_any_readers_and_any_resume_replace_alike(ranks: int, workers: int) -> None:
    whole = seen(list(reader_of(fragile_mixture())))

    def loaders(state: dict[str, Any] | None = None) -> list[StatefulDataLoader[Any]]:
        readers = [reader_of(fragile_mixture(), rank=rank, ranks=ranks) for rank in range(ranks)]
        if state:
            for reader in readers:
                reader.load_state_dict(state)
        return [StatefulDataLoader(one, BATCH, num_workers=workers, collate_fn=seen) for one in readers]

    begun = loaders()
    first = [one for loader in begun for one in next(iter(loader))]
    state = merge_states(loader.state_dict() for loader in begun)
    rest = [one for loader in loaders(state) for batch in loader for one in batch]
    assert sorted(first + rest) == whole


@given(st.integers(1, 40), st.sets(st.integers(0, 39)), st.integers(0, 3), st.integers(1, 5))
def test_any_set_of_broken_samples(count: int, broken: set[int], seed: int, readers: int) -> None:
    damaged = frozenset(number for number in broken if number < count and number % 2)
    bad: dict[int, Cause] = {number: "content" for number in broken if number < count and not number % 2}
    mixture = Mixture.of(Fragile(count, bad, damaged), "?")
    parts = [reader_of(mixture, seed=seed, rank=rank, ranks=readers, batch_size=1) for rank in range(readers)]
    if len(bad) + len(damaged) == count:
        with pytest.raises(TooManySkipped, match="samples of this source, one after the other, cannot be read"):
            list(parts[0])
        return
    found = sorted(one for part in parts for one in seen(list(part)))
    assert [index for index, *_ in found] == list(range(count))
    assert not {int(key) for _, _, key, _ in found} & {*bad, *damaged}
    assert {int(skipped[0]) for *_, skipped in found if skipped} == {*bad, *damaged}
    assert found == seen(list(reader_of(mixture, seed=seed)))


def test_good_neighbours_of_broken_samples_are_read() -> None:
    mixture = Mixture.of(Fragile(52, dict.fromkeys((0, 13, 26, 39), "content")), "?")
    found = list(reader_of(mixture))
    assert sum(not one.skipped for one in found) == 48
    assert mixture.shares[0].source.reads < 52 + 3 * 16  # type: ignore[attr-defined]  # only runs with a broken one


def test_stop_raises_for_the_first() -> None:
    with pytest.raises(SampleError, match=r"^file \d+"):
        list(reader_of(fragile_mixture(), on_error="stop"))


def test_a_real_folder(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number in range(6):
        (tmp_path / "images" / f"{number}.jpg").write_bytes(jpeg(64))
    (tmp_path / "images" / "1.jpg").unlink()
    (tmp_path / "images" / "2.jpg").write_text("<!DOCTYPE html><html>404</html>")
    (tmp_path / "images" / "3.jpg").write_bytes(jpeg(64)[:400])
    path = write_json(tmp_path / "llava.json", [llava(number) for number in range(6)])
    source = conversation_source(path, str(tmp_path), tmp_path / "cache")
    found = [entry for one in reader_of(Mixture.of(source, "?")) for entry in one.skipped]
    reasons = {entry.key: entry.reason for entry in found}
    assert set(reasons) == {"l1", "l2", "l3"}
    assert reasons["l1"] == f"{tmp_path}/images/1.jpg, image l1: no such file"
    assert "not_an_image" in reasons["l2"] and "truncated" in reasons["l3"]
    assert {entry.uri for entry in found} == {f"{tmp_path}/images/{number}.jpg" for number in (1, 2, 3)}


# the storage


def test_a_storage_that_comes_back_replaces_nothing() -> None:
    source = Fragile(30, away=25)
    found = list(reader_of(Mixture.of(source, "?"), pauses=(0.0,) * 30))
    assert [one.skipped for one in found] == [()] * 30 and source.away == 0


@pytest.mark.parametrize("cause", ["storage", "absent"])
def test_a_storage_that_stays_away_ends_the_reading(cause: Cause) -> None:
    source = Fragile(30, dict.fromkeys(range(30), cause))
    reader = reader_of(Mixture.of(source, "?"), pauses=(0.0, 0.0))
    with pytest.raises(SourceAway, match=r"^caption: nothing of this source can be read: file \d+ is broken$"):
        list(reader)


def test_a_folder_that_vanishes_while_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number in range(200):
        (tmp_path / "images" / f"{number}.jpg").write_bytes(jpeg(64))
    path = write_json(tmp_path / "llava.json", [llava(number) for number in range(200)])
    mixture = Mixture.of(conversation_source(path, str(tmp_path), tmp_path / "cache"), "?")
    substitutes = Substitutes(mixture, 0, ())
    assert substitutes.read(0, 5).key == "l5"
    (tmp_path / "images").rename(tmp_path / "unmounted")
    with pytest.raises(SourceAway):
        substitutes.read(0, 6)
    (tmp_path / "unmounted").rename(tmp_path / "images")
    assert substitutes.read(0, 6).key == "l6"


def test_a_file_that_its_storage_never_gives_is_broken() -> None:
    mixture = Mixture.of(Fragile(30, {7: "storage"}), "?")
    found = [one for one in reader_of(mixture, pauses=(0.0,)) if one.skipped]
    assert [entry.key for one in found for entry in one.skipped] == ["7"]


def test_the_only_sample_of_a_source() -> None:
    mixture = Mixture.of(Fragile(1, {0: "absent"}), "?")
    with pytest.raises(TooManySkipped, match="file 0 is broken"):
        list(reader_of(mixture))


# the limit


def test_one_of_the_first_ten_is_within_the_limit() -> None:
    SkipLimit(0.01).check(1, 1, "")
    SkipLimit(0.01).check(10, 10, "")
    SkipLimit(0.01).check(20, 2000, "")
    with pytest.raises(
        TooManySkipped, match=r"^11 of the 12 samples read so far cannot be read \(91.7%\); the limit is"
    ):
        SkipLimit(0.01).check(11, 12, "why")
    with pytest.raises(TooManySkipped, match=r"One of them: why$"):
        SkipLimit(0.01).check(21, 2000, "why")
    SkipLimit(0.01).check(37, 2000, "", part=True)
    with pytest.raises(TooManySkipped):
        SkipLimit(0.01).check(39, 2000, "", part=True)


def test_a_reader_stops_above_the_limit() -> None:
    mixture = Mixture.of(Fragile(500, damaged=frozenset(range(0, 500, 4))), "?")
    with pytest.raises(TooManySkipped, match=r"^11 of the \d+ samples read so far cannot be read"):
        list(reader_of(mixture, limit=None))


# samples that the caller cannot use


def test_a_caller_may_refuse_a_sample() -> None:
    reader = reader_of(fragile_mixture())
    whole = list(reader)
    for one in (whole[0], next(one for one in whole if one.skipped)):
        other = reader.instead_of(one, SampleError("too wide", one.key, "uri"))
        assert other.place == one.place and other.source == one.source
        assert [entry.key for entry in other.skipped][: len(one.skipped) + 1] == [
            *(e.key for e in one.skipped),
            one.key,
        ]
        assert other.key not in {entry.key for entry in other.skipped}
        again = reader_of(fragile_mixture()).instead_of(one, SampleError("too wide", one.key, "uri"))
        assert seen([again]) == seen([other])
    with pytest.raises(SampleError, match="too wide"):
        reader_of(fragile_mixture(), on_error="stop").instead_of(whole[0], SampleError("too wide"))


def test_a_place_is_of_its_epoch() -> None:
    reader = reader_of(fragile_mixture())
    reader.set_epoch(3)
    assert {one.place.epoch for one in reader} == {3}
    assert Place(3, 0, 0, 5) != Place(2, 0, 0, 5)


# workers that stay between the epochs


@pytest.mark.parametrize(
    ("loader", "context", "workers"),
    [(DataLoader, "fork", 2), (StatefulDataLoader, "fork", 2), (DataLoader, "spawn", 1)],
)
def test_workers_that_stay_follow_the_epoch(loader: type[Any], context: str, workers: int) -> None:
    reader = reader_of(fragile_mixture())
    stay = loader(
        reader, BATCH, num_workers=workers, collate_fn=seen, persistent_workers=True, multiprocessing_context=context
    )
    found = []
    for epoch in (0, 1, 2, 1):
        reader.set_epoch(epoch)
        found.append([one for batch in stay for one in batch])
    expected = []
    for epoch in (0, 1, 2, 1):
        alone = reader_of(fragile_mixture())
        alone.set_epoch(epoch)
        expected.append(seen(list(alone)))
    assert found == expected and len({tuple(one) for one in found}) == 3


def test_workers_that_stay_go_on_from_a_state_and_then_to_the_next_epoch() -> None:
    def loader(reader: SampleReader) -> StatefulDataLoader[Any]:
        return StatefulDataLoader(reader, BATCH, num_workers=2, collate_fn=seen, persistent_workers=True)

    reader = reader_of(fragile_mixture())
    reader.set_epoch(2)
    whole = list(loader(reader))
    first = loader(reader)
    begun = list(itertools.islice(first, 5))
    state = first.state_dict()
    other = reader_of(fragile_mixture())
    resumed = loader(other)
    resumed.load_state_dict(state)
    assert begun + list(resumed) == whole
    other.set_epoch(3)
    after = [one for batch in resumed for one in batch]
    assert Counter(one[1] for one in after) == Counter(one[1] for batch in whole for one in batch)
    alone = reader_of(fragile_mixture())
    alone.set_epoch(3)
    assert after == seen(list(alone))


@pytest.mark.parametrize("answer", ["", " \n", "<|im_end|>", "<ima<image>ge> "])
def test_an_answer_without_text_is_a_broken_sample(tmp_path: Path, answer: str) -> None:
    """Also one of which nothing is left without control tokens."""
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    turns = [[("human", "What?"), ("gpt", text)] for text in ("a dog", answer, "a cat")]
    entries = [
        {"image": "a.png", "conversations": [{"from": role, "value": text} for role, text in pair]} for pair in turns
    ]
    (tmp_path / "train.json").write_text(json.dumps(entries), encoding="utf-8")
    source = conversation_source(str(tmp_path / "train.json"), str(tmp_path), tmp_path / "cache")
    mixture = Mixture([Share("a", "t", source, 3)])
    found = list(SampleReader(mixture, seed=1, limit=SkipLimit(1.0)))
    assert len(found) == 3 and {one.conversation[-1]["content"] for one in found} <= {"a dog", "a cat"}
    [(skipped,)] = [one.skipped for one in found if one.skipped]
    assert "an answer has no text" in skipped.reason
    with pytest.raises(SampleError, match="an answer has no text"):
        list(SampleReader(mixture, seed=1, on_error="stop"))
