"""Which rows a filter chooses of what is pinned, and what may be pinned."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strata.core import Pin, Status
from strata.errors import BrokenStore
from strata.snapshots import FilterError, Selection, Snapshots
from strata.snapshots.chosen import Pinning, chosen_numbers, rows
from strata.store import UnknownSource
from strata.store.store import Store
from tests.described import FINGERPRINT, described, write_part

A, B = "a" * 16, "b" * 16
OTHER = "e" * 16


def numbers(store: Store, pin: Pin, keys: list[str], where: str | None, identity: str = A) -> list[int]:
    (shard,) = (one for one in pin.shards if one.identity == identity)
    return chosen_numbers(store, where, shard, pa.chunked_array([keys]))


Parts = list[list[tuple[int, Status]]]


@st.composite
def parts(draw: st.DrawFn) -> Parts:
    """Parts of one shard, each with rows of so many words and a status."""
    row = st.tuples(st.integers(0, 5), st.sampled_from(list(Status)))
    return draw(st.lists(st.lists(row, min_size=1, max_size=9), min_size=1, max_size=4))


PASSES: dict[str | None, Callable[[int, Status], bool]] = {
    None: lambda words, status: status is Status.SUCCEEDED,
    "words < 3": lambda words, status: status is Status.SUCCEEDED and words < 3,
    "status != 'succeeded'": lambda words, status: status is not Status.SUCCEEDED,
    "words >= 2 and status == 'failed'": lambda words, status: words >= 2 and status is Status.FAILED,
}


@given(parts(), st.sampled_from(list(PASSES)), st.data())
@settings(max_examples=60, deadline=None)
def test_chosen_rows_are_those_that_pass_and_are_meant(
    tmp_path_factory: pytest.TempPathFactory, made: Parts, where: str | None, data: st.DataObject
) -> None:
    store = Store(str(tmp_path_factory.mktemp("store")))
    flat = [(f"{number}-{row}", *values) for number, part in enumerate(made) for row, values in enumerate(part)]
    for number, part in enumerate(made):
        found = enumerate(part)
        write_part(
            store, [described(f"{number}-{row}", words=n, status=status) for row, (n, status) in found], A, number
        )
    meant = {key for key, _, _ in flat}
    name = FINGERPRINT
    succeeded = [key for key, _, status in flat if status is Status.SUCCEEDED]
    pins_snapshot = data.draw(st.booleans())
    if succeeded and pins_snapshot:
        count = data.draw(st.integers(1, len(succeeded)))
        written = list(store.parts_below("parts", "llm", FINGERPRINT))
        snapshot = Snapshots(store).create("s", written, Selection(count=count))
        meant, name = set(snapshot.with_keys(snapshot.rows()).column("key").to_pylist()), "s"
    expected = [place for place, (key, n, status) in enumerate(flat) if key in meant and PASSES[where](n, status)]
    pin = Pinning(store).pin([name], where)
    keys = [key for key, _, _ in flat]
    assert numbers(store, pin, keys, where) == expected
    # what is pinned comes back from the store as it was
    assert Pin.model_validate_json(pin.model_dump_json()) == pin


def test_slices_and_several_sources(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "SLICE", 2)
    keys = [f"{number}{row}" for number in range(5) for row in range(3)]
    for number in range(5):
        write_part(store, [described(f"{number}{row}", words=row) for row in range(3)], A, number)
        write_part(store, [described(f"{number}{row}", words=9) for row in range(3)], A, number, fingerprint=OTHER)
    write_part(store, [described("x", words=0)], B)
    pin = Pinning(store).pin([FINGERPRINT], "words == 1")
    assert numbers(store, pin, keys, pin.where) == [1, 4, 7, 10, 13]
    assert numbers(store, pin, ["x"], pin.where, B) == []
    # an image is chosen if one of its descriptions passes
    both = Pinning(store).pin([FINGERPRINT, OTHER], "words in (2, 9)")
    assert numbers(store, both, keys, both.where) == list(range(15))
    # the newest attempt was pinned, and is found when a newer one has superseded it
    write_part(store, [described("x", words=1)], B, attempt=1)
    assert numbers(store, pin, ["x"], pin.where, B) == []
    for path in [*store.find("parts", "llm"), *store.find("superseded")]:
        store.remove(store.path(path))
    with pytest.raises(BrokenStore, match="not in the store any more"):
        numbers(store, pin, keys, pin.where)


def test_what_cannot_be_pinned(store: Store) -> None:
    write_part(store, [described("x")])
    pinning = Pinning(store)
    for name in ("nothing", "0" * 22, "..", "a/b"):
        with pytest.raises(UnknownSource, match="no such job, snapshot, profile or fingerprint"):
            pinning.pin([name], None)
    with pytest.raises(FilterError):
        pinning.pin([FINGERPRINT], "wrods < 3")
    with pytest.raises(FilterError, match="=="):
        pinning.pin([FINGERPRINT], "status = 'failed'")


def test_what_is_another_tenant_s_does_not_exist(store: Store) -> None:
    write_part(store, [described("x")])
    Snapshots(store).create("theirs", [f"parts/llm/{FINGERPRINT}/{A}/00000.parquet"], Selection(), tenant="b")
    own = Pinning(store, lambda tenant: tenant == "a")
    for name in ("theirs", FINGERPRINT):
        with pytest.raises(UnknownSource) as error:
            own.pin([name], None)
        assert "no such job" in str(error.value) and "theirs" not in error.value.reason
    assert Pinning(store, lambda tenant: tenant == "b").pin(["theirs"], None).shards[0].identity == A
