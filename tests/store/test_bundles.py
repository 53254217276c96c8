"""Bundles of parts: what they hold, who reads them, and what happens to a part in one."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import duckdb
import polars
import pyarrow.dataset
import pytest

from strata.core.chunks import Chunk
from strata.core.records import Record
from strata.core.usage import Bill
from strata.search.listing import PartListing
from strata.snapshots import Cleaning, Selection, Snapshots, Verification
from strata.snapshots.deletion import Deletion
from strata.store import Compaction, PartsOf
from strata.store.bundles import Busy, folder_lock
from strata.store.part_format import BrokenPart
from strata.store.part_paths import LOCK, Attempts, Bundle, Part
from strata.store.store import Store
from tests.cli.test_cli import code_of
from tests.described import FINGERPRINT, described
from tests.queue.requests import job_request

CHUNKS, ROWS = 5, 3
IDENTITY = "a" * 16
FOLDER = f"parts/llm/{FINGERPRINT}/{IDENTITY}"


def chunk_of(number: int, attempt: int = 0) -> Chunk:
    return Chunk("llm", "fake", FINGERPRINT, "a.tar", IDENTITY, number, ROWS, attempt)


def rows(number: int, failed: int = 0) -> list[Record]:
    records = [described(f"{number}-{row}", ["dog"]).model_copy(update={"regions": []}) for row in range(ROWS)]
    return [*records[failed:], *(each.failed("read", "OSError", "away", True) for each in records[:failed])]


def compact(store: Store, undo: bool = False) -> int:
    compaction = Compaction(store)
    done = compaction.run(list(compaction.plans()), undo, lambda _: None)
    assert not done.busy and not done.broken
    return done.files


@pytest.fixture
def bundled(store: Store) -> Store:
    """A store with a shard of five chunks in one bundle; the second chunk was retried, the third has a failed row."""
    for number in range(CHUNKS):
        store.write_records(chunk_of(number), rows(number, int(number in (1, 2))), Bill(job="j", entry=str(number)))
    store.write_records(chunk_of(1, 1), rows(1))
    assert compact(store) == CHUNKS
    (path,) = store.find("parts")
    bundle = Bundle.find(path)
    assert bundle is not None and bundle.path == path and bundle.held == ((0, 0), (1, 1), (2, 0), (3, 0), (4, 0))
    return Store(store.uri)


def test_parts_in_a_bundle_are_what_they_were(bundled: Store) -> None:
    for number in range(CHUNKS):
        chunk = chunk_of(number, int(number == 1))
        assert bundled.newest(chunk) == chunk and bundled.read_records(chunk) == rows(number, int(number == 2))
        footer = bundled.read_footer(chunk)
        assert footer.counts.total() == ROWS and footer.transient == (number == 2)
        assert (footer.bill is None) == (number == 1)
        table = bundled.read_columns(Part.of_chunk(chunk).path, ["key", "description.text"])
        assert table.column("key").to_pylist() == [row.key for row in rows(number, int(number == 2))]
    # the attempt before the retry lies where it lay
    assert bundled.read_records(chunk_of(1)) == rows(1, 1)
    assert bundled.newest(chunk_of(0, 1)) is None and bundled.newest(chunk_of(CHUNKS)) is None
    with pytest.raises(FileNotFoundError):
        bundled.read_table(chunk_of(CHUNKS))
    assert compact(bundled) == 0
    assert compact(bundled, undo=True) == CHUNKS
    assert set(bundled.find("parts")) == {Part.of_chunk(chunk_of(n, int(n == 1))).path for n in range(CHUNKS)}
    assert bundled.read_records(chunk_of(1, 1)) == rows(1)


def test_other_programs_read_every_row_once(bundled: Store) -> None:
    folder = bundled.path("parts", "llm", FINGERPRINT)
    expected = Counter(f"{number}-{row}" for number in range(CHUNKS) for row in range(ROWS))
    data = pyarrow.dataset.dataset(folder)
    assert Counter(data.to_table(columns=["key"]).column("key").to_pylist()) == expected
    found = duckdb.connect().execute(f"select key from '{folder}/**/*.parquet'").fetchall()
    assert Counter(key for (key,) in found) == expected
    assert Counter(polars.read_parquet(f"{folder}/**/*.parquet")["key"]) == expected
    # and are held off while the folder changes
    with folder_lock(bundled, FOLDER), pytest.raises(duckdb.Error):
        duckdb.connect().execute(f"select key from '{folder}/**/*.parquet'").fetchall()
    assert max(bundled.names(FOLDER)) < LOCK


def test_one_bundles_at_a_time_and_the_lock_of_a_dead_one_passes_on(bundled: Store) -> None:
    with folder_lock(bundled, FOLDER):
        with pytest.raises(Busy), folder_lock(Store(bundled.uri), FOLDER):
            pass
        # a retry of a chunk in the bundle must wait
        with pytest.raises(Busy):
            bundled.write_records(chunk_of(3, 1), rows(3))
        assert bundled.read_records(chunk_of(3)) == rows(3)
    Path(bundled.path(FOLDER, LOCK)).write_bytes(b"")
    bundled.tidy(Part.of_chunk(chunk_of(0)), bundled.attempts(chunk_of(0)))
    assert LOCK not in bundled.names(FOLDER)


def test_a_retry_takes_the_bundle_apart(bundled: Store) -> None:
    bundled.write_records(chunk_of(2), rows(2, 3))  # late: the part is there
    assert len(bundled.find("parts")) == 1
    bundled.write_records(chunk_of(2, 1), rows(2))
    assert len(bundled.find("parts")) == CHUNKS
    assert bundled.read_records(chunk_of(2, 1)) == rows(2) and bundled.read_records(chunk_of(2)) == rows(2, 1)
    assert bundled.all_attempts(chunk_of(0)) == {0: [0], 1: [0, 1], 2: [0, 1], 3: [0], 4: [0]}


@pytest.mark.parametrize("place", ["rows", "footer", "end"])
def test_a_broken_part_is_set_aside_and_the_others_stay(bundled: Store, place: str) -> None:
    (path,) = bundled.find("parts")
    data = bytearray(Path(bundled.path(path)).read_bytes())
    at = {"rows": 20, "footer": data.rindex(b"strata.bundle"), "end": len(data) - 1}[place]
    data[at] ^= 1
    Path(bundled.path(path)).write_bytes(data)
    report = Verification(bundled)
    found = report.run(report.paths())
    broken = {Part.of_chunk(chunk_of(n, int(n == 1))).path for n in range(1 if place == "rows" else CHUNKS)}
    # without its footer nothing is left of a bundle: the first of its parts that is read tells it
    assert found.broken and set(found.broken) <= broken and found.parts == CHUNKS + 1 - len(broken)
    assert list(bundled.find("broken")) == [f"broken/{path}"]
    attempts = bundled.attempts(chunk_of(0))
    assert len(attempts.found) == CHUNKS - len(broken) and attempts.newest(chunk_of(0)) is None
    assert not attempts.bundles and attempts.broken == ({} if place == "rows" else {1: 1})
    # the chunk is computed again
    bundled.write_records(chunk_of(0), rows(0))
    assert bundled.read_records(chunk_of(0)) == rows(0)


def test_a_reader_sets_a_broken_part_aside_once(bundled: Store) -> None:
    (path,) = bundled.find("parts")
    data = bytearray(Path(bundled.path(path)).read_bytes())
    data[20] ^= 1
    Path(bundled.path(path)).write_bytes(data)
    with pytest.raises(BrokenPart) as found:
        bundled.read_records(chunk_of(0))
    assert found.value.path == Part.of_chunk(chunk_of(0)).path
    assert bundled.set_aside(found.value) and not bundled.set_aside(found.value)
    assert bundled.read_records(chunk_of(4)) == rows(4)


def test_snapshots_data_sets_search_and_clean_know_bundles(bundled: Store) -> None:
    parts = PartsOf(bundled).sources([FINGERPRINT])
    assert [(part.number, part.attempt) for part in parts] == [(0, 0), (1, 1), (2, 0), (3, 0), (4, 0)]
    listed = PartListing(bundled).table()
    assert listed.column("path").to_pylist() == [part.path for part in parts]
    assert listed.column("size").null_count == CHUNKS
    snapshot = Snapshots(bundled).create("one", parts[:2], Selection())
    assert snapshot.manifest.counts.selected == 2 * ROWS and snapshot.lost() == []
    # the other parts of the bundle go, and the attempt before the retry
    cleaning = Cleaning(bundled)
    gone = [Part.of_chunk(chunk_of(1)).superseded_path, *(part.path for part in parts[2:])]
    assert sorted(cleaning.remove(list(cleaning.unreferenced()))) == sorted(gone)
    assert list(bundled.find("parts")) == [part.path for part in parts[:2]] and not bundled.find("superseded")
    assert not Cleaning(bundled).unreferenced() and bundled.read_records(chunk_of(0)) == rows(0)
    assert compact(bundled) == 2
    Snapshots(bundled).delete("one")
    assert len([path for path in Cleaning(bundled).unreferenced() if path.startswith("parts/")]) == 1
    compact(bundled, undo=True)
    Path(bundled.path(parts[0].path)).unlink()
    assert snapshot.lost() == [parts[0].path]


def test_rows_of_a_deleted_job_do_not_stay_in_a_bundle(bundled: Store) -> None:
    request = job_request("0" * 22, ("a.tar",)).model_copy(
        update={
            "chunk_size": ROWS,
            "indexed": [{"shard": "a.tar", "identity": IDENTITY, "images": CHUNKS * ROWS}],
        }
    )
    request = type(request).model_validate(request.model_dump())
    bundled.write_job_file(request.id, "request", request)
    pinned = PartsOf(bundled).sources([FINGERPRINT])[:1]
    Snapshots(bundled).create("one", pinned, Selection())
    assert len(PartsOf(bundled).job(request)) == CHUNKS
    Deletion(bundled).delete(request.id, [])
    assert list(bundled.find("parts")) == [pinned[0].path] and not bundled.find("superseded")


def test_what_is_not_small_or_not_alone_stays(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    store.write_records(chunk_of(0), rows(0))
    uri = ("--store", store.uri)
    assert code_of("compact", "--yes", "--older", "0", *uri) == 0 and len(store.find("parts")) == 1
    for number in (3, 70, 71):
        store.write_records(chunk_of(number), rows(number))
    capsys.readouterr()
    # young parts stay
    assert code_of("compact", "--yes", "--json", *uri) == 0
    assert json.loads(capsys.readouterr().out)["files"] == 0
    assert code_of("compact", "--older", "0", *uri) == 0
    assert capsys.readouterr().out == "4 files can become 2 bundles with --yes; there are 0 bundles\n"
    assert code_of("compact", "--yes", "--older", "0", *uri) == 0
    assert capsys.readouterr().out == "4 files into 2 bundles\n"
    assert [bundle.held for path in store.find("parts") if (bundle := Bundle.find(path))] == [
        ((0, 0), (3, 0)),
        ((70, 0), (71, 0)),
    ]
    assert code_of("compact", "--undo", "--yes", *uri) == 0 and len(store.find("parts")) == 4


def test_names_of_bundles() -> None:
    names = ["bundle-00003-0_z-0123456789abcdef.parquet", "bundle-x.parquet", "bundle-1-_-0123456789abcdef.parquet"]
    attempts = Attempts.of_names([*names, "00003.parquet", LOCK])
    assert attempts.bundles == {names[0]: ((3, 0), (5, 35))} and attempts.locked
    assert attempts.found == {3: {0: ["00003.parquet", names[0]]}, 5: {35: [names[0]]}}
    assert attempts.bundle_of(3, 0) is None and attempts.bundle_of(5, 35) == names[0]


def test_a_flipped_bit_of_a_bundle_is_noticed(bundled: Store) -> None:
    (path,) = bundled.find("parts")
    file = Path(bundled.path(path))
    data = file.read_bytes()
    mark = data.rindex(b"strata-crc32:")
    for at in [*range(mark, mark + 13), *random.Random(1).sample(range(len(data)), 100)]:
        changed = bytearray(data)
        changed[at] ^= 1 << at % 8
        file.write_bytes(changed)
        reader, broken = Store(bundled.uri), 0
        for number in range(CHUNKS):
            try:
                reader.read_records(chunk_of(number, int(number == 1)))
            except BrokenPart:
                broken += 1
        assert broken, at
