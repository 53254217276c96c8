"""Globs: match names with an automaton, and list the files that a glob matches within bounds.

A glob has the meaning of Python's `fnmatch`: `*`, `?`, `[ab]`, `[a-c]`, `[!a]`, none of which matches a slash. As in
a shell, a hidden name is found only by a segment that is written as one: `.*` or `._a.jpg`. Regular expressions, to
which fnmatch translates a glob, search for the right place of each star again and again: twenty stars and a name of
thirty characters already take years.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from fsspec.asyn import AsyncFileSystem
from fsspec.exceptions import FSTimeoutError

from strata.shards.kinds import is_hidden
from strata.shards.ranges import MAX_SHARDS, TooManyShards
from strata.shards.roots import OutsideRoots, Roots, SourceError, encodable, normalise, short
from strata.store import file_system

MAX_DEPTH = 32  # folders below the first special character of a glob
MAX_ENTRIES = 1_000_000  # files and folders that are listed for one request
MAX_SECONDS = 30.0  # for all that one request names

Found = tuple[str, bool]  # a path, and whether it is a folder


class Glob:
    """A segment of a glob as an automaton that has all its states in the bits of one number.

    State i means that the first i tokens are matched; a token is one character, `?` or a class. One step takes a
    character of the name: it moves every state whose next token takes the character on by one, and keeps the states
    before which a star stands (Baeza-Yates and Gonnet, "A new approach to text searching", 1992). The time is the
    length of the name times that of the pattern, divided by the 30 bits of a digit of Python's numbers.
    """

    def __init__(self, text: str, only_star: bool = False) -> None:
        """only_star: `?` and `[` stand for themselves."""
        tokens: list[str] = []  # a character, or "?" or "[…]"
        stars = 0  # bit i: a star stands before token i
        at = 0
        while at < len(text):
            end = at + 1 if only_star else _token_end(text, at)
            if text[at] == "*":
                stars |= 1 << len(tokens)
            else:
                tokens.append(text[at:end])
            at = end
        self._stars, self._end = stars, 1 << len(tokens)
        self._hidden = is_hidden(text)
        self._classes = [(1 << i, token) for i, token in enumerate(tokens) if len(token) > 1]
        self._any = 0 if only_star else sum(1 << i for i, token in enumerate(tokens) if token == "?")
        self._single: dict[str, int] = {}
        for i, token in enumerate(tokens):
            self._single[token] = self._single.get(token, 0) | 1 << i
        self._masks: dict[str, int] = {}  # by character: the tokens that take it

    def lists(self, name: str) -> bool:
        """Whether a file or folder of this name is found: it matches, and is hidden only if the glob is so itself."""
        return self.matches(name) and (self._hidden or not is_hidden(name))

    def matches(self, name: str) -> bool:
        """Whether the whole name matches."""
        state = 1
        for character in name:
            mask = self._masks.get(character)
            if mask is None:
                mask = self._mask(character)
            state = (state & mask) << 1 | state & self._stars
            if not state:
                return False
        return bool(state & self._end)

    def _mask(self, character: str) -> int:
        mask = self._any | self._single.get(character, 0)
        for bit, token in self._classes:
            if _in_class(character, token):
                mask |= bit
        # names may have any number of different characters
        if len(self._masks) < 1000:
            self._masks[character] = mask
        return mask


def _token_end(text: str, at: int) -> int:
    """The index after the token at an index: `[` begins a class if it is closed; `]` may be its first character."""
    if text[at] != "[":
        return at + 1
    first = at + 2 if text.startswith("!", at + 1) else at + 1
    closed = text.find("]", first + 1)
    return closed + 1 if closed > 0 else at + 1


def _in_class(character: str, token: str) -> bool:
    """Whether a class such as [a-cx] or [!a] has a character. A range that runs backwards has none."""
    negated = token[1] == "!"
    body, at = token[2 if negated else 1 : -1], 0
    while at < len(body):
        ranged = body.startswith("-", at + 1) and at + 2 < len(body)
        if body[at] <= character <= (body[at + 2] if ranged else body[at]):
            return not negated
        at += 3 if ranged else 1
    return negated


class Effort:
    """What the patterns of one request may cost together: a time, and a number of listed files and folders."""

    def __init__(self) -> None:
        self.entries = 0
        self._until = time.monotonic() + MAX_SECONDS

    def limits(self, filesystem: Any) -> dict[str, float]:
        """The arguments that give up a call of a remote file system when the time is over."""
        left = max(0.001, self._until - time.monotonic())
        return {"timeout": left} if isinstance(filesystem, AsyncFileSystem) else {}

    def count(self, place: str, entries: int = 0) -> None:
        """Count listed files and folders. Raises TooManyShards if they, or the time, are over their limit."""
        self.entries += entries
        if self.entries > MAX_ENTRIES:
            raise TooManyShards(f"{place}: more than {MAX_ENTRIES:,} files and folders would be listed")
        if time.monotonic() > self._until:
            raise TooManyShards(f"{place}: finding the shards takes longer than {MAX_SECONDS:.0f} seconds")


class Listing:
    """Lists what a glob matches under the roots. place: what messages call the glob."""

    def __init__(self, place: str, allowed: Roots, effort: Effort) -> None:
        self._place, self._allowed, self._effort = place, allowed, effort

    def find(self, top: str, rest: str) -> list[str]:
        """The normalised URIs, sorted, of the files and folders below the normalised folder `top` that `rest` matches.

        A glob that ends with a slash matches folders only. Raises SourceError, and the exceptions of the storage for
        `top`; folders below it that cannot be read are passed over, as a shell does.
        """
        segments = [segment for segment in rest.split("/") if segment not in ("", ".")]
        if ".." in segments or any("**" in segment for segment in segments):
            raise SourceError(f"{self._place}: ** and .. are not allowed in a glob")
        if len(segments) > MAX_DEPTH:
            raise SourceError(f"{self._place}: a glob of more than {MAX_DEPTH} folders")
        filesystem, path = file_system(top or "/")
        folder, local = path.rstrip("/"), "://" not in top
        globs = [Glob(segment, only_star=not local) for segment in segments]
        walk = self._local(folder, globs) if local else self._remote(filesystem, folder, globs)
        # a link may point outside the roots; a file and a folder of a bucket may have the same name
        uris: set[str] = set()
        for match, is_folder in walk:
            if is_folder or not rest.endswith("/"):
                with suppress(OutsideRoots):
                    uris.add(self._uri(top, match[len(folder) :]))
            if len(uris) > MAX_SHARDS:
                raise TooManyShards(f"{self._place}: more than {MAX_SHARDS:,} shards in one request")
        return sorted(uris)

    def _uri(self, top: str, below: str) -> str:
        """The URI of a match. Raises OutsideRoots, and SourceError with the name of a file that cannot be a shard."""
        named = self._named(below.strip("/"))
        uri, _ = self._allowed.find(top.rstrip("/") + below, named, keep_link=True)
        if encodable(uri) != uri:
            raise SourceError(f"{named} has a name that is not valid UTF-8: rename the file")
        return uri

    def _named(self, name: str) -> str:
        return f"{self._place}: the file {short(ascii(name))}"

    def _local(self, folder: str, globs: list[Glob], top: bool = True) -> Iterator[Found]:
        """Yield what the globs match below a folder, one glob a level, and whether it is a folder."""
        try:
            with os.scandir(folder or "/") as entries:
                for entry in entries:
                    self._effort.count(self._place, 1)
                    if not globs[0].lists(entry.name):
                        continue
                    is_folder = self._is_folder(entry)
                    if len(globs) == 1:
                        yield entry.path, is_folder
                    elif is_folder:
                        yield from self._local(entry.path, globs[1:], top=False)
        except OSError:
            if top:
                raise

    def _is_folder(self, entry: os.DirEntry[str]) -> bool:
        """Whether an entry is a folder under the roots: where a link leads is not listed if it lies outside."""
        inside = not entry.is_symlink() or self._allowed.hold(normalise(entry.path, self._named(entry.name)))
        return inside and entry.is_dir()

    def _remote(self, filesystem: Any, folder: str, globs: list[Glob]) -> Iterator[Found]:
        """As `_local`, in a bucket."""
        # a server's listing has any number of pages
        try:
            infos = filesystem.ls(folder, detail=True, **self._effort.limits(filesystem))
        except FSTimeoutError:
            self._effort.count(self._place)
            raise
        self._effort.count(self._place, len(infos))
        for info in infos:
            # the folder itself may be listed as an object
            path = str(info["name"]).rstrip("/")
            if path == folder or not globs[0].lists(path.rpartition("/")[2]):
                continue
            is_folder = info["type"] == "directory"
            if len(globs) == 1:
                yield path, is_folder
            elif is_folder:
                yield from self._remote(filesystem, path, globs[1:])
