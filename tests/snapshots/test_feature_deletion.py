"""Features stay and go with their rows: jobs, retries, bundles, snapshots and deletions as a state machine."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pyarrow as pa
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from strata.core import FEATURES, GROUPS, Chunk, JobRequest, Profile
from strata.core.layers.features import part_schema
from strata.core.requests import ShardSummary
from strata.snapshots import Cleaning, Selection, Snapshots
from strata.snapshots.deletion import Deletion
from strata.store import Compaction, FeatureReader, Part, kind_of, write_features
from strata.store.feature_parts import MissingFeatures, feature_part, keep_kind
from strata.store.provenance import keep_profile
from strata.store.store import Store
from tests.described import described
from tests.planted import photograph, plant, saved, with_stages
from tests.queue.requests import job_request
from workers.features import FeatureRun

SHARDS = {"a.tar": "a" * 16, "b.tar": "b" * 16}
CHUNKS = 3
PLAIN = with_stages("sharpness", "text_embedding")
# other texts of the same images in chunks of the same size, and chunks of another size
PROFILES = {
    "plain": PLAIN.model_copy(update={"chunk_size": 1}),
    "other": PLAIN.model_copy(update={"chunk_size": 1, "texts": PLAIN.texts.model_copy(update={"language": "de"})}),
    "large": PLAIN.model_copy(update={"chunk_size": CHUNKS}),
}
STAGES = ("sharpness", "text_embedding")
Beside = tuple[Part, str]  # a `llm` part and a stage

names = st.sampled_from(sorted(PROFILES))
shards = st.sampled_from(sorted(SHARDS))
picks = st.integers(0, 99)


def chunks_of(profile: Profile, shard: str) -> list[Chunk]:
    first = Chunk("llm", profile.name, profile.fingerprint("llm"), shard, SHARDS[shard], 0, profile.chunk_size)
    return [replace(first, number=number) for number in range(CHUNKS // profile.chunk_size)]


def table_of(stage: str, rows: int) -> pa.Table:
    empty = {field.name: [None] * rows for field in part_schema(stage)}
    return pa.table({**empty, "key": [str(row) for row in range(rows)]}, schema=part_schema(stage))


class DeletionMachine(RuleBasedStateMachine):
    """The model: what was computed beside which rows. Parts of features have no values: that they are there counts."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.store = Store(self.folder.name)
        self.jobs: list[JobRequest] = []
        self.submitted = 0
        self.snapshots: list[str] = []
        self.computed: set[Beside] = set()
        for profile in PROFILES.values():
            keep_profile(self.store, profile)

    def teardown(self) -> None:
        self.folder.cleanup()

    @rule(name=names, chosen=st.lists(shards, min_size=1, unique=True))
    def submit(self, name: str, chosen: list[str]) -> None:
        profile = PROFILES[name]
        summaries = [ShardSummary(shard=shard, identity=SHARDS[shard], images=CHUNKS) for shard in chosen]
        changed = {
            "fingerprints": {group: profile.fingerprint(group) for group in GROUPS},
            "chunk_size": profile.chunk_size,
            "indexed": summaries,
        }
        request = job_request(f"{self.submitted:022d}", tuple(chosen)).model_copy(update=changed)
        self.submitted += 1
        self.jobs.append(request)
        self.store.write_job_file(request.id, "request", request)
        for shard in chosen:
            for chunk in chunks_of(profile, shard):
                if not self.store.has_part(chunk):
                    self._write(chunk)
        self.store.write_job_file(request.id, "end", request)

    def _write(self, chunk: Chunk) -> None:
        self.store.write_records(chunk, [described(f"{chunk.number}-{row}") for row in range(chunk.images)])

    @precondition(lambda self: self._rows())
    @rule(pick=picks)
    def retry(self, pick: int) -> None:
        part = self._some(pick)
        number = CHUNKS if part.fingerprint == PROFILES["large"].fingerprint("llm") else 1
        shard = next(shard for shard, identity in SHARDS.items() if identity == part.identity)
        self._write(Chunk("llm", "demo", part.fingerprint, shard, part.identity, part.number, number, part.attempt + 1))

    @precondition(lambda self: self._rows())
    @rule(stage=st.sampled_from(STAGES), pick=picks, every=st.booleans())
    def compute(self, stage: str, pick: int, every: bool) -> None:
        for part in self._rows() if every else [self._some(pick)]:
            profile = next(one for one in PROFILES.values() if one.fingerprint("llm") == part.fingerprint)
            kind = kind_of(self.store, profile, stage, part.fingerprint)
            keep_kind(self.store, kind)
            write_features(self.store, part, kind, "", table_of(stage, profile.chunk_size))
            # the other rows of the same images have them too, if the stage does not read texts
            for other in self._rows():
                fits = kind_of(self.store, profile, stage, other.fingerprint).fingerprint == kind.fingerprint
                if fits and other[2:4] == part[2:4] and other.attempt <= part.attempt:
                    self.computed.add((other, stage))

    @rule(undo=st.booleans())
    def compact(self, undo: bool) -> None:
        compaction = Compaction(self.store)
        compaction.run(list(compaction.plans()), undo, lambda _: None)

    @precondition(lambda self: self._rows())
    @rule(chosen=st.lists(picks, min_size=1, max_size=2))
    def pin(self, chosen: list[int]) -> None:
        name = f"s{len(self.snapshots)}-{time.monotonic_ns()}"
        Snapshots(self.store).create(name, [self._some(pick) for pick in chosen], Selection())
        self.snapshots.append(name)

    @precondition(lambda self: self.snapshots)
    @rule(pick=picks)
    def unpin(self, pick: int) -> None:
        Snapshots(self.store).delete(self.snapshots.pop(pick % len(self.snapshots)))

    @precondition(lambda self: self.jobs)
    @rule(pick=picks)
    def delete(self, pick: int) -> None:
        request = self.jobs.pop(pick % len(self.jobs))
        self._apart(lambda: Deletion(self.store).delete(request.id, [other.id for other in self.jobs]))
        self._only_with_rows({summary.identity for summary in request.indexed})

    @precondition(lambda self: self.jobs)
    @rule(pick=picks)
    def forget(self, pick: int) -> None:
        request = self.jobs.pop(pick % len(self.jobs))
        self._clean([request.id])

    @rule()
    def clean(self) -> None:
        self._clean([])

    def _clean(self, forget: list[str]) -> None:
        def act() -> None:
            cleaning = Cleaning(self.store, forget)
            found = cleaning.unreferenced()
            assert set(cleaning.remove(list(found))) == set(found)

        self._apart(act)
        assert not Cleaning(self.store).unreferenced()
        self._only_with_rows(set(SHARDS.values()))

    def _apart(self, act: Callable[[], object]) -> None:
        """Act, and forget of the model what was beside rows that are gone."""
        act()
        left = set(self.store.parts_below("parts", "llm")) | set(self.store.parts_below("superseded", "llm"))
        self.computed = {one for one in self.computed if one[0] in left}

    def _only_with_rows(self, identities: set[str]) -> None:
        """Every part of features in these shards is beside rows that it was computed for, wherever it lies."""
        left = set(self.store.parts_below("parts", "llm")) | set(self.store.parts_below("superseded", "llm"))
        beside = set()
        for part in left:
            profile = next(one for one in PROFILES.values() if one.fingerprint("llm") == part.fingerprint)
            kinds = (kind_of(self.store, profile, stage, part.fingerprint) for stage in STAGES)
            beside |= {feature_part(part, kind.fingerprint)[:-1] for kind in kinds}
        for place in ("parts", "superseded"):
            there = {part for part in self.store.parts_below(place, FEATURES) if part.identity in identities}
            assert {part[:-1] for part in there} <= beside

    def _rows(self) -> list[Part]:
        return sorted(self.store.parts_below("parts", "llm"))

    def _some(self, pick: int) -> Part:
        rows = self._rows()
        return rows[pick % len(rows)]

    @invariant()
    def what_was_computed_can_be_read(self) -> None:
        reader = FeatureReader(self.store)
        for part, stage in self.computed:
            assert reader.read(part, stage, ["key"]).num_rows


