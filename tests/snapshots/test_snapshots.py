"""Snapshots: content-addressed, immutable, made while jobs run, and safe from cleaning."""

from __future__ import annotations

import hashlib
import itertools
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from strata.core.ids import DEFAULT_TENANT
from strata.core.profiles import ProfileError, load_profile
from strata.core.records import Record, Status
from strata.core.settings import Settings
from strata.errors import StrataError
from strata.jobs.jobs import Jobs
from strata.snapshots.cleaning import Cleaning
from strata.snapshots.comparing.differences import difference
from strata.snapshots.selection import Selection, SelectionError
from strata.snapshots.selection.axes import AxisError, axes_of
from strata.snapshots.snapshot import Snapshot
from strata.snapshots.snapshots import SnapshotExists, Snapshots, UnknownSnapshot
from strata.store.part_paths import Part, last_attempts
from strata.store.parts import LostPart, PartsOf, UnknownSource
from strata.store.provenance import provenance_of
from strata.store.store import Store
from strata.store.upload_lists import ReceivedUploads
from tests.checkout import CHECKOUT
from tests.described import FINGERPRINT, described, write_part
from tests.fakes import FAKE_PROFILE, FakeMachine, FakeVision, jpeg, wait_for_end, write_shard

B = "b" * 16
THINGS = [[], ["car"], ["car", "dog"], ["cup"] * 5]


def some_parts(store: Store) -> list[Part]:
    """Two shards of two parts of eight rows, of which one failed and one was filtered."""
    ended = [Status.FAILED, Status.FILTERED]
    return [
        write_part(
            store,
            [
                described(f"{number}{n}", THINGS[n % 4], 15 * n, n % 3 == 0, ended[n] if n < 2 else Status.SUCCEEDED)
                for n in range(8)
            ],
            identity,
            number,
        )
        for identity in ("a" * 16, B)
        for number in (0, 1)
    ]


def keys_of(store: Store, snapshot: Snapshot) -> list[tuple[str, str]]:
    """Identity and key of each row of a snapshot, read back from the parts; all of them must have succeeded."""
    found = []
    for row in snapshot.rows().to_pylist():
        path = snapshot.parts[row["part"]]
        record = store.read_columns(path, ["key", "status"]).slice(row["row"], 1).to_pylist()[0]
        assert record["status"] == "succeeded"
        found.append((Part.parse(path).identity, record["key"]))
    return found


def test_a_snapshot_is_kept_and_found(store: Store) -> None:
    parts, snapshots = some_parts(store), Snapshots(store)
    made = snapshots.create("first", parts[::-1], Selection(count=10, seed=3), ["a job"])
    assert made.parts == [part.path for part in sorted(parts)]
    for found in (snapshots.open("first"), snapshots.open(made.id), snapshots.open(made.id[:12])):
        assert (found.name, found.id, found.parts) == ("first", made.id, made.parts)
        assert found.rows() == made.rows()
        assert found.manifest == made.manifest
    rows = made.rows().to_pylist()
    assert rows == sorted(rows, key=lambda row: (row["part"], row["row"]))
    assert len(set(keys_of(store, made))) == 10
    assert made.rows().schema.types == ["int32", "int32"]
    counts = made.manifest.counts
    assert (counts.parts, counts.succeeded, counts.filtered, counts.failed) == (4, 24, 4, 4)
    assert (counts.passed, counts.selected) == (24, 10)
    (no, no_taken), (yes, yes_taken) = made.manifest.composition["text"].values()
    assert (no, yes) == (16, 8) and no_taken + yes_taken == 10
    assert snapshots.names() == ["first"]


def test_the_same_choice_has_the_same_id_and_others_have_others(store: Store) -> None:
    parts, snapshots = some_parts(store), Snapshots(store)
    balanced = Selection(method="balanced", count=10)
    first = snapshots.create("one", parts, balanced)
    assert snapshots.create("two", [part.path for part in parts * 2], balanced).id == first.id
    others = [
        snapshots.create("seed", parts, balanced.model_copy(update={"seed": 1})),
        snapshots.create("count", parts, balanced.model_copy(update={"count": 11})),
        snapshots.create("parts", parts[1:], balanced),
        snapshots.create("all", parts, Selection()),
    ]
    assert len({first.id, *(other.id for other in others)}) == 5
    assert len(store.find("snapshots", "objects")) == 5


