"""Clusters of embeddings: the same for the same rows, kept with a snapshot, and what selections make of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strata.cli.rendering.snapshots import selection_line
from strata.core import feature_fingerprint
from strata.core.layers.features import part_schema
from strata.errors import InvalidInput
from strata.publishing.papers.rules import rules_of
from strata.snapshots.cleaning import ROWS_AGE, Cleaning
from strata.snapshots.selection import Clusters, Selection
from strata.snapshots.selection.axes import axes_of
from strata.snapshots.selection.clusters import cluster_count, find_clusters, nearest, novelty_of
from strata.snapshots.snapshots import Snapshots
from strata.store import Provenance
from strata.store.feature_parts import FeatureKind, MissingFeatures, keep_kind, write_features
from strata.store.part_paths import Part
from strata.store.store import Store
from tests.described import FINGERPRINT, described, write_part

WAY, ROWS = "e" * 16, 24  # rows of a part
THINGS = ("car", "dog", "cup")
BY_CLUSTER = Selection(method="balanced", axes=axes_of(["cluster:3"], []), count=30)


def vectors_of(count: int, seed: int = 0) -> tuple[np.typing.NDArray[np.float16], np.typing.NDArray[np.int64]]:
    """Vectors near one of three directions, of which half are near the first, and which it is."""
    random = np.random.default_rng(seed)
    groups = random.choice(3, count, p=[0.5, 0.3, 0.2])
    vectors = np.eye(8)[groups] + 0.15 * random.standard_normal((count, 8))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16), groups


def embedded_parts(store: Store, parts: int = 4, seed: int = 0) -> list[Part]:
    """Parts whose rows show the thing of their vector's group; the first row of each has no vector."""
    known = Provenance(fingerprint=FINGERPRINT, settings={"chunk_size": ROWS})
    store.put(store.path("profiles", f"{FINGERPRINT}.json"), known.model_dump_json().encode())
    fingerprint = feature_fingerprint(WAY, ROWS)
    kind = FeatureKind(fingerprint=fingerprint, stage="embedding", way=WAY, profile="fake", chunk_size=ROWS)
    keep_kind(store, kind)
    made = []
    for number in range(parts):
        vectors, groups = vectors_of(ROWS, seed + number)
        records = [described(f"{seed}-{number}-{n:02d}", [THINGS[group]]) for n, group in enumerate(groups)]
        part = write_part(store, records, identity=f"{seed:016d}", number=number)
        lists = [None, *(vector.tolist() for vector in vectors[1:])]
        columns = [pa.array([record.key for record in records]), pa.array(lists, pa.list_(pa.float16()))]
        failures = pa.array(["broken", *[None] * (ROWS - 1)], pa.string())
        write_features(store, part, kind, "a.tar", pa.table([*columns, failures], schema=part_schema("embedding")))
        made.append(part)
    return made


def test_the_number_of_clusters_does_not_change_with_a_few_rows() -> None:
    assert cluster_count(427_000) == cluster_count(469_700) == 512
    assert (cluster_count(0), cluster_count(10), cluster_count(3_300_000), cluster_count(10**9)) == (2, 4, 2048, 4096)


def test_clusters_are_those_of_the_rows_in_whatever_order_they_stand() -> None:
    vectors, groups = vectors_of(300)
    hashes = np.random.default_rng(1).integers(0, 2**64, 300, np.uint64)
    things = pa.chunked_array([[THINGS[group] for group in groups]])
    first, places = find_clusters(vectors, hashes, things, 3)
    # the largest first, named after what its rows show
    assert first.names == ("c0 car", "c1 dog", "c2 cup")
    assert np.array_equal(places, groups) and np.array_equal(nearest(vectors, first.centroids), groups)
    order = np.random.default_rng(2).permutation(300)
    again, _ = find_clusters(vectors[order], hashes[order], things.take(pa.array(order)), 3)
    assert again.digest == first.digest == Clusters.of_table(first.to_table()).digest
    # rows without a vector belong to none
    vectors[:5] = 0
    places = nearest(vectors, first.centroids)
    assert set(places[:5]) == {-1} and set(first.labels(places).to_pylist()[:5]) == {"none"}
    assert len(find_clusters(vectors[:7], hashes[:7], things.slice(0, 7), 3)[0].names) == 2
    with pytest.raises(InvalidInput, match="no row has an embedding"):
        find_clusters(vectors[:5], hashes[:5], things.slice(0, 5))


@given(st.lists(st.tuples(st.integers(-1, 2), st.integers(0, 3)), min_size=1, max_size=30), st.integers(0, 99))
@settings(max_examples=150)
def test_novelty_is_the_distance_to_the_nearest_better_row(rows: list[tuple[int, int]], seed: int) -> None:
    places, worth = (np.array(column) for column in zip(*rows, strict=True))
    vectors, hashes = vectors_of(len(rows), seed)[0].astype(np.float32), np.arange(len(rows), dtype=np.uint64)
    found = novelty_of(vectors, places, worth.astype(float), hashes)
    for row, (place, own) in enumerate(rows):
        better = [other for other, (at, much) in enumerate(rows) if at == place and (much, -other) > (own, -row)]
        cosines = [float(vectors[row] @ vectors[other]) for other in better]
        expected = 0 if place < 0 else 1 - max([0.0, *cosines])
        assert found[row] == pytest.approx(max(0.0, expected), abs=1e-5)