TestDeletion = DeletionMachine.TestCase
TestDeletion.settings = settings(max_examples=15, stateful_step_count=15, deadline=None)


def test_notes_on_features_go_with_their_last_part(store: Store, tmp_path: Path) -> None:
    profile = with_stages("sharpness")
    (part,) = plant(store, tmp_path, [saved(photograph())], profile)
    run = FeatureRun(store, profile, (), 10**7)
    run.run(run.missing([part]))
    (note,) = store.find("features")
    store.remove(store.path(part.path))
    assert note not in Cleaning(store).unreferenced()  # its parts may be about to come
    os.utime(store.path(note), (0, 0))
    found = Cleaning(store).unreferenced()
    assert set(found) == {note, *(path for path in store.find("parts"))} and len(found) == 2
    Cleaning(store).remove(list(found))
    assert not store.find("features") and not store.find("parts")


def test_features_that_are_pinned_meanwhile_stay(store: Store, tmp_path: Path) -> None:
    profile = with_stages("sharpness")
    (part,) = plant(store, tmp_path, [saved(photograph())], profile)
    run = FeatureRun(store, profile, (), 10**7)
    run.run(run.missing([part]))
    cleaning = Cleaning(store)
    found = cleaning.unreferenced()
    assert len(found) == 2
    Snapshots(store).create("late", [part], Selection())
    assert cleaning.remove(list(found)) == []


