"""The texts that people left in review: a snapshot keeps them, whatever is judged later."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from strata.core import REVIEWED, layer_named
from strata.data.sources.snapshots import snapshot_rows, snapshot_source
from strata.judgments import Judgments
from strata.snapshots import Cleaning, PictureHashes, Selection, Snapshot, Snapshots, cleaning
from strata.store import Store
from tests.described import described, write_part
from tests.judged import judgment


def texts(store: Store, snapshot: Snapshot) -> dict[str, str | None]:
    return {row["key"]: row["reviewed"] for _, row in snapshot_rows(store, snapshot, ["key", "reviewed"])}


def test_a_snapshot_keeps_what_people_left(store: Store, tmp_path: Path) -> None:
    part = write_part(store, [described(key, words=2) for key in "abcd"])
    untouched = Snapshots(store).create("before", [part], Selection())
    Judgments(store).append([judgment("1", 0, "edited", key="a"), judgment("2", 1, key="b")])
    Judgments(store).append([judgment("3", 2, "rejected", key="c")])
    made = Snapshots(store).create("checked", [part], Selection())
    wanted = {"a": "Better.", "b": "word word", "c": None, "d": None}
    assert texts(store, made) == wanted
    # another choice of texts is another snapshot
    assert made.id != untouched.id and untouched.manifest.selection.reviewed is None
    # what is said later changes the next snapshot, and not this one
    Judgments(store).append([judgment("4", 3, "rejected", key="a", supersedes="judgment-1")])
    assert texts(store, Snapshots(store).open("checked")) == wanted
    assert texts(store, Snapshots(store).create("later", [part], made.manifest.selection)) == {**wanted, "a": None}
    assert texts(store, Snapshots(store).open("before")) == dict.fromkeys("abcd")
    # as a level for training: rows without such a text are no samples
    assert layer_named("reviewed") is REVIEWED
    source = snapshot_source(store, made, "reviewed", tmp_path / "cache")
    assert len(source) == 2
    assert all(one.fault() is None for one in Snapshots(store).all())


def test_both_parts_of_a_split_keep_theirs(store: Store) -> None:
    keys = [f"{n:02}" for n in range(20)]
    part = write_part(store, [described(key, words=2) for key in keys])
    Judgments(store).append([judgment(key, n, key=key) for n, key in enumerate(keys) if n % 2])
    Snapshots(store).create("all", [part], Selection())
    nothing = np.zeros(20, np.int64)
    hashes = PictureHashes([f"{n:064}" for n in range(20)], np.zeros((20, 16), np.uint16), nothing)
    made = Snapshots(store).split("all", 0.3, 0, "bytes", lambda parts, rows: hashes)
    both = [texts(store, one) for one in made]
    assert all(any(found.values()) for found in both)
    assert both[0] | both[1] == {key: "word word" if n % 2 else None for n, key in enumerate(keys)}
    assert all(one.fault() is None for one in made)


def test_a_part_of_a_split_without_a_text_is_whole(store: Store) -> None:
    keys = [f"{n:02}" for n in range(20)]
    part = write_part(store, [described(key, words=2) for key in keys])
    Judgments(store).append([judgment("1", key="00")])
    Snapshots(store).create("all", [part], Selection())
    hashes = PictureHashes([f"{n:064}" for n in range(20)], np.zeros((20, 16), np.uint16), np.zeros(20, np.int64))
    made = Snapshots(store).split("all", 0.3, 0, "bytes", lambda parts, rows: hashes)
    assert sorted(sum(text is not None for text in texts(store, one).values()) for one in made) == [0, 1]
    assert all(one.fault() is None for one in made)


def test_lost_and_changed_texts_are_a_fault(store: Store) -> None:
    part = write_part(store, [described(key) for key in "ab"])
    Judgments(store).append([judgment("1", key="a")])
    made = Snapshots(store).create("one", [part], Selection())
    path = store.path("snapshots", "objects", f"{made.id}.reviewed.parquet")
    content = store.get(path)
    Judgments(store).append([judgment("2", 1, key="b")])
    other = Snapshots(store).create("two", [part], Selection())
    store.put(path, store.get(store.path("snapshots", "objects", f"{other.id}.reviewed.parquet")))
    assert "is damaged: the id is that of other texts" in str(made.fault())
    store.put(path, content[:-10])
    assert "reviewed.parquet is damaged" in str(made.fault())
    store.remove(path)
    assert "reviewed.parquet is missing" in str(made.fault())
    assert other.fault() is None


def test_texts_are_cleaned_with_their_snapshot(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    part = write_part(store, [described("a")])
    Judgments(store).append([judgment("1")])
    made = Snapshots(store).create("one", [part], Selection())
    monkeypatch.setattr(cleaning, "ROWS_AGE", -1.0)
    path = f"snapshots/objects/{made.id}.reviewed.parquet"
    assert path in store.find("snapshots") and path not in Cleaning(store).unreferenced()
    Snapshots(store).delete("one")
    assert path in Cleaning(store).unreferenced()
