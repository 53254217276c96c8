"""Samples are drawn of all images without results, each with the same chance, and are the same with the same seed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strata.core import (
    FINAL_GROUP,
    ImageReference,
    JobRequest,
    JobSample,
    Record,
    ShardSummaries,
    ShardSummary,
    chosen_shard,
)
from strata.jobs import Population, sample_of
from strata.jobs.new_jobs import new_request
from strata.jobs.sampling import draw
from strata.jobs.sampling.population import _by_version, _distinct, _Picked
from strata.shards import ImageReader, index_shard
from strata.store import IndexRow, Store, is_picked_list, located_rows
from tests.fakes import FAKE_PROFILE, jpeg, write_shard

SIZES = (13, 1, 30, 6)


def _indexed(store: Store, folder: Path, images: int, seed: int) -> tuple[JobRequest, list[ShardSummary]]:
    """A job of a sample of shards with equal keys, which are indexed."""
    shards = []
    for number, size in enumerate(SIZES):
        path = folder / f"{number}.tar"
        if not path.exists():
            write_shard(path, [jpeg(20 + number, 20 + place) for place in range(size)])
        shards.append(str(path))
    sample = sample_of(JobSample(images=images, seed=seed), FAKE_PROFILE)
    request = new_request("batch", shards, FAKE_PROFILE, "lo", {}, [], None, "").model_copy(update={"sample": sample})
    summaries = []
    for shard in shards:
        index = index_shard(shard)
        chunk = request.index_chunk(shard, index.identity)
        store.write_index(chunk, index.table, size=index.size)
        summaries.append(ShardSummary(shard=shard, identity=index.identity, images=index.table.num_rows))
    return request, summaries


def _rows(store: Store, request: JobRequest) -> list[tuple[str, int]]:
    """Where the images of a drawn sample lie, in order."""
    chunks = [request.index_chunk(one.shard, one.identity) for one in request.indexed]
    tables = [store.read_part(chunk)[0] for chunk in chunks]
    return [(row.uri, row.offset) for table in tables for row in located_rows(table, "picked:any")]


def test_a_sample_is_lists_of_one_micro_batch(store: Store, tmp_path: Path) -> None:
    request, summaries = _indexed(store, tmp_path, 11, 5)
    found = draw(store, request, summaries)
    drawn = found.request
    assert drawn.sample is not None and drawn.sample.drawn and not drawn.draws and request.draws
    assert [one.images for one in drawn.indexed] == [2, 2, 2, 2, 2, 1]
    assert drawn.shards == [one.shard for one in drawn.indexed] and all(map(is_picked_list, drawn.shards))
    rows = _rows(store, drawn)
    assert len(set(rows)) == 11
    # keys that several shards have are told apart
    chunks = [drawn.index_chunk(one.shard, one.identity) for one in drawn.indexed]
    keys = [key for chunk in chunks for key in store.read_part(chunk)[0].column("key").to_pylist()]
    assert len(set(keys)) == 11
    # the job's files become those of the sample, but not before its owner writes them
    assert store.read_job_file(request.id, "request") is None
    found.write(store)
    assert store.parse_job_file(request.id, "request", JobRequest) == drawn
    kept = store.parse_job_file(request.id, "shards", ShardSummaries)
    assert kept is not None and kept.shards == drawn.indexed
    population = store.parse_job_file(request.id, "population", Population)
    assert population == Population(
        shards=4, unread=0, images=50, missing={"vision": 50, "llm": 50}, chunks={"vision": 15, "llm": 15}
    )
    # the same seed takes the same images, another one others
    again = draw(store, _indexed(store, tmp_path, 11, 5)[0], summaries).request
    assert again.indexed == drawn.indexed
    assert set(_rows(store, draw(store, _indexed(store, tmp_path, 11, 6)[0], summaries).request)) != set(rows)


@given(st.lists(st.sampled_from(["a", "a~2", "a~3", "a~2~2", "b"]), max_size=12))
def test_keys_of_a_sample_are_distinct(keys: list[str]) -> None:
    rows = [_Picked(IndexRow(key, str(number), 0, 1, None), "", ()) for number, key in enumerate(keys)]
    found = [one.row for one in _distinct(rows)]
    assert len({row.key for row in found}) == len(keys)
    assert [row.uri for row in found] == [one.row.uri for one in rows]
    # the first row with a key keeps it, and the others can be told from it
    assert {row.key for row in found} >= set(keys)
    assert all(row.key.startswith(key) for row, key in zip(found, keys, strict=True))


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("123")), max_size=12))
def test_a_list_has_one_version_of_each_tar(rows: list[tuple[str, str]]) -> None:
    given_rows = [_Picked(IndexRow(str(number), uri, 512, 1), tar, ()) for number, (uri, tar) in enumerate(rows)]
    groups = list(_by_version(given_rows))
    assert sorted(one for group in groups for one in group) == sorted(given_rows)
    for group in groups:
        assert len({(one.row.uri, one.tar) for one in group}) == len({one.row.uri for one in group})
        assert group == sorted(group, key=lambda one: int(one.row.key))
    assert len(groups) == max((len({tar for uri, tar in rows if uri == name}) for name in "ab"), default=0)


def test_every_image_has_the_same_chance(store: Store, tmp_path: Path) -> None:
    found: Counter[tuple[str, int]] = Counter()
    draws, images = 150, 10
    request, summaries = _indexed(store, tmp_path, images, 0)
    assert request.sample is not None
    for seed in range(draws):
        sample = request.sample.model_copy(update={"seed": seed})
        found.update(_rows(store, draw(store, request.model_copy(update={"sample": sample}), summaries).request))
    expected = draws * images / sum(SIZES)
    counts = np.array(list(found.values()), dtype=float)
    assert len(counts) == sum(SIZES) and counts.sum() == draws * images
    # chi square of 49 degrees of freedom is 85 at most with a probability of 0.999; without replacement it is less
    assert ((counts - expected) ** 2 / expected).sum() < 85


def test_images_with_results_and_copies_are_not_drawn(store: Store, tmp_path: Path) -> None:
    request, summaries = _indexed(store, tmp_path, 100, 0)
    # the second chunk of the first shard and the last one of the third have results; the vision of the fourth has
    done = [(0, FINAL_GROUP, 1), (2, FINAL_GROUP, 7), (3, "vision", 0)]
    for shard, group, number in done:
        (chunk,) = request.chunks(summaries[shard], group, [number])
        image = ImageReference(uri=chunk.shard, offset=512, size=1)
        store.write_records(chunk, [Record(key=str(row), image=image) for row in range(chunk.images)])
    copy = tmp_path / "copy.tar"
    copy.write_bytes((tmp_path / "2.tar").read_bytes())
    more = [*summaries, summaries[2].model_copy(update={"shard": str(copy)}), ShardSummary(shard="bad", failure=None)]
    drawn, population = draw(store, request, more)
    assert population.missing == {"vision": 50 - 4 - 2 - 4, "llm": 50 - 4 - 2}
    assert population.images == 80 and population.chunks == {"vision": 12, "llm": 13}
    rows = _rows(store, drawn)
    assert len(rows) == len(set(rows)) == 44 and str(copy) not in {uri for uri, _ in rows}
    # what has results is not among them
    (first,) = request.chunks(summaries[0], FINAL_GROUP, [1])
    index = located_rows(index_shard(first.shard).table, first.shard)[4:8]
    assert not {(row.uri, row.offset) for row in index} & set(rows)


def test_rows_chosen_of_a_sample_are_compared_with_their_tars(store: Store, tmp_path: Path) -> None:
    request, summaries = _indexed(store, tmp_path, 11, 5)
    drawn = draw(store, request, summaries).request
    for whole in drawn.indexed:
        chunk = drawn.index_chunk(whole.shard, whole.identity)
        tars = [row.uri for row in located_rows(store.read_part(chunk)[0], whole.shard)]
        chosen = (chosen_shard(whole.shard, drawn.id, whole.identity), whole.identity + "0" * 16)
        assert ImageReader(store).changed(*chosen, tars) == {}
    for tar in tmp_path.glob("*.tar"):
        tar.write_bytes(tar.read_bytes() + b"\0" * 512)
    assert set(ImageReader(store).changed(*chosen, tars)) == set(tars)


def test_a_lost_index_is_told(store: Store, tmp_path: Path) -> None:
    request, summaries = _indexed(store, tmp_path, 100, 0)
    store.remove(store.part_path(request.index_chunk(summaries[0].shard, summaries[0].identity)))
    with pytest.raises(OSError, match=r"the index of .*0\.tar is gone"):
        draw(store, request, summaries)


def test_nothing_to_draw_is_an_empty_sample(store: Store) -> None:
    sample = sample_of(JobSample(images=5, seed=0), FAKE_PROFILE)
    request = new_request("batch", ["x"], FAKE_PROFILE, "lo", {}, [], None, "").model_copy(update={"sample": sample})
    drawn, population = draw(store, request, [ShardSummary(shard="x")])
    assert drawn.shards == [] and drawn.indexed == [] and population.images == 0