@pytest.mark.parametrize("early", [True, False])
def test_rows_that_are_deleted_while_features_are_computed(store: Store, tmp_path: Path, early: bool) -> None:
    """A part is deleted before its rows are read, or while its features are written."""
    profile = with_stages("sharpness")
    parts = plant(store, tmp_path, [saved(photograph())] * 20, profile)
    run = FeatureRun(store, profile, (), 10**7)
    missing = run.missing(parts)
    if early:
        store.remove(store.path(parts[0].path))
        totals = run.run(missing)
    else:
        write = store.write_part

        def late(chunk: Chunk, *rest: object) -> None:
            if chunk.number == 0:
                store.remove(store.path(parts[0].path))
            write(chunk, *rest)  # type: ignore[arg-type]

        with mock.patch.object(store, "write_part", late):
            totals = run.run(missing)
    assert (totals.parts, totals.gone, totals.unread) == ({"sharpness": 1}, 1, [])
    assert [part.number for part in store.parts_below("parts", FEATURES)] == [1]


def test_of_several_kinds_that_is_read_which_the_rows_have(store: Store, tmp_path: Path) -> None:
    """Two data sets with chunks of one size, each computed in its own way."""
    profile = with_stages("sharpness")
    small = profile.stages["sharpness"].model_copy(update={"parameters": {"side": 64}})
    other = profile.model_copy(update={"stages": profile.stages | {"sharpness": small}})
    (part,) = plant(store, tmp_path, [saved(photograph())], profile)
    second = part._replace(identity="b" * 16)
    chunk = Chunk("llm", "demo", part.fingerprint, "b", second.identity, 0, 1)
    store.write_records(chunk, store.read_records(Chunk("llm", "demo", part.fingerprint, "a", part.identity, 0, 1)))
    for each, rows in ((profile, part), (other, second)):
        run = FeatureRun(store, each, (), 10**7)
        run.run(run.missing([rows]))
    values = [FeatureReader(store).read(rows, "sharpness", ["sharpness"]).to_pylist() for rows in (part, second)]
    assert values[0] != values[1]
    # together they cannot be compared, and that is said
    reader = FeatureReader(store)
    with pytest.raises(MissingFeatures, match="several kinds of 'sharpness'"):
        [reader.read(rows, "sharpness", ["sharpness"]) for rows in (part, second)]


def test_a_part_that_is_broken_stops_no_other(store: Store, tmp_path: Path) -> None:
    profile = with_stages("sharpness")
    parts = plant(store, tmp_path, [saved(photograph())] * 20, profile)
    path = Path(store.path(parts[0].path))
    path.write_bytes(path.read_bytes()[:-9])
    run = FeatureRun(store, profile, (), 10**7)
    totals = run.run(run.missing(parts))
    assert totals.parts == {"sharpness": 1} and len(totals.unread) == 1 and "broken" in totals.unread[0]
