"""Exports in a folder or a bucket: sent file by file, and complete when SHA256SUMS is there.

A push notes in `.strata-push/DIGEST/` which files it has sent; DIGEST is that of the content. A later push of the same
content goes on after them. The notes are removed at the end.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from strata.addresses import without_secrets
from strata.errors import Conflict
from strata.files import writing
from strata.publishing.checksums import NOTES, SUMS, is_inside, parse_sums
from strata.publishing.contents import Contents
from strata.store import as_os_error
from strata.store.filesystem import Files
from strata.store.storages import write_limit

BEFORE = "before"  # the note that is written first: the files that lie there, and those that will be sent
THREADS = 8  # files that are sent at a time
Advance = Callable[[int], object]


@dataclass(frozen=True)
class Pushed:
    """What a push has done.

    place: where the export is now; files: of the export, with SHA256SUMS; sent, bytes: of those that were not there
    before; removed: files of an earlier
    export that this one does not have.
    """

    place: str
    files: int
    sent: int
    bytes: int
    removed: int


@dataclass(frozen=True)
class Planned:
    """What a push would do.

    sent: the files that it would send, with SHA256SUMS; removed: those of an earlier export that this one has not.
    """

    sent: Sequence[str]
    removed: Sequence[str]


class Storage:
    """A folder or a bucket, with the prefix at which an export lies. Every method raises OSError.

    The constructor raises InvalidInput if no library is installed for the URI.
    """

    def __init__(self, uri: str) -> None:
        self.files = Files(uri)
        self.name = without_secrets(uri)

    def sums(self) -> str | None:
        """The SHA256SUMS of a complete export; None if there is none."""
        return self._read(SUMS)

    def revision(self) -> str:
        """What is read: there is only one."""
        return self.name

    @as_os_error
    def fetch(self, name: str, target: Path) -> None:
        """Read a file of the export to a local path."""
        self.files.fs.get_file(self.files.path(name), str(target))

    def check(self, contents: Contents) -> list[str]:
        """What the user should know of an export before it is sent: nothing, since buckets have no limits to tell."""
        return []

    def plan(self, contents: Contents, tell: Callable[[str], object] = lambda line: None) -> Planned:
        """What a push would do, found out by reading alone. Raises Conflict as `push`. tell: as there."""
        there = self.sums()
        if there == contents.text:
            return Planned([], [])
        _, before = self._earlier(there)
        known = self._noted(contents)
        sent = [name for name in contents.sums if name not in known]
        return Planned([*sent, SUMS], sorted(before - contents.sums.keys()))

    def push(
        self,
        contents: Contents,
        advance: Advance = lambda size: None,
        tell: Callable[[str], object] = lambda line: None,
    ) -> Pushed:
        """Send an export. advance: is called with the bytes of each file that is there. tell: as of a hub, not called.

        Files of another export that lay there are replaced or removed. Raises Conflict if other files lie there.
        """
        there = self.sums()
        if there == contents.text:
            self._remove_notes()
            advance(contents.bytes)
            return Pushed(self.name, len(contents.every_size), 0, 0, 0)
        before = self._begun(contents, there)
        known = self._noted(contents)
        advance(sum(contents.sizes[name] for name in known))
        missing = [name for name in contents.sums if name not in known]
        with ThreadPoolExecutor(THREADS) as pool:
            for number, batch in enumerate(contents.batches(missing), len(self.files.names(self._notes(contents)))):
                list(pool.map(lambda name: self._send(contents, name, advance), batch))
                self._put(f"{self._notes(contents)}/{number:06d}", json.dumps(batch))
        stale = sorted(before - contents.sums.keys())
        self._end(contents, stale)
        sizes, sent = contents.every_size, [*missing, SUMS]
        return Pushed(self.name, len(sizes), len(sent), sum(sizes[name] for name in sent), len(stale))

    def _begun(self, contents: Contents, there: str | None) -> set[str]:
        """Prepare the place; returns the files of the export that lay there before."""
        notes, before = self._earlier(there)
        self._put(f"{self._notes(contents)}/{BEFORE}", json.dumps(sorted(before | contents.sums.keys())))
        for note in notes:
            if note.split("/")[1] != contents.digest:
                self.files.remove(self.files.path(note))
        # from here until the end there is no complete export
        self.files.remove(self.files.path(SUMS))
        return before

    def _earlier(self, there: str | None) -> tuple[Collection[str], set[str]]:
        """The notes at the place, and what pushes of this and of other exports may have sent. Raises Conflict."""
        notes = self.files.find(NOTES)
        if there is None and not notes and set(self.files.names("")) - {"", "tmp"}:
            raise Conflict(f"{self.name} has other files; name an empty place, or one with an export")
        return notes, {name for note in notes for name in self._listed(note)} | parse_sums(there or "").keys()

    def _listed(self, note: str) -> set[str]:
        """The files that a note names; none of one that cannot be used."""
        with suppress(ValueError):
            found = json.loads(self._read(note) or "[]")
            return {name for name in found if isinstance(name, str) and is_inside(name)}
        return set()

    def _notes(self, contents: Contents) -> str:
        return f"{NOTES}/{contents.digest}"

    def _noted(self, contents: Contents) -> set[str]:
        """The files that an earlier push of the same content has sent, and that are as large as they must be."""
        folder = self._notes(contents)
        sent = [note for note in self.files.names(folder) if note != BEFORE]
        names = {name for note in sent for name in self._listed(f"{folder}/{note}")}
        sizes = self.files.find() if names else {}
        return {name for name in names if name in contents.sizes and sizes.get(name) == contents.sizes[name]}

    @as_os_error
    def _send(self, contents: Contents, name: str, advance: Advance) -> None:
        path, size = self.files.path(name), contents.sizes[name]
        if self.files.local:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        with writing(path):
            self.files.fs.put_file(str(contents.folder / name), path, **write_limit(self.files.fs, size))
        advance(size)

    def _end(self, contents: Contents, stale: Iterable[str]) -> None:
        """Make the export complete, after all of its files."""
        sizes = self.files.find()
        wrong = [name for name, size in contents.sizes.items() if sizes.get(name) != size]
        if wrong:
            raise OSError(f"{self.name}/{wrong[0]} is not as large as it was sent; push again")
        for name in stale:
            self.files.remove(self.files.path(name))
        self._put(SUMS, contents.text)
        self._remove_notes()

    def _remove_notes(self) -> None:
        notes = self.files.find(NOTES)
        for path in notes:
            self.files.remove(self.files.path(path))
        if self.files.local:
            for folder in (*{path.rpartition("/")[0] for path in notes}, NOTES, "tmp"):
                with suppress(OSError):
                    Path(self.files.path(folder)).rmdir()

    def _put(self, name: str, text: str) -> None:
        self.files.put(self.files.path(name), text.encode())

    def _read(self, name: str) -> str | None:
        with suppress(FileNotFoundError):
            return self.files.get(self.files.path(name)).decode("utf-8", "replace")
        return None
