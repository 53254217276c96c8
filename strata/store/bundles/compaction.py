"""Compaction: small parts of a shard are put into bundles, and bundles are taken apart again.

A step is one change of one file, in an order in which a process may die after any: the bundle is written before the
files are removed whose rows it has, and the other way round. In between a part is there twice, which is harmless: its
rows are the same. Plain readers are held off by the lock (`locks.py`). A dead process leaves the lock; whoever finds it
brings the folder in order first (`recover`).

A newer attempt at a bundled chunk cannot be written beside the bundle, whose rows plain readers would still see: its
bundle is taken apart before that. If the two meet, the one that is later sees the other: both list the folder after
they have written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa

from strata.core import FEATURES, GROUPS, is_hash
from strata.store.bundles.format import OpenBundle, encode_bundle
from strata.store.bundles.locks import Busy, folder_lock
from strata.store.filesystem import Files
from strata.store.part_format import BrokenPart, Footer, Source, decode, encode
from strata.store.part_paths import MOST_ATTEMPT, MOST_BUNDLED, Attempts, Bundle, Part

BUNDLE_BYTES = 64 * 2**20  # of the files that are put into one bundle: it is made in memory
LARGE_BYTES = 16 * 2**20  # a file of this size is not small
FOLDERS_AT_ONCE = 4  # in a bucket
SNAPSHOT_NAMES = 500  # a listing of at most so many names of a local folder is one call of the system
PAUSE_SECONDS = 0.05  # between two attempts to get a lock
SETTLE_SECONDS = 0.02  # more than a longer listing takes


class FolderPlan(NamedTuple):
    """A shard's folder, relative to the store's root, and what can be done there.

    small: files that can become bundles, so many new ones; bundles: those that exist.
    """

    folder: str
    small: int
    new: int
    bundles: int


@dataclass
class Compacted:
    """What was done. busy: folders that another process bundles; broken: parts that cannot be read, and stay."""

    files: int = 0
    bundles: int = 0
    busy: int = 0
    broken: int = 0


class Compaction:
    """Bundles the small parts of a store. Every method raises OSError if the store cannot be reached.

    older: files that are younger, in seconds, stay as they are: their shard may be in work.
    """

    def __init__(self, files: Files, older: float = 0.0) -> None:
        self.files, self.older = files, older

    def plans(self) -> Iterator[FolderPlan]:
        """The folders with small parts or bundles, one after the other."""
        for group in (*GROUPS[1:], FEATURES):
            for fingerprint in self.files.folders(f"parts/{group}", is_hash):
                above = f"parts/{group}/{fingerprint}"
                for identity in self.files.folders(above, lambda name: name[0] not in "._"):
                    folder = f"{above}/{identity}"
                    attempts, runs = _runs(self.files, folder, self.older)
                    plan = FolderPlan(folder, sum(map(len, runs)), len(runs), len(attempts.bundles))
                    if plan.new or plan.bundles or attempts.locked:
                        yield plan

    def run(self, plans: Sequence[FolderPlan], undo: bool, advance: Callable[[int], object]) -> Compacted:
        """Bundle the parts of folders, or take their bundles apart. advance: called with 1 after each folder."""
        done = Compacted()
        with ThreadPoolExecutor(1 if self.files.local else FOLDERS_AT_ONCE) as pool:
            for one in pool.map(lambda plan: self._run(plan, undo), plans):
                done.files, done.bundles = done.files + one.files, done.bundles + one.bundles
                done.busy, done.broken = done.busy + one.busy, done.broken + one.broken
                advance(1)
        return done

    def _run(self, plan: FolderPlan, undo: bool) -> Compacted:
        done = Compacted()
        try:
            with _in_order(self.files, plan.folder) as check:
                if undo:
                    for name in _attempts(self.files, plan.folder).bundles:
                        done.files += _take_apart(self.files, f"{plan.folder}/{name}", check)
                        done.bundles += 1
                    return done
                for run in _runs(self.files, plan.folder, self.older)[1]:
                    bundled = _bundle(self.files, plan.folder, run, check)
                    done.files, done.bundles = done.files + bundled, done.bundles + bool(bundled)
                    done.broken += not bundled
                _part_outdated(self.files, plan.folder, check)
        except Busy:
            done.busy += 1
        return done


def _runs(files: Files, folder: str, older: float) -> tuple[Attempts, list[list[str]]]:
    """The attempts in a shard's folder, and the files of each new bundle: small ones, each alone with its chunk."""
    sizes = {path.rpartition("/")[2]: size for path, size in files.find(folder).items()}
    attempts = Attempts.of_names(sizes)
    if older:
        old = files.written_before(time.time() - older, folder)
        sizes = {name: sizes[name] for path in old if (name := path.rpartition("/")[2]) in sizes}
    runs: list[list[str]] = []
    first = total = 0
    for number, found in sorted(attempts.found.items()):
        (attempt, (name, *others)), *more = found.items()
        small = name not in attempts.bundles and name[0] != "_" and sizes.get(name, LARGE_BYTES) < LARGE_BYTES
        # what is to be tidied or computed again first stays as it is
        if more or others or not small or number in attempts.broken or attempt > MOST_ATTEMPT:
            continue
        total += sizes[name]
        if not runs or number >= first + MOST_BUNDLED or total > BUNDLE_BYTES:
            runs.append([])
            first, total = number, sizes[name]
        runs[-1].append(name)
    return attempts, [run for run in runs if len(run) > 1]


