"""Jobs of chosen rows: other models over some images of other jobs, with the same keys, places and texts."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strata.core import (
    ChosenRows,
    JobRequest,
    Record,
    chosen_by,
    chosen_identity,
    chosen_shard,
    source_identity,
    source_shard,
)
from strata.jobs import Chosen, Jobs, Results
from strata.queue import Claim
from strata.snapshots import Cleaning, Deletion, Selection, Snapshots
from strata.snapshots.chosen import Pinning
from strata.store import PartsOf, Store, uploads_of
from tests.fakes import FAKE_PROFILE, FakeMachine, jpeg, wait_for_end, write_shard
from workers import items as worker_items
from workers.indexer import ShardIndexer
from workers.items import ItemReader, WorkItem

FIRST = FAKE_PROFILE
OTHER = FAKE_PROFILE.model_copy(
    update={
        "name": "other",
        "chunk_size": 3,
        "stages": {name: stage.model_copy(update={"revision": "2"}) for name, stage in FAKE_PROFILE.stages.items()},
    }
)


def chosen(jobs: Jobs, names: list[str], where: str | None) -> Chosen:
    return Chosen(ChosenRows(sources=names, where=where), Pinning(jobs.store).pin(names, where))


def run_shards(jobs: Jobs, *shards: str) -> str:
    with FakeMachine(jobs, profile=FIRST, roots=["/"]):
        job = jobs.new.create("batch", list(shards), FIRST, "lo")
        wait_for_end(jobs, job.id)
    return job.id


def run_chosen(jobs: Jobs, names: list[str], where: str | None) -> tuple[str, int]:
    """The id of a job of chosen rows with other models, and how many images `vision` has computed for it."""
    with FakeMachine(jobs, profile=OTHER, roots=["/"]) as machine:
        job = jobs.new.create("batch", [], OTHER, "lo", chosen=chosen(jobs, names, where))
        wait_for_end(jobs, job.id)
        return job.id, machine.vision.images


def records(jobs: Jobs, job_id: str) -> list[Record]:
    page = Results(jobs.request(job_id), jobs.summaries(job_id), jobs.store, jobs.view(job_id).status).page(None, 1000)
    assert page.next is None
    return [row for row in page.rows if isinstance(row, Record)]


def places(rows: list[Record]) -> list[tuple[str, str, int, str | None]]:
    return sorted((row.key, row.image.uri, row.image.offset, row.alt_text) for row in rows)


def two_shards(folder: Path) -> list[str]:
    """Two tars whose keys are the same, with other images."""
    return [
        write_shard(folder / f"{name}.tar", [jpeg(width, 10 + number) for number in range(8)])
        for name, width in (("a", 20), ("b", 30))
    ]


def test_only_the_chosen_images_with_other_models(jobs: Jobs, tmp_path: Path) -> None:
    first = run_shards(jobs, *two_shards(tmp_path))
    where = "'30 by' in description or matches(description, 'by 1[0-2]$')"
    job, computed = run_chosen(jobs, [first], where)
    expected = [row for row in records(jobs, first) if row.width == 30 or (row.height or 0) <= 12]
    assert len(expected) == 11 and computed == 11
    assert places(records(jobs, job)) == places(expected)
    assert {row.profile for row in records(jobs, job)} == {"other"}
    view = jobs.view(job)
    assert view.request_counts.total == view.request_counts.succeeded == 11
    assert (view.shards.total, view.shards.failed) == (2, 0)
    assert view.chosen == ChosenRows(sources=[first], where=where)
    # the same once more is not computed again, and of more rows only those that are new
    assert run_chosen(jobs, [first], where)[1] == 0
    everything, more = run_chosen(jobs, [first], None)
    assert more == 5
    view = jobs.view(everything)
    assert view.request_counts.succeeded == 16 and view.groups["vision"].reused == 11
    # rows are found by key in the shard that holds them, and chosen of what was chosen before
    found = Results(jobs.request(job), jobs.summaries(job), jobs.store, view.status).record("000000000", uri="30")
    assert found is None
    for shard in two_shards(tmp_path):
        hit = Results(jobs.request(job), jobs.summaries(job), jobs.store, view.status).record("000000001", uri=shard)
        assert hit is not None and hit[0].image.uri == shard
    again, _ = run_chosen(jobs, [job], "'20 by' in description")
    assert places(records(jobs, again)) == places([row for row in expected if row.width == 20])


def test_what_a_snapshot_has_and_a_filter_of_it(jobs: Jobs, tmp_path: Path) -> None:
    first = run_shards(jobs, *two_shards(tmp_path))
    snapshots = Snapshots(jobs.store)
    made = snapshots.create("some", PartsOf(jobs.store).sources([first]), Selection(count=7, seed=3), [first])
    rows = made.with_keys(made.rows()).to_pylist()
    job, computed = run_chosen(jobs, ["some"], None)
    assert computed == 7
    images = [jobs.store.read_columns(path, ["image"]).column("image").to_pylist() for path in made.parts]
    expected = {(row["key"], images[row["part"]][row["row"]]["offset"]) for row in rows}
    assert {(row.key, row.image.offset) for row in records(jobs, job)} == expected
    fewer, _ = run_chosen(jobs, [made.id], "'20 by' in description")
    assert {row.width for row in records(jobs, fewer)} == {20}
    # without its job the snapshot still knows where its images lie
    jobs.store.remove_job(first)
    pin = Pinning(jobs.store).pin(["some"], None)
    assert {one.uri for one in pin.shards} == set(two_shards(tmp_path))


def test_what_failed_is_described_again(jobs: Jobs, tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "bad.tar", [jpeg(), b"\xff\xd8\xff no image", jpeg(9, 9), b"\xff\xd8\xff none"])
    first = run_shards(jobs, shard)
    failed = [row for row in records(jobs, first) if row.failure]
    assert len(failed) == 2 and failed[0].failure
    assert {row.key for row in records(jobs, run_chosen(jobs, [first], None)[0])} == {"000000000", "000000002"}
    job, _ = run_chosen(jobs, [first], "status == 'failed'")
    assert [(row.key, row.failure and row.failure.error_type) for row in records(jobs, job)] == [
        (row.key, row.failure and row.failure.error_type) for row in failed
    ]
    kind = failed[0].failure.error_type
    assert jobs.view(run_chosen(jobs, [first], f"failure == {kind!r}")[0]).request_counts.total == 2
    assert jobs.view(run_chosen(jobs, [first], "status == 'filtered'")[0]).request_counts.total == 0


def test_shards_that_have_changed_or_are_gone(jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_items, "GONE_SECONDS", 0.0)
    changed, gone = two_shards(tmp_path)
    kept = write_shard(tmp_path / "kept.tar", [jpeg(40, 10 + number) for number in range(3)])
    first = run_shards(jobs, changed, gone, kept)
    write_shard(Path(changed), [jpeg(50, 10 + number) for number in range(9)])
    Path(gone).unlink()
    job, computed = run_chosen(jobs, [first], "matches(description, 'by 1[01]$')")
    rows = {(Path(row.image.uri).stem, row.key): row.failure for row in records(jobs, job)}
    assert computed == 2 and len(rows) == 6
    assert {stem for (stem, _), failure in rows.items() if failure is None} == {"kept"}
    reasons = {stem: failure.error_type for (stem, _), failure in rows.items() if failure}
    assert reasons == {"a": "ShardChanged", "b": "ShardMissing"}


def test_without_the_index_of_the_shard_it_is_read_again(jobs: Jobs, tmp_path: Path) -> None:
    shards = two_shards(tmp_path)
    first = run_shards(jobs, *shards)
    for path in list(jobs.store.find("parts", "index")):
        jobs.store.remove(jobs.store.path(path))
    write_shard(Path(shards[1]), [jpeg(50, 50)])
    job, computed = run_chosen(jobs, [first], "'by 10' in description")
    assert computed == 1 and [row.width for row in records(jobs, job)] == [20]
    page = Results(jobs.request(job), jobs.summaries(job), jobs.store, jobs.view(job).status).page(None, 9, "failed")
    (row,) = page.rows
    assert row.key is None and row.shard == shards[1] and "has changed" in str(row.failure)


class Died(BaseException):
    """The process has ended."""


def pinned_claim(jobs: Jobs, names: list[str], where: str | None) -> tuple[JobRequest, list[Claim]]:
    request = jobs.new.create("batch", [], OTHER, "lo", chosen=chosen(jobs, names, where))
    return request, [Claim(request.index_chunk(shard), "lo", "1") for shard in request.shards]


def test_an_indexer_that_dies_at_any_write_leaves_what_the_next_one_completes(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run_shards(jobs, *two_shards(tmp_path))
    _, (claim, *_) = pinned_claim(jobs, [first], "'by 11' in description")
    put, calls, deadline = Store.put, 0, 0

    def dying(self: Store, path: str, data: bytes, private: bool = False) -> None:
        nonlocal calls
        calls += 1
        if calls == deadline:
            raise Died
        put(self, path, data, private)

    monkeypatch.setattr(Store, "put", dying)
    summaries, deaths = [], 0
    for deadline in range(1, 8):  # noqa: B007
        calls = 0
        for path in [*jobs.store.find("families"), *jobs.store.find("parts", "index")]:
            if "index" not in path or source_identity(Path(path).parent.name) != Path(path).parent.name:
                jobs.store.remove(jobs.store.path(path))
        try:
            ShardIndexer(jobs.store).summary(claim, lambda act: act())
        except Died:
            deaths += 1
        calls = -1000
        summaries.append(ShardIndexer(jobs.store).summary(claim, lambda act: act()))
    # the index part and the family were written, and the last deadline lies after the last write
    assert 3 <= deaths < 7
    assert len({one.model_dump_json() for one in summaries}) == 1 and summaries[0].images == 1
    index = dataclasses.replace(claim.chunk, identity=summaries[0].identity)
    assert jobs.store.read_part(index)[0].column("key").to_pylist() == ["000000001"]


def test_a_worker_that_takes_over_goes_on(jobs: Jobs, tmp_path: Path) -> None:
    """Claims of a worker that has died with the chunk are reclaimed, and the job is complete."""
    first = run_shards(jobs, *two_shards(tmp_path))
    request, _ = pinned_claim(jobs, [first], "'by 11' in description")
    broker = jobs.queue.broker
    broker.enqueue_all([request.index_chunk(shard) for shard in request.shards], request.id, "lo")
    assert len(broker.claim("index", "dead", 2)) == 2
    with FakeMachine(jobs, profile=OTHER, lease_seconds=0.2):
        wait_for_end(jobs, request.id)
    assert jobs.view(request.id).request_counts.succeeded == 2


def listed(folder: Path, count: int) -> str:
    """A list of images with a title each."""
    lines = []
    for number in range(count):
        (folder / f"{number}.jpg").write_bytes(jpeg(20, 10 + number))
        lines.append(json.dumps({"image": f"{number}.jpg", "caption": f"c{number}", "title": f"t{number}"}))
    (folder / "list.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return str(folder / "list.jsonl")


def test_the_metadata_of_a_list_are_those_of_the_chosen_rows(jobs: Jobs, tmp_path: Path) -> None:
    first = run_shards(jobs, listed(tmp_path, 9))
    where = "matches(description, 'by 1[1247]$')"
    job, _ = run_chosen(jobs, [first], where)
    assert [row.alt_text for row in records(jobs, job)] == ["c1", "c2", "c4", "c7"]
    request, (summary,) = jobs.request(job), jobs.summaries(job).values()
    reader, titles = ItemReader(jobs.store), []
    for chunk in request.chunks(summary, "llm"):
        rows = jobs.store.read_records(chunk)
        items = reader.with_metadata(chunk, [WorkItem(row) for row in rows], OTHER, ["title"])
        titles += [item.metadata["title"] for item in items]
    assert titles == ["t1", "t2", "t4", "t7"]


def test_uploads_and_parts_stay_as_long_as_a_job_chooses_from_them(jobs: Jobs, tmp_path: Path) -> None:
    image = jobs.new.create_image(jpeg(21, 22), "a text", FIRST)
    with FakeMachine(jobs, profile=FIRST):
        wait_for_end(jobs, image.id)
    request, (claim,) = pinned_claim(jobs, [image.id], None)
    assert uploads_of(jobs.store, request) == set(image.shards)
    source = [path for path in jobs.store.find("parts") if "/index/" in path or "/llm/" in path]
    Deletion(jobs.store).delete(image.id, [request.id])
    assert set(source) <= set(jobs.store.find("parts"))
    assert not set(source) & set(Cleaning(jobs.store).unreferenced())
    with FakeMachine(jobs, profile=OTHER) as machine:
        wait_for_end(jobs, request.id)
        assert machine.vision.images == 1
    assert uploads_of(jobs.store, jobs.request(request.id)) == set(image.shards)
    assert [row.alt_text for row in records(jobs, request.id)] == ["a text"]
    # what only the job of before needed can go now
    assert set(source) & set(Cleaning(jobs.store).unreferenced())
    assert claim.chunk.shard.startswith(image.shards[0])


def test_a_retry_and_a_lost_index_are_made_from_what_was_pinned(jobs: Jobs, tmp_path: Path) -> None:
    shards = two_shards(tmp_path)
    first = run_shards(jobs, *shards)
    job, _ = run_chosen(jobs, [first], "'by 10' in description")
    (identity, *_) = [one.identity for one in jobs.summaries(job).values()]
    for path in list(jobs.store.find("parts", "index")):
        if identity in path:
            jobs.store.remove(jobs.store.path(path))
    everything = [path for path in jobs.store.find("parts", "llm") if identity in path]
    for path in everything:
        jobs.store.remove(jobs.store.path(path))
    view = jobs._run_again(jobs.request(job))
    with FakeMachine(jobs, profile=OTHER):
        wait_for_end(jobs, view.id)
    assert jobs.view(job).request_counts.succeeded == 2
    assert set(everything) <= set(jobs.store.find("parts", "llm"))


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)


@given(TEXTS, st.from_regex(r"[0-9a-f]{22}", fullmatch=True), st.from_regex(r"[0-9a-f]{16}", fullmatch=True))
def test_names_of_chosen_rows_are_read_back(uri: str, job: str, identity: str) -> None:
    shard = chosen_shard(uri, job, identity)
    assert source_shard(shard) == uri and chosen_by(shard) == (job, identity)
    assert chosen_by(uri) is None or "#chosen/" in uri
    # a folder may have such a name, and is none
    for name in (f"{uri}#chosen/0.tar", f"{uri}#chosen/{job}/0.tar", f"#chosen/{job}/{identity}"):
        assert source_shard(name) == name and chosen_by(name) is None
    # rows of a shard that has such a name itself are still its own
    assert source_shard(chosen_shard(shard, job, identity)) == shard


@given(st.from_regex(r"[0-9a-f]{16}", fullmatch=True), st.sets(st.integers(0, 2**40), max_size=5))
@settings(max_examples=50)
def test_identities_of_chosen_rows_tell_the_shard(identity: str, numbers: set[int]) -> None:
    made = chosen_identity(identity, sorted(numbers))
    assert source_identity(made) == source_identity(identity) == identity != made
    assert made == chosen_identity(identity, sorted(numbers)) != chosen_identity(identity, [*sorted(numbers), 2**41])
    with pytest.raises(ValueError, match="not the identity"):
        chosen_identity(made, [])
