"""Judgments in a store: appended by several at once, made fewer files, and missed when they are lost."""

from __future__ import annotations

import multiprocessing
from datetime import timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from strata.judgments import Judgments, LostJudgments
from strata.judgments import judgments as module
from strata.judgments.batches import BrokenBatch, decode, encode
from strata.store import Store
from tests.described import FINGERPRINT
from tests.judged import JOB, START, judgment

PLACE = f"judgments/{FINGERPRINT}/{JOB}"


def files(store: Store) -> list[str]:
    return store.names(PLACE)


def ids(store: Store) -> list[str]:
    """The ids that a process which has read nothing before finds, all of them."""
    return [one.id for one in Judgments(store).of_job(FINGERPRINT, JOB).whole()]


def test_what_was_appended_is_read_by_time(store: Store) -> None:
    made = [judgment("1", 2, "rejected", reason="other", comment="<b>no</b>"), judgment("2", 1, "edited", key="é/ü")]
    paths = Judgments(store).append(made)
    assert paths == [f"{PLACE}/{name}" for name in files(store)]
    assert Judgments(store).of_job(FINGERPRINT, JOB).judgments == [made[1], made[0]]
    assert Judgments(store).all().judgments == [made[1], made[0]]
    assert Judgments(store).of_fingerprints(["0" * 16]).judgments == []
    # other programs read them too
    rows = pq.read_table(store.path(PLACE)).to_pylist()
    assert [(row["id"], row["verdict"], row["key"]) for row in rows] == [
        ("judgment-1", "rejected", "a"),
        ("judgment-2", "edited", "é/ü"),
    ]


def test_the_same_batch_has_the_same_path(store: Store) -> None:
    for _ in range(2):
        name, data = encode([judgment("1")], after=["x"])
        store.put(store.path(PLACE, name), data)
    assert len(files(store)) == 1


def append_many(uri: str, reviewer: str, number: int) -> None:
    judgments = Judgments(Store(uri))
    for index in range(number):
        judgments.append([judgment(f"{reviewer}-{index}", index, key=str(index), reviewer=reviewer)])


def test_two_processes_append_at_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    context = multiprocessing.get_context("fork")
    monkeypatch.setattr(module, "FILES", 8)  # so that they compact each other's batches meanwhile
    monkeypatch.setattr(module, "KEPT_SECONDS", 0.05)
    writers = [context.Process(target=append_many, args=(store.uri, who, 30)) for who in ("Ada", "Bob")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
        assert writer.exitcode == 0
    assert sorted(ids(store)) == sorted(f"judgment-{who}-{n}" for who in ("Ada", "Bob") for n in range(30))


@pytest.mark.parametrize("harm", ["lost", "cut", "changed", "folder"])
def test_a_batch_that_is_lost_or_broken_is_named(store: Store, harm: str) -> None:
    judgments = Judgments(store)
    (first,) = judgments.append([judgment("1", 1)])
    judgments.append([judgment("2", 2)])
    path = Path(store.path(first))
    data = path.read_bytes()
    path.unlink()
    if harm == "folder":
        path.mkdir()
    elif harm != "lost":
        path.write_bytes(data[:-9] if harm == "cut" else data.replace(b"judgment-1", b"judgment-7"))
    found = Judgments(store).of_job(FINGERPRINT, JOB)
    assert [one.id for one in found.judgments] == ["judgment-2"]
    (fault,) = found.faults
    assert fault.startswith(f"{first} is {'missing' if harm == 'lost' else 'broken'}")
    with pytest.raises(LostJudgments, match=first):
        found.whole()
    # it stays named after the others were made one, until the loss is accepted
    again = Judgments(store)
    again.append([judgment("3", 3)])
    assert again.compact(FINGERPRINT, JOB) == 2
    assert [fault[: len(first)] for fault in Judgments(store).of_job(FINGERPRINT, JOB).faults] == [first]
    Judgments(store).compact(FINGERPRINT, JOB, accept_loss=True)
    assert ids(store) == ["judgment-2", "judgment-3"]
    assert len(store.find("broken")) == (1 if harm in ("cut", "changed") else 0)


def test_many_batches_become_one(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FILES", 10)
    monkeypatch.setattr(module, "KEPT_SECONDS", -1.0)
    judgments = Judgments(store)
    for index in range(45):
        judgments.append([judgment(f"{index:02}", index, key=str(index))])
    assert len(files(store)) <= 21
    assert ids(store) == [f"judgment-{index:02}" for index in range(45)]
    # a process that has read the batches before reads what was made of them, and counts nothing twice
    assert len(judgments.of_job(FINGERPRINT, JOB).whole()) == 45


def test_batches_stay_for_those_who_list_them_meanwhile(store: Store) -> None:
    judgments = Judgments(store)
    for index in range(3):
        judgments.append([judgment(str(index), index)])
    before = files(store)
    assert judgments.compact(FINGERPRINT, JOB) == 3
    assert judgments.compact(FINGERPRINT, JOB) == 1  # there is nothing to be done
    assert set(before) < set(files(store))
    assert len(ids(store)) == 3


def test_foreign_files_are_left_alone(store: Store) -> None:
    Judgments(store).append([judgment("1")])
    for path in (f"{PLACE}/notes.txt", f"judgments/{FINGERPRINT}/README", "judgments/x/y/z.parquet"):
        store.put(store.path(path), b"mine")
    assert ids(store) == ["judgment-1"]
    assert len(Judgments(store).all().judgments) == 1


def test_a_batch_of_a_later_version_is_named_and_not_misread() -> None:
    name, data = encode([judgment("1")])
    assert decode(name, data).judgments == (judgment("1"),)
    with pytest.raises(BrokenBatch, match="not those that were written"):
        decode(name, data + b" ")
    with pytest.raises(BrokenBatch):
        decode("judgments.parquet", data)


def test_names_sort_by_time() -> None:
    names = [encode([judgment("1", second)])[0] for second in (0, 9, 10, 3600, 86_400 * 40)]
    assert names == sorted(names)
    assert encode([judgment("1")])[0].startswith(f"{START:%Y%m%dT%H%M%S}")
    assert encode([judgment("1", at=START + timedelta(microseconds=5))])[0].startswith(f"{START:%Y%m%dT%H%M%S}000005")