@contextmanager
def _in_order(files: Files, folder: str) -> Iterator[Callable[[], None]]:
    """The lock of a folder, which is brought in order first: a process may have died there. Raises Busy."""
    with folder_lock(files, folder) as check:
        _remove_doubles(files, folder, check)
        yield check


def recover(files: Files, folder: str) -> None:
    """Bring a folder in order in which a process has left its lock, or a bundle has an outdated part. Raises Busy."""
    with _in_order(files, folder) as check:
        _part_outdated(files, folder, check)


def unbundle(files: Files, path: str, wait: float = 0.0) -> None:
    """Take a bundle apart, at its path from the store's root. Raises Busy, and OSError.

    Parts in it that are broken are not written; the bundle is then kept in `broken/`. wait: seconds to wait for another
    process, or another thread of this one, which bundles these parts or takes them apart.
    """
    folder, _, name = path.rpartition("/")
    until = time.monotonic() + wait
    while True:
        try:
            with _in_order(files, folder) as check:
                if name in _attempts(files, folder).bundles:
                    _take_apart(files, path, check)
                    move_misplaced(files, folder, _attempts(files, folder))
            return
        except Busy:
            if time.monotonic() >= until:
                raise
            time.sleep(PAUSE_SECONDS)


def move_misplaced(files: Files, folder: str, attempts: Attempts) -> None:
    """Move the parts of a folder to where they belong: see `PartFiles.tidy`."""
    _, group, fingerprint, identity = folder.split("/")
    for part, name in attempts.misplaced(Part(group, fingerprint, identity, 0, 0)):
        newest = max(attempts.found[part.number])
        files.move(f"{folder}/{name}", part.path if part.attempt == newest else part.superseded_path)


def _attempts(files: Files, folder: str) -> Attempts:
    return Attempts.of_names(files.names(folder))


def _bundle(files: Files, folder: str, names: Sequence[str], check: Callable[[], None]) -> int:
    """Put files into a bundle; their number, 0 if one cannot be read or they have different columns."""
    parts: list[tuple[Part, pa.Table, Footer]] = []
    try:
        for name in names:
            source = Source(Part.parse(f"{folder}/{name}"), f"{folder}/{name}")
            parts.append((source.part, *decode(files.get(files.path(source.path)), source)))
    # a part that breaks or goes away is not ours to mend
    except (BrokenPart, FileNotFoundError):
        return 0
    if any(not table.schema.equals(parts[0][1].schema) for _, table, _ in parts):
        return 0
    bundle, data = encode_bundle(parts)
    check()
    files.put(files.path(bundle.path), data)
    if files.local and len(files.names(folder)) > SNAPSHOT_NAMES:
        time.sleep(SETTLE_SECONDS)  # who lists the folder now has begun before the bundle was there
    for name in names:
        check()
        files.remove(files.path(folder, name))
    return len(names)


def _take_apart(files: Files, path: str, check: Callable[[], None]) -> int:
    """Write the parts of a bundle as files of their own, then remove it; returns the number of files."""
    bundle, data = Bundle.find(path), files.get(files.path(path))
    assert bundle is not None
    written, broken = 0, False
    for part in bundle.parts:
        try:
            table, footer = _read(bundle, data, part)
        except BrokenPart:
            broken = True
            if part.attempt:
                files.put(files.path(part.marker), b"")
            continue
        files.put(files.path(part.path), encode(table, part, footer, "snappy"))
        written += 1
    check()
    if broken:
        files.move(path, f"broken/{path}")
    else:
        files.remove(files.path(path))
    return written


def _read(bundle: Bundle, data: bytes, part: Part) -> tuple[pa.Table, Footer]:
    """A part of a bundle of which all bytes are there. Raises BrokenPart."""
    source = Source(part, bundle.path)
    opened = OpenBundle(bundle, data, source)
    begin, end = opened.span(source)
    body = memoryview(data)[begin : len(data) - opened.footer_bytes if end is None else end]
    return opened.table(source, body, begin, None), opened.footer(source)


def _remove_doubles(files: Files, folder: str, check: Callable[[], None]) -> None:
    """Remove the files of parts that are in a bundle too, whose rows are intact there: a process has died in between.

    Of two bundles with the same part, the second is taken apart first.
    """
    seen: set[tuple[int, int]] = set()
    for name, held in sorted(_attempts(files, folder).bundles.items()):
        if seen.intersection(held):
            _take_apart(files, f"{folder}/{name}", check)
        seen.update(held)
    attempts = _attempts(files, folder)
    for name, held in attempts.bundles.items():
        alone = {place: [one for one in attempts.found[place[0]][place[1]] if one != name] for place in held}
        bundle = Bundle.find(f"{folder}/{name}")
        if bundle is None or not any(alone.values()):
            continue
        data = files.get(files.path(bundle.path))
        for part in bundle.parts:
            with suppress(BrokenPart):
                _read(bundle, data, part)
                for one in alone[part.number, part.attempt]:
                    check()
                    files.remove(files.path(folder, one))


def _part_outdated(files: Files, folder: str, check: Callable[[], None]) -> None:
    """Take the bundles apart with a part of which a newer attempt has come, and move that part away."""
    if outdated := _attempts(files, folder).outdated():
        for name in outdated:
            _take_apart(files, f"{folder}/{name}", check)
        move_misplaced(files, folder, _attempts(files, folder))