def test_a_large_cluster_is_compared_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, _ = vectors_of(200)
    worth = np.random.default_rng(0).random(200)
    given = (vectors, np.zeros(200, np.int64), worth, np.arange(200, dtype=np.uint64))
    whole = novelty_of(*given)
    monkeypatch.setattr("strata.snapshots.selection.clusters.NEAR", 16)
    assert novelty_of(*given) == pytest.approx(whole, abs=1e-6)
    # only the best are compared with: what is new in the others may be more
    monkeypatch.setattr("strata.snapshots.selection.clusters.BEST", 64)
    some = novelty_of(*given)
    best = np.argsort(-worth)[:64]
    assert some[best] == pytest.approx(whole[best], abs=1e-6) and (some >= whole - 1e-6).all()


def test_a_snapshot_balances_clusters_and_keeps_them(store: Store) -> None:
    snapshots, parts = Snapshots(store), embedded_parts(store)
    made = snapshots.create("first", parts, BY_CLUSTER)
    counts = made.manifest.composition["cluster"]
    assert list(counts) == ["c0 car", "c1 dog", "c2 cup", "other"]  # rows without a vector are others
    after = [count for _, count in counts.values()]
    assert sum(after) == 30 and max(after[:3]) - min(after[:3]) <= 1
    assert counts["other"] == (4, 1)  # their share stays
    assert made.manifest.selection.ways == {"embedding": WAY}
    assert snapshots.create("again", parts[::-1], BY_CLUSTER).id == made.id
    # for other rows the clusters are those of the first snapshot, and only rows are added to each
    more = [*parts, *embedded_parts(store, 2, seed=50)]
    like = snapshots.create("like", more, made.manifest.selection)
    assert like.manifest.selection.centroids == made.manifest.selection.centroids
    assert like.manifest.selection.axes == made.manifest.selection.axes
    old = set(made.with_keys(made.rows()).column("key").to_pylist())
    now = [key for key in like.with_keys(like.rows()).column("key").to_pylist() if key.startswith("0-")]
    assert set(now) <= old
    assert made.fault() is None and like.fault() is None
    # how many there are is shown, and told if they are fewer than was asked for
    assert "by cluster (3), cluster=other at most" in selection_line(made.manifest.selection)
    assert "Balanced by cluster, with the 3 clusters." in " ".join(rules_of(made.manifest.selection))
    told = list[str]()
    few = Selection(method="balanced", axes=axes_of(["cluster:1000"], []), count=30)
    many = snapshots.create("many", parts, few, tell=told.append)
    found = len(many.manifest.selection.axes[0].names or ())
    assert told == [f"there are {found} clusters, not 1,000: no more rows have an embedding"] and found < 100


def test_clusters_can_be_filtered_and_split_but_not_without_embeddings(store: Store) -> None:
    snapshots, parts = Snapshots(store), embedded_parts(store)
    kept = snapshots.create("first", parts, BY_CLUSTER).manifest.selection
    asked = Selection(where="cluster == 'c1 dog'", centroids=kept.centroids)
    dogs = snapshots.create("dogs", parts, asked)
    things = dogs.manifest.composition["thing"]
    assert things["dog"][1] == dogs.manifest.counts.selected > 10
    rule = Selection(leave_out=(("cups", "cluster == 'c2 cup'"),), centroids=kept.centroids)
    without = snapshots.create("without", parts, rule)
    assert len(list(without.left_out())) == without.manifest.counts.left_out["cups"] > 5
    other = write_part(store, [described("x")], fingerprint="9" * 16)
    with pytest.raises(MissingFeatures):
        snapshots.create("missing", [other], BY_CLUSTER)
    with pytest.raises(InvalidInput, match="lost the clusters"):
        snapshots.create("lost", parts, asked.model_copy(update={"centroids": "0" * 64}))


def test_clusters_are_kept_as_long_as_a_snapshot_has_them(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strata.snapshots.cleaning.ROWS_AGE", -1.0)
    assert ROWS_AGE > 0
    snapshots, parts = Snapshots(store), embedded_parts(store)
    made = snapshots.create("first", parts, Selection(method="diverse", count=20))
    path = f"snapshots/objects/{made.manifest.selection.centroids}.centroids.parquet"
    assert store.exists(store.path(path)) and path not in Cleaning(store).unreferenced()
    store.put(store.path(path), b"no Parquet")
    assert "is damaged" in str(made.fault())
    store.remove(store.path(path))
    assert made.fault() == f"{path} is missing"
    snapshots.create("second", parts, Selection(method="diverse", count=20))
    assert made.fault() is None
    snapshots.delete("first")
    assert path not in Cleaning(store).unreferenced()
    snapshots.delete("second")
    assert path in Cleaning(store).unreferenced()


@pytest.mark.parametrize("axes", [(), axes_of(["thing:2"], [])])
def test_a_diverse_snapshot_tells_what_it_did_to_clusters(store: Store, axes: Any) -> None:
    parts = embedded_parts(store)
    made = Snapshots(store).create("first", parts, Selection(method="diverse", share=0.25, axes=axes))
    after = {label: counts[1] for label, counts in made.manifest.composition["cluster"].items()}
    assert sum(after.values()) == made.manifest.counts.selected == 24
