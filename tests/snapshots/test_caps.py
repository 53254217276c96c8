"""The cap per noun: as MetaCLIP's sampling says, deterministic, and only narrowed by rows that are added."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strata.snapshots import Selection, Snapshots, evenness_of, shares_of
from strata.snapshots.nouns import noun_of, nouns_of
from strata.snapshots.selection import caps
from strata.snapshots.selection.caps import concepts_of, least_caps
from strata.store.store import Store
from tests.described import described, write_part

Hashes = np.typing.NDArray[np.uint64]
NOUNS = ("dog", "cat", "sign", "turtle", "house", "")


@pytest.mark.parametrize(
    ("word", "noun"),
    [
        *(
            ("dog", "dog"),
            ("dogs", "dog"),
            ("buses", "bus"),
            ("cherries", "cherry"),
            ("men", "man"),
            ("women", "woman"),
        ),
        *(("knives", "knife"), ("windows", "window"), ("glass", "glass"), ("building", "building"), ("sign", "sign")),
        *(("bear", "bear"), ("news", "news"), ("the", None), ("left", None), ("red", None), ("standing", None)),
        *(("is", None), ("was", None), ("zzzq", None), ("has", None), ("very", None)),
    ],
)
def test_nouns(word: str, noun: str | None) -> None:
    assert noun_of(word) == noun


def test_nouns_of_texts() -> None:
    texts = pa.chunked_array([["Two DOGS, a dog’s house; the Dog.", None], ["", "A red sign says “NO DOGS”"]])
    rows, nouns, names = nouns_of(texts)
    found = [(int(row), names[noun]) for row, noun in zip(rows, nouns, strict=True)]
    assert found == [(0, "dog"), (0, "house"), (3, "dog"), (3, "sign")]
    assert nouns_of(pa.chunked_array([pa.array([], pa.string())]))[2] == []


def within_cap(texts: pa.ChunkedArray, hashes: Hashes, cap: int) -> np.typing.NDArray[np.bool_]:
    """Which rows stay below a cap of the nouns of their texts."""
    return least_caps(concepts_of(pa.table({"description": texts}), ("nouns",)), hashes) < cap


def test_nouns_and_tags_are_one_concept() -> None:
    table = pa.table(
        {"description": ["Two dogs and a cat.", "A dog.", None], "tag_words": ["dog\ntraffic light", "", "Dogs"]}
    )
    found = concepts_of(table, ("nouns", "tags"))
    named = [(int(row), found.names[name]) for row, name in zip(found.rows, found.numbers, strict=True)]
    assert named == [(0, "cat"), (0, "dog"), (0, "traffic light"), (1, "dog"), (2, "dog")]
    assert list(concepts_of(table, ("tags",)).names) == ["dog", "traffic light"]
    assert len(concepts_of(table.slice(0, 0), ("nouns", "tags")).rows) == 0


@given(
    st.lists(st.tuples(*[st.lists(st.sampled_from(NOUNS), max_size=3).map(" ".join)] * 2), max_size=20),
    st.integers(1, 5),
)
def test_concepts_of_slices_are_those_of_all_rows(rows: list[tuple[str, str]], size: int) -> None:
    texts, tags = (pa.array([row[place] for row in rows], pa.large_string()) for place in (0, 1))
    table = pa.table({"description": texts, "tag_words": pc.replace_substring(tags, " ", "\n")})
    whole = concepts_of(table, ("nouns", "tags"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(caps, "SLICE", size)
        some = concepts_of(table, ("nouns", "tags"))
    assert (list(some.names), list(some.rows), list(some.numbers)) == (
        list(whole.names),
        list(whole.rows),
        list(whole.numbers),
    )
    wanted = {(place, word) for place, row in enumerate(rows) for word in " ".join(row).split()}
    assert {(row, whole.names[name]) for row, name in zip(whole.rows, whole.numbers, strict=True)} == wanted


def test_rows_that_name_no_concept_can_be_selected(store: Store) -> None:
    """As those of a profile without a tagger."""
    part = write_part(store, [described(key) for key in "abc"])
    made = Snapshots(store).create("few", [part], Selection(method="concepts", concepts=("tags",), count=2))
    assert made.manifest.counts.selected == 2 and "tags" not in made.manifest.composition
    assert shares_of({}) == ([], []) and evenness_of({}) == (0, 0)


def rows_of(count: int) -> tuple[pa.ChunkedArray, Hashes]:
    """Texts with one to three nouns by Zipf's law, and their hashes."""
    random = np.random.default_rng(0)
    words = ["dog", "cat", "sign", "turtle", "house", "lamp", "table", "cup", "spoon", "boat"]
    shares = 1 / np.arange(1, 11) ** 2
    drawn = [random.choice(words, random.integers(1, 4), p=shares / shares.sum()) for _ in range(count)]
    return pa.chunked_array([[f"there are {' and '.join(some)}" for some in drawn]]), random.integers(
        0, 2**64, count, np.uint64
    )


def test_common_nouns_lose_rows_and_rare_ones_none() -> None:
    texts, hashes = rows_of(20_000)
    stays = within_cap(texts, hashes, 300)
    rows, nouns, names = nouns_of(texts)
    before, after = (Counter(names[noun] for noun in some) for some in (nouns, nouns[stays[rows]]))
    # what the paper's algorithm keeps on average, computed text by text
    chances = {noun: min(1.0, 300 / before[noun]) for noun in before}
    sets: dict[int, set[str]] = {}
    for row, noun in zip(rows.tolist(), nouns.tolist(), strict=True):
        sets.setdefault(row, set()).add(names[noun])
    wanted = sum(1 - np.prod([1 - chances[noun] for noun in some]) for some in sets.values())
    assert abs(stays.sum() - wanted) < 4 * np.sqrt(wanted)
    # a rare noun loses none; the commonest falls to the cap, and the rows that others keep
    assert all(after[noun] == before[noun] for noun in before if before[noun] <= 300)
    assert before["dog"] > 10_000 and 300 <= after["dog"] < before["dog"] / 3
    alone = pa.chunked_array([["a dog"] * 20_000])
    assert 300 - 60 < within_cap(alone, hashes, 300).sum() < 300 + 60


@given(st.lists(st.lists(st.sampled_from(NOUNS), max_size=3), min_size=1, max_size=40), st.integers(1, 5), st.data())
@settings(max_examples=200)
def test_rows_that_are_added_only_remove_others(texts: list[list[str]], cap: int, data: st.DataObject) -> None:
    hashes = np.array([hash((place, 3)) % 2**64 for place in range(len(texts))], np.uint64)
    column = pa.chunked_array([pa.array([" ".join(some) for some in texts], pa.string())])
    whole = within_cap(column, hashes, cap)
    few = data.draw(st.integers(1, len(texts)))
    part = within_cap(column.slice(0, few), hashes[:few], cap)
    assert not (whole[:few] & ~part).any()
    # a smaller cap keeps a part of the rows, and texts without a noun are limited like any other concept
    assert not (within_cap(column, hashes, 1) & ~whole).any()
    counts = Counter(noun for some in texts for noun in set(filter(None, some)) or {""})
    for place, some in enumerate(texts):
        if any(counts[noun] <= cap for noun in set(filter(None, some)) or {""}):
            assert whole[place]