def test_a_selection_means_the_same_of_other_parts(store: Store) -> None:
    parts, snapshots = some_parts(store), Snapshots(store)
    old = snapshots.create("old", parts[:2], Selection(method="balanced", count=6, axes=axes_of(["thing:1"], [])))
    assert old.manifest.selection.axes[0].names == ("car",)
    write_part(store, [described(f"n{n}", ["fox"]) for n in range(30)], "c" * 16)
    new = snapshots.create("new", PartsOf(store).sources([FINGERPRINT]), old.manifest.selection)
    assert new.manifest.selection == old.manifest.selection


@pytest.mark.parametrize(
    ("identity", "selection"),
    [
        ("05e44e8a2a0a2fa9", Selection(count=5, seed=3, where="words > 20", unique=True)),
        ("524f63fccf10c82b", Selection(method="best", count=5, score="evidence")),
        (
            "7ea5012e8ba17244",
            Selection(method="balanced", count=9, axes=axes_of(["objects:1,2", "text", "thing:2"], ["text=yes:0.4"])),
        ),
    ],
)
def test_selections_of_earlier_versions_keep_their_id_and_meaning(
    store: Store, identity: str, selection: Selection
) -> None:
    parts, snapshots = some_parts(store), Snapshots(store)
    made = snapshots.create("old", parts, selection)
    assert made.id.startswith(identity) and made.fault() is None  # the id that version 5 gave
    # and so has the selection that is read back from it
    again = snapshots.open("old").manifest.selection
    assert snapshots.create("like", parts, again).id == made.id


def test_the_best_of_an_earlier_version_are_told_from_those_of_this_one(store: Store) -> None:
    parts, snapshots = some_parts(store), Snapshots(store)
    new = snapshots.create("new", parts, Selection(method="best", count=5))
    assert snapshots.open("new").manifest.selection.score == "content" and new.fault() is None
    manifest = Path(store.path("snapshots", "new.json"))
    manifest.write_bytes(manifest.read_bytes().replace(b',"score":"content"', b""))
    assert Snapshots(store).open("new").manifest.selection.score == "evidence"


def test_targets_that_cannot_be_met_are_errors(store: Store) -> None:
    parts, snapshots = some_parts(store), Snapshots(store)  # 24 rows, 8 of them with text

    def create(count: int, by: list[str], targets: list[str], accept: bool = False) -> Snapshot:
        selection = Selection(method="balanced", count=count, axes=axes_of(by, targets))
        return snapshots.create(f"at{len(snapshots.names())}", parts, selection, accept_shortfall=accept)

    line = "target text=yes:1 of 12 rows is 12 rows, but only 8 can be taken; --accept-shortfall"
    with pytest.raises(SelectionError, match=line):
        create(12, ["text"], ["text=yes:1.0"])
    with pytest.raises(SelectionError, match="text=no:0 of 12 rows is 0 rows, but 4 can be taken"):
        create(12, ["text"], ["text=no:0"])
    with pytest.raises(SelectionError, match=r"thing=cup:0\.9"):
        create(20, ["text", "thing:3"], ["thing=cup:0.9"])
    assert create(12, ["text"], ["text=yes:1.0"], accept=True).manifest.composition["text"]["yes"] == (8, 8)
    assert create(8, ["text"], ["text=yes:1.0"]).manifest.composition["text"]["yes"] == (8, 8)
    assert create(9, ["text", "objects:1"], ["text=yes:0.5", "objects=0:0.1"])  # right up to rounding


