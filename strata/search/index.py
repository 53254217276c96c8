"""The search index: keeps the database in step with the parts of the store, and lends it to searches.

A thread lists the store from time to time, reads the parts that are new, and removes those that are gone. It begins
with the first search, or at the start of the service if there was a search before: who never searches pays nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from strata.addresses import without_secrets
from strata.core import Chunk
from strata.errors import ServiceUnavailable
from strata.search.database import THREADS, Cursor, Database, Folder, IndexedPart
from strata.search.extraction import COLUMNS, extract
from strata.search.filters import Scope
from strata.search.listing import PartListing
from strata.store import READERS, BrokenPart, Part, Store

log = logging.getLogger(__name__)

BATCH_PARTS, BATCH_BYTES = 64, 8 * 2**20  # parts that are read and added together
FREE_BYTES = 2**30  # of the disk that the index leaves to others
FORGET_SECONDS = 5.0  # that a deletion waits for its turn
RETRIED = 100  # broken parts that are tried again each time: they may have been computed again
MIN_PAUSE, MAX_PAUSE = 0.2, 30.0  # seconds between two listings, with and without searches in between
SHARE = 20  # a listing may take one part in so many of the time; so may making the file smaller
SMALL_RUNS, RUN_ROWS = 64, 2**14  # above so many runs with fewer rows on average, the file is copied in larger ones


class IndexNotReady(ServiceUnavailable):
    """The store has not been listed yet, so that it is not known what there is to be searched."""


class SearchIndex:
    """The index of one store, in a folder of this process. Safe to use from several threads.

    Its methods raise OSError if the store or the folder cannot be used.
    """

    def __init__(self, store: Store, folder: Path) -> None:
        self.store, self.folder = store, Folder(folder)
        self.listing = PartListing(store)
        self.note: str | None = None  # why the index does not grow now
        self._database: Database | None = None
        self._lock = threading.Lock()  # of the current database
        self._writer = threading.RLock()  # held by who changes it
        self._pending: set[str] = set()  # paths of parts that are known and not indexed yet
        self._asked, self._listed = threading.Event(), threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._copied = (0.0, 0.0)  # when the file was last copied, and how long it took

    # the thread

    def start_if_used(self) -> None:
        """Start the thread if an earlier process has made an index."""
        if self.folder.files():
            self._start()

    def ask(self, seconds: float) -> None:
        """Have the store listed soon. Raises IndexNotReady if it has not been listed once after so many seconds."""
        self._start()
        self._asked.set()
        if not self._listed.wait(seconds):
            raise IndexNotReady(self.note or "the store is being listed")

    def close(self) -> None:
        """End the thread, and close the file. A search that comes later opens it again."""
        self._stop.set()
        self._asked.set()
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()
        with self._lock:
            database, self._database = self._database, None
            if database is not None:
                database.close()
        self._stop.clear()
        self._listed.clear()
        self.folder.close()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None and not self._stop.is_set():
                self._thread = threading.Thread(target=self._run, name="search index", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            self._asked.clear()
            try:
                self.refresh()
            except OSError as error:
                self._tell(f"the store cannot be read: {error}")
            except duckdb.Error as error:
                self._tell(f"the index is made anew: {error}")
                self._discard()
            except Exception:
                # whatever it was, the next attempt may succeed, and searches go on with what is there
                log.exception("the search index could not be brought up to date")
            # never more than a share of the time, and at least now and then
            pause = max(MIN_PAUSE, (time.monotonic() - began) * SHARE)
            if not self._stop.wait(pause):
                self._asked.wait(max(0.0, MAX_PAUSE - pause))

    def _tell(self, note: str) -> None:
        line = " ".join(without_secrets(note).split())[:300]
        if line != self.note:
            log.warning("search: %s", line)
        self.note = line

    # the database

    def database(self) -> Database:
        """The current database; it is opened first."""
        with self._lock:
            return self._opened()

    def _opened(self) -> Database:
        if self._database is None:
            self._database = self.folder.open()
        return self._database

    @contextmanager
    def cursor(self) -> Iterator[Cursor]:
        """A connection to the index for one search."""
        # under the lock: the thread may replace the database and close the old one
        with self._lock:
            cursor = self._opened().cursor()
        with cursor:
            yield cursor

    def _discard(self) -> None:
        """Throw the database away, whose file is damaged or cannot be written; the next one begins empty."""
        with self._writer, self._lock:
            database, self._database = self._database, None
            if database is not None:
                with suppress(duckdb.Error):
                    database.close()
                database.path.unlink(missing_ok=True)

    # bringing it up to date

    def refresh(self) -> None:
        """Compare the index with the parts of the store, and read what is new. Raises OSError."""
        # step by step, so that a deletion need not wait for all of them
        listed = self.listing.table()
        with self._writer:
            fresh = self._compare(listed)
        self._pending = {one.path for one in fresh}
        self._listed.set()
        for batch in _batches(fresh):
            if self._stop.is_set():
                return
            # the disk is shared with the store and the queue, which need it more
            if self.folder.free() < FREE_BYTES:
                self._tell("the disk of the index is nearly full")
                return
            with self._writer:
                self._add(batch)
        self.note = None
        with self._writer:
            self._tidy()

    def _compare(self, listed: pa.Table) -> list[IndexedPart]:
        """Remove the parts that are gone or changed, and return those that the index does not have, in order."""
        database = self.database()
        with database.cursor() as cursor:
            cursor.register("listed", listed)
            again = f"select path from parts where broken is not null limit {RETRIED}"
            gone = cursor.execute(
                "select p.id from parts p left join listed l using (path) "
                f"where l.path is null or l.size <> p.size or p.path in ({again})"
            ).fetchall()
            changed = cursor.execute(
                "select p.id, l.latest from parts p join listed l using (path) where p.latest <> l.latest"
            ).fetchall()
        # change the database only if there is something to be changed
        if gone:
            database.remove([one for (one,) in gone])
        if changed:
            latest = [one for one, flag in changed if flag]
            database.set_latest(latest, [one for one, flag in changed if not flag])
        with database.cursor() as cursor:
            cursor.register("listed", listed)
            columns = ", ".join(f"l.{name}" for name in listed.column_names)
            fresh = cursor.execute(f"select {columns} from listed l anti join parts p using (path)").fetchall()
        # by rows of the listing, whose order is that of the store
        return sorted((IndexedPart(*one) for one in fresh), key=lambda one: one[1:5])

    def _add(self, batch: Sequence[IndexedPart]) -> None:
        """Read parts, and add them; one that is broken is noted with the reason, one that is gone is left out."""
        with ThreadPoolExecutor(THREADS if self.store.local else READERS) as pool:
            read = list(pool.map(self._read, batch))
        found = [(part, table) for part, table in zip(batch, read, strict=True) if isinstance(table, pa.Table)]
        broken = [
            part._replace(broken=error) for part, error in zip(batch, read, strict=True) if isinstance(error, str)
        ]
        if found:
            whole = extract(pa.concat_tables([table for _, table in found]).combine_chunks())
            self.database().add([part._replace(images=table.num_rows) for part, table in found], whole)
        if broken:
            self.database().add(broken, None)
        self._pending.difference_update(part.path for part in batch)

    def _read(self, part: IndexedPart) -> pa.Table | str | None:
        """The columns of a part; why it is broken; or None if it is not there any more."""
        try:
            return self.store.read_columns(part.path, COLUMNS)
        except FileNotFoundError:
            return None
        except (BrokenPart, pa.ArrowException) as error:
            return " ".join(str(error).split())[:300]

    def _tidy(self) -> None:
        """Copy the file if it has rows that were removed, or many small runs of words, but not all the time."""
        database = self.database()
        runs, removed, images = database.fetch("select runs, removed, (select count(*) from images) from meta")[0]
        small = runs > SMALL_RUNS and images < runs * RUN_ROWS
        when, took = self._copied
        if not (removed or small) or time.monotonic() < when + took * SHARE:
            return
        began = time.monotonic()
        copy = self.folder.new()
        try:
            database.copy(copy)
        except BaseException:
            copy.close()
            copy.path.unlink(missing_ok=True)
            raise
        # searches that have begun go on with the old file, which has no name any more
        with self._lock:
            self._database = copy
        database.close()
        self.folder.remove_others(copy.path)
        self._copied = time.monotonic(), time.monotonic() - began

    def forget(self, chunks: Sequence[Chunk]) -> None:
        """Remove those parts of some shards that are not in the store any more, as after the deletion of a job.

        chunks: one of each shard. Their rows are not found any more; the thread then makes the file anew without them.
        """
        if self._database is None and not self.folder.files():
            return
        folders = [(part.fingerprint, part.identity) for part in map(Part.of_chunk, chunks)]
        # while the file is copied, the thread removes them after that, by its next listing
        if self._writer.acquire(timeout=FORGET_SECONDS):
            try:
                self._forget(folders)
            finally:
                self._writer.release()
        self._asked.set()

    def _forget(self, folders: list[tuple[str, str]]) -> None:
        there = self.listing.of_folders(folders)
        known = self.database().fetch(
            "select id, path from parts where (fingerprint, identity) in "
            "(select unnest(?::varchar[]), unnest(?::varchar[]))",
            [[one for one, _ in folders], [one for _, one in folders]],
        )
        gone = [one for one, path in known if path not in there]
        if gone:
            self.database().remove(gone)

    # what is not there yet

    def waiting(self, scope: Scope, matches: Callable[[Part], bool] | None, indexed: int) -> int:
        """How many parts of a scope are known and not indexed yet. matches: whether a part is of the scope."""
        if scope.paths is not None:
            return max(0, len(scope.paths) - indexed)
        pending = list(self._pending)
        return len(pending) if matches is None else sum(matches(Part.parse(path)) for path in pending)


def _batches(parts: Sequence[IndexedPart]) -> Iterator[list[IndexedPart]]:
    """Consecutive parts, at most BATCH_PARTS and about BATCH_BYTES at a time."""
    batch: list[Any] = []
    size = 0
    # the size of a part in a bundle is not known
    most = BATCH_BYTES // BATCH_PARTS
    for part in parts:
        if batch and (len(batch) >= BATCH_PARTS or size + (part.size or most) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(part)
        size += part.size or most
    if batch:
        yield batch