def test_names_that_no_row_has_are_errors(store: Store) -> None:
    parts, snapshots = some_parts(store), Snapshots(store)
    for by, targets in ((["thing"], ["thing=caar:0.5"]), (["thing:caar,cup"], [])):
        selection = Selection(method="balanced", count=4, axes=axes_of(by, targets))
        with pytest.raises(AxisError, match="no row has the thing 'caar'; did you mean 'car'"):
            snapshots.create("x", parts, selection)
        assert snapshots.create(f"by{len(targets)}", parts, selection, accept_shortfall=True)
    # the commonest names of other rows were not asked for
    old = snapshots.create("old", parts, Selection(method="balanced", count=4, axes=axes_of(["thing"], [])))
    other = write_part(store, [described(f"n{n}", ["fox"]) for n in range(30)], "c" * 16)
    assert snapshots.create("new", [other], old.manifest.selection)


def test_deleting_a_snapshot_frees_its_parts(store: Store) -> None:
    parts, snapshots = some_parts(store), Snapshots(store)
    snapshots.create("one", parts[:2], Selection())
    snapshots.create("two", parts[1:], Selection())
    same = snapshots.create("same", parts[1:], Selection())
    for path in Path(store.path("snapshots", "objects")).iterdir():
        os.utime(path, (0, 0))
    assert not Cleaning(store).unreferenced()
    snapshots.delete("two")
    assert not Cleaning(store).unreferenced() and same.fault() is None
    snapshots.delete("one")
    assert snapshots.names() == ["same"]
    gone = [path for path in Cleaning(store).unreferenced() if path.startswith("parts/")]
    assert gone == [parts[0].path]
    # a damaged one can be deleted too, an unknown one not
    store.put(store.path("snapshots", "same.json"), b"{")
    snapshots.delete("same")
    for name in ("same", same.id, "../jobs"):
        with pytest.raises(UnknownSnapshot):
            snapshots.delete(name)
    assert len(Cleaning(store).unreferenced()) == 4 + 2


def test_what_cannot_be_made_is_one_line_and_leaves_nothing(store: Store) -> None:
    parts, snapshots = some_parts(store), Snapshots(store)
    snapshots.create("taken", parts, Selection())
    before = sorted(store.find())
    wrong: list[tuple[type[StrataError], str, Callable[[], object]]] = [
        (
            SnapshotExists,
            "'taken'; a snapshot never",
            lambda: snapshots.create("taken", parts, Selection(count=1)),
        ),
        (StrataError, "not a valid snapshot name", lambda: snapshots.create("a/b", parts, Selection())),
        (StrataError, "not a valid snapshot name", lambda: snapshots.create("", parts, Selection())),
        (
            SelectionError,
            "25 rows are requested",
            lambda: snapshots.create("x", parts, Selection(count=25)),
        ),
        (SelectionError, "none of these sources is described", lambda: snapshots.create("x", [], Selection())),
        (SelectionError, "no row", lambda: snapshots.create("x", parts, Selection(where="objects > 99"))),
        (UnknownSnapshot, "'x'; there are: taken", lambda: snapshots.open("x")),
        (UnknownSnapshot, "'../jobs'", lambda: snapshots.open("../jobs")),
        (UnknownSnapshot, "0{12}", lambda: snapshots.open("0" * 12)),
        (
            UnknownSource,
            "'nojob': there is no such",
            lambda: PartsOf(store).sources(["nojob"]),
        ),
        (UnknownSource, "'../x'", lambda: PartsOf(store).sources(["../x"])),
    ]
    for kind, line, act in wrong:
        with pytest.raises(kind, match=line) as caught:
            act()
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="no part of llm"):
        snapshots.create("x", [parts[0]._replace(group="vision")], Selection())
    with pytest.raises(ValueError, match="is not the path of a part"):
        snapshots.create("x", ["parts/llm/notes.txt"], Selection())
    with pytest.raises(FileNotFoundError):
        snapshots.create("x", [Part("llm", FINGERPRINT, B, 9, 0)], Selection())
    assert sorted(store.find()) == before


def test_of_two_creators_of_a_name_one_wins(store: Store) -> None:
    parts, barrier = some_parts(store), threading.Barrier(8)

    def create(seed: int) -> Snapshot | None:
        barrier.wait()
        try:
            return Snapshots(store).create("one", parts, Selection(count=5, seed=seed))
        except SnapshotExists:
            return None

    with ThreadPoolExecutor(8) as pool:
        (won,) = [one for one in pool.map(create, range(8)) if one is not None]
    found = Snapshots(store).open("one")
    assert found.id == won.id and found.rows() == won.rows()
    assert not list(Path(store.path("tmp")).iterdir())


# parts of jobs and data sets


def test_of_a_chunk_the_last_attempt_there_is(store: Store) -> None:
    first = write_part(store, [described("a"), described("b", status=Status.FAILED)])
    again = write_part(store, [described("a"), described("b")], attempt=1)
    assert PartsOf(store).sources([FINGERPRINT]) == [again] == last_attempts([again, first])
    snapshot = Snapshots(store).create("one", [first, again], Selection())
    assert [key for _, key in keys_of(store, snapshot)] == ["a", "b"]


def test_jobs_that_share_parts_and_were_tried_again(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = [
        write_shard(tmp_path / f"{first}.tar", [jpeg(20 + n) for n in range(6)], first) for first in range(0, 200, 100)
    ]
    bad, run = {"000000001", "000000101"}, FakeVision.run

    def flaky(self: FakeVision, batch: list) -> list[Record]:  # type: ignore[type-arg]
        return [one.failed("captioner", "Flaky", "no") if one.key in bad else one for one in run(self, batch)]

    monkeypatch.setattr(FakeVision, "run", flaky)
    snapshots, parts_of = Snapshots(jobs.store), PartsOf(jobs.store)
    with FakeMachine(jobs):
        one = jobs.new.create("batch", shards[:1], FAKE_PROFILE, "lo").id
        both = jobs.new.create("batch", shards, FAKE_PROFILE, "lo").id
        for job in (one, both):
            wait_for_end(jobs, job)
        bad.clear()
        jobs.retry(both)
        wait_for_end(jobs, both)
    old, new, all_of_it = (parts_of.sources(names) for names in ([one], [both], [one, both]))
    # the newest attempt counts for every job, also for one that ended before
    assert [part.attempt for part in old] == [1, 0]
    assert sorted(part.attempt for part in new) == [0, 0, 1, 1]
    assert all_of_it == new == parts_of.sources(["fake"]) == parts_of.sources([FAKE_PROFILE.fingerprint("llm")])
    assert snapshots.create("old", old, Selection()).manifest.counts.selected == 6
    found = keys_of(jobs.store, snapshots.create("new", all_of_it, Selection()))
    assert len(found) == len(set(found)) == 12
    assert len({identity for identity, _ in found}) == 2


def test_while_a_job_is_tried_again_its_old_parts_stand_in(jobs: Jobs, tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.tar", [jpeg(), jpeg(), b"no image"])
    with FakeMachine(jobs):
        job = jobs.new.create("batch", [shard], FAKE_PROFILE, "lo").id
        wait_for_end(jobs, job)
    jobs.retry(job)  # and no worker is there
    (part,) = PartsOf(jobs.store).sources([job])
    assert part.attempt == 0
    assert Snapshots(jobs.store).create("now", [part], Selection()).manifest.counts.selected == 2


def test_snapshots_of_a_running_job_see_whole_parts_only(jobs: Jobs, tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.tar", [jpeg(20 + n) for n in range(40)])
    snapshots, parts_of = Snapshots(jobs.store), PartsOf(jobs.store)
    seen: list[set[tuple[str, str]]] = []
    with FakeMachine(jobs, seconds=0.03):
        job = jobs.new.create("batch", [shard], FAKE_PROFILE, "lo").id
        while not jobs.view(job).status.final:
            parts = parts_of.sources([job])
            if parts:
                made = snapshots.create(f"at{len(seen)}", parts, Selection())
                assert made.manifest.counts.selected == 4 * len(parts)
                seen.append(set(keys_of(jobs.store, made)))
            time.sleep(0.05)
    assert len(seen) > 2 and len(seen[0]) < 40
    assert all(before <= after for before, after in itertools.pairwise(seen))
    for number, found in enumerate(seen):  # they stay what they were
        assert set(keys_of(jobs.store, snapshots.open(f"at{number}"))) == found


def test_a_job_of_which_nothing_is_known_yet(jobs: Jobs, tmp_path: Path) -> None:
    job = jobs.new.create("batch", [str(tmp_path / "a.tar")], FAKE_PROFILE, "lo").id
    assert PartsOf(jobs.store).sources([job]) == []
    with pytest.raises(SelectionError, match="none of these sources is described yet"):
        Snapshots(jobs.store).create("x", PartsOf(jobs.store).sources([job]), Selection())


def test_images_sent_one_by_one_are_in_a_data_set_only_when_asked_for(jobs: Jobs, tmp_path: Path) -> None:
    with FakeMachine(jobs):
        one, two = (jobs.new.create_image(jpeg(width), None, FAKE_PROFILE).id for width in (20, 30))
        shard = jobs.new.create("batch", [write_shard(tmp_path / "a.tar", [jpeg(40)])], FAKE_PROFILE, "lo").id
        for job in (one, two, shard):
            wait_for_end(jobs, job)
    parts_of = PartsOf(jobs.store)
    assert len(parts_of.sources([one])) == 1
    assert parts_of.sources(["fake"]) == parts_of.sources([shard])
    assert len(parts_of.sources(["fake"], single_images=True)) == 3


def test_a_part_that_is_lost_is_named(jobs: Jobs, tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.tar", [jpeg(20 + n) for n in range(12)])
    with FakeMachine(jobs):
        job = jobs.new.create("batch", [shard], FAKE_PROFILE, "lo").id
        wait_for_end(jobs, job)
    parts_of, store = PartsOf(jobs.store), jobs.store
    first, second, third = parts_of.sources([job])
    store.remove(store.path(second.path))
    for source in (job, "fake"):
        with pytest.raises(LostPart, match=f"job {job} has lost {second.path}; `strata verify {job}`"):
            parts_of.sources([source])
    store.remove(store.path(third.path))
    with pytest.raises(LostPart, match="and 1 more"):
        parts_of.sources([job])
    # a damaged request of another job does not stop a data set
    store.put(store.path("jobs", job, "request.json"), b"{")
    assert parts_of.sources(["fake"]) == [first]


# provenance


def test_a_job_keeps_what_its_profile_says(jobs: Jobs, tmp_path: Path) -> None:
    profile = load_profile("demo", Settings().profiles_dir)
    jobs.new.create("batch", [str(tmp_path / "a.tar")], profile, "lo")
    kept = provenance_of(jobs.store, profile.fingerprint("llm"))
    prompt = (CHECKOUT / "models" / "prompts" / "small.toml").read_text()
    assert kept.prompts == {"small": prompt}
    composer = kept.settings["stages"]["composer"]
    assert composer["parameters"]["prompt_sha256"] == hashlib.sha256(prompt.encode()).hexdigest()
    assert kept.settings["stages"]["captioner"]["revision"] == profile.stages["captioner"].revision
    assert kept.settings["evidence"]["region"] == profile.evidence.region
    assert kept.fingerprints["vision"] == profile.fingerprint("vision")
    when = kept.kept_at
    jobs.new.create("batch", [str(tmp_path / "b.tar")], profile, "lo")
    assert provenance_of(jobs.store, profile.fingerprint("llm")).kept_at == when


def test_a_prompt_beside_the_profiles_is_kept_if_it_is_the_one_named(tmp_path: Path) -> None:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "prompts").mkdir()
    prompt = 'system = "Describe."'
    digest = hashlib.sha256(prompt.encode()).hexdigest()
    (tmp_path / "profiles" / "mine.toml").write_text(
        '[stages.captioner]\nbackend = "florence2"\nmodel = "local:/m"\nrevision = "1"\n'
        '[stages.composer]\nbackend = "transformers"\nmodel = "local:/m"\nrevision = "1"\n'
        f'[stages.composer.parameters]\nprompt = "p"\nprompt_sha256 = "{digest}"\ngrounded = false'
    )
    with pytest.raises(ProfileError, match="no prompt 'p'"):
        load_profile("mine", tmp_path / "profiles")
    (tmp_path / "prompts" / "p.toml").write_text(prompt)
    profile = load_profile("mine", tmp_path / "profiles")
    assert profile.prompts == {"p": prompt}
    (tmp_path / "prompts" / "p.toml").write_text(f"{prompt} # changed")
    with pytest.raises(ProfileError, match=r"prompt_sha256: the prompt 'p' has the sha256 [0-9a-f]{64}"):
        load_profile("mine", tmp_path / "profiles")


def test_a_profile_that_changed_is_named_by_its_fingerprint(jobs: Jobs, tmp_path: Path) -> None:
    changed = FAKE_PROFILE.model_copy(update={"chunk_size": 5})
    for profile in (FAKE_PROFILE, changed):
        jobs.new.create("batch", [str(tmp_path / "a.tar")], profile, "lo")
    with pytest.raises(UnknownSource, match="the profile has changed") as caught:
        PartsOf(jobs.store).sources(["fake"])
    assert changed.fingerprint("llm") in str(caught.value)
    assert PartsOf(jobs.store).sources([changed.fingerprint("llm")]) == []


def test_differences(jobs: Jobs, tmp_path: Path) -> None:
    store, snapshots = jobs.store, Snapshots(jobs.store)
    changed = FAKE_PROFILE.model_copy(update={"chunk_size": 5})
    for profile in (FAKE_PROFILE, changed):
        jobs.new.create("batch", [str(tmp_path / "a.tar")], profile, "lo")
    old, new = (profile.fingerprint("llm") for profile in (FAKE_PROFILE, changed))
    records = [described("a"), described("b"), described("c", status=Status.FAILED)]
    first = write_part(store, records, fingerprint=old)
    again = write_part(store, [*records[:2], described("c")], attempt=1, fingerprint=old)
    other = write_part(store, [described("d")], fingerprint=new)
    one = snapshots.create("one", [first], Selection())
    two = snapshots.create("two", [again, other], Selection(count=4, seed=2))
    found = difference(one, two)
    assert found.rows.model_dump() == {"common": 2, "added": 2, "removed": 0}  # tried again: the same rows
    assert found.parts.model_dump() == {"common": 0, "added": 2, "removed": 1}
    assert {change.setting for change in found.selection} == {"count", "seed"}
    size = next(change for change in found.provenance if change.setting == "settings.chunk_size")
    assert (size.before, size.after) == (["4"], ["4", "5"])
    assert not difference(two, two).selection and difference(two, two).rows.common == 4


# cleaning


def test_cleaning_removes_what_nobody_names(jobs: Jobs, tmp_path: Path) -> None:
    store = jobs.store
    shards = [
        write_shard(tmp_path / f"{first}.tar", [jpeg(20 + n) for n in range(6)], first) for first in range(0, 300, 100)
    ]
    with FakeMachine(jobs):
        ended = [jobs.new.create("batch", [shard], FAKE_PROFILE, "lo").id for shard in shards]
        for job in ended:
            wait_for_end(jobs, job)
    pinned = Snapshots(store).create("kept", PartsOf(store).sources(ended[:1]), Selection(count=1))
    stray = [write_part(store, [described("x")], group=group).path for group in ("vision", "llm")]
    store.put(store.path("parts", "notes.txt"), b"somebody's own")
    assert sorted(Cleaning(store).unreferenced()) == sorted(stray)
    cleaning = Cleaning(store, ended[:2])
    files, before = cleaning.unreferenced(), store.find()
    assert store.find() == before  # only told
    # of either job an index part, two of vision and its files; two of llm, which of the first job are pinned
    assert sum(path.startswith("parts/") for path in files) == 2 + 3 + 5
    assert sum(path.startswith("jobs/") for path in files) == 2 * 3
    assert all(files[path] == before[path] > 0 for path in files)
    assert sorted(cleaning.remove(list(files))) == sorted(files)
    assert set(store.find()) == set(before) - set(files)
    assert store.job_ids() == ended[2:]
    assert len(keys_of(store, pinned)) == 1
    assert len(PartsOf(store).sources(ended[2:])) == 2
    assert not Cleaning(store).unreferenced()


def test_cleaning_removes_uploads_that_nobody_names(jobs: Jobs) -> None:
    store, cleaning = jobs.store, Cleaning(jobs.store)

    def sent(data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        store.put_upload(digest, data)
        return store.upload_path(store.upload_uri(digest))

    with FakeMachine(jobs):
        wait_for_end(jobs, jobs.new.create_image(jpeg(20), None, FAKE_PROFILE).id)
    for tenant, data in ((DEFAULT_TENANT, b"one"), ("team", b"other")):
        ReceivedUploads(store, tenant).keep(hashlib.sha256(b"with metadata").hexdigest(), data)
    stray, again, young = sent(jpeg(21)), sent(jpeg(22)), sent(jpeg(23))
    for path in set(store.find("uploads")) - {young}:
        os.utime(store.path(path), (0, time.time() - 7200))
    found = cleaning.unreferenced()
    assert found == {stray: len(jpeg(21)), again: len(jpeg(22))}
    # one of them is sent once more before they are removed
    sent(jpeg(22))
    assert cleaning.remove(list(found)) == [stray]
    assert len(store.find("uploads")) == 5 and again in store.find("uploads")


def test_cleaning_keeps_what_is_pinned_meanwhile(store: Store) -> None:
    parts, cleaning = some_parts(store), Cleaning(store)
    files = cleaning.unreferenced()
    assert len(files) == 4
    Snapshots(store).create("late", parts[:1], Selection())
    assert sorted(cleaning.remove(list(files))) == sorted(part.path for part in parts[1:])


def test_cleaning_keeps_the_parts_of_unfinished_jobs_also_superseded_ones(jobs: Jobs, tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.tar", [jpeg(), b"no image"])
    with FakeMachine(jobs):
        job = jobs.new.create("batch", [shard], FAKE_PROFILE, "lo").id
        wait_for_end(jobs, job)
        jobs.retry(job)
        wait_for_end(jobs, job)
    superseded = set(jobs.store.find("superseded"))
    assert len(superseded) == 2  # of vision and llm
    assert set(Cleaning(jobs.store).unreferenced()) == superseded
    later = jobs.new.create("batch", [str(tmp_path / "b.tar")], FAKE_PROFILE, "lo").id
    with pytest.raises(StrataError, match=f"job {later} has not ended"):
        Cleaning(jobs.store, [later])
    with pytest.raises(UnknownSource, match="no such job"):
        Cleaning(jobs.store, ["nojob"])
    # the later one may want them
    assert all(path.startswith("jobs/") for path in Cleaning(jobs.store, [job]).unreferenced())


def test_cleaning_removes_rows_that_have_no_name(store: Store) -> None:
    made = Snapshots(store).create("one", some_parts(store), Selection())
    lost = store.path("snapshots", "objects", f"{'0' * 64}.parquet")
    store.put(lost, b"rows")
    assert not Cleaning(store).unreferenced()  # its name may be about to come
    for path in Path(store.path("snapshots", "objects")).iterdir():
        os.utime(path, (0, 0))
    assert list(Cleaning(store).unreferenced()) == [store.relative(lost)]
    assert made.rows().num_rows == pq.read_table(store.path("snapshots", "objects", f"{made.id}.parquet")).num_rows


def test_shards_of_a_running_job_are_known_without_redis(jobs: Jobs, tmp_path: Path) -> None:
    shards = [
        write_shard(tmp_path / f"{first}.tar", [jpeg(20 + n) for n in range(8)], first) for first in range(0, 200, 100)
    ]
    with FakeMachine(jobs, seconds=0.2):
        request = jobs.new.create("batch", shards, FAKE_PROFILE, "lo")
        until = time.monotonic() + 120
        while not (known := PartsOf(jobs.store).summaries(request)):
            assert time.monotonic() < until
            time.sleep(0.01)
        assert jobs.queue.job_states.request(request.id) and not jobs.view(request.id).status.final
        assert {summary.shard for summary in known} == set(shards)
        wait_for_end(jobs, request.id)
