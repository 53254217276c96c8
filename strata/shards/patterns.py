"""Find the shards that a request names: expand ranges, globs and @lists to URIs under the allowed roots.

All of it is bounded: the number of patterns and names (`ranges`), of files that are listed and the time (`globs`), and
the bytes of lists. Messages quote what the caller wrote, and never a line of a list: an @list may be any file under the
roots, and what is in it is nobody's answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple
from urllib.parse import unquote

from strata.shards.globs import Effort, Listing
from strata.shards.kinds import EXTENSIONS, kind_by_name
from strata.shards.ranges import MAX_SHARDS, Expansion, TooManyShards
from strata.shards.roots import Roots, ShardMissing, SourceError, scheme_of, short
from strata.store import file_system

MAX_LISTS = 100  # @lists of one request
MAX_LIST_BYTES = 16 * 2**20  # of all of them together


class Pattern(NamedTuple):
    """A pattern of a request. line: where it stands in a list; messages say this instead of quoting the pattern."""

    text: str
    line: str = ""


def find_shards(patterns: Sequence[str], roots: Sequence[str]) -> list[str]:
    """The normalised URIs of all shards that the patterns name, in order, each once; the matches of a glob are sorted.

    A pattern may contain ranges (`ranges.py`) and globs: `*`, `?` and `[ab]` in local paths, `*` in buckets.
    A local file of the very name is this file and no pattern, unless the name has a star, which matches the file too.
    `@/folder/list.txt` names a text file of patterns, one per line; empty lines and lines that begin with # are
    skipped, and paths are relative to the file's folder. Nothing outside the roots is listed or read.

    Raises OutsideRoots; ShardMissing for local shards that do not exist (buckets are not asked, because that takes too
    long), for a glob without matches and for a missing list; TooManyShards if a limit is exceeded; and SourceError for
    a pattern that is not valid or cannot be listed.
    """
    finder = _Finder(Roots(roots))
    found: dict[str, None] = {}
    missing: list[str] = []
    for pattern in finder.listed(patterns):
        for name in finder.expansion.names_of(pattern.text, pattern.line):
            for uri, exists in finder.matches(name, pattern.line):
                if not exists and uri not in found:
                    missing.append(pattern.line or uri)
                found[uri] = None
                if len(found) > MAX_SHARDS:
                    raise TooManyShards(f"{pattern.line or short(uri)}: more than {MAX_SHARDS:,} shards in one request")
    if missing:
        more = f" (and {len(missing) - 1:,} more)" if len(missing) > 1 else ""
        raise ShardMissing(f"{short(missing[0])}: the shard does not exist{more}", missing)
    return list(found)


class _Finder:
    """What one request names, and what it has cost so far."""

    def __init__(self, allowed: Roots) -> None:
        self._allowed = allowed
        self.expansion, self._effort = Expansion(), Effort()
        self._lists: set[str] = set()  # those that were read
        self._bytes = 0  # of them

    def listed(self, patterns: Sequence[str]) -> Iterator[Pattern]:
        """Yield the patterns, in place of an @list those of its lines. A list that is named twice is read once."""
        for pattern in patterns:
            if pattern.startswith("@"):
                yield from self._lines(pattern)
            else:
                yield Pattern(pattern)

    def _lines(self, pattern: str) -> Iterator[Pattern]:
        uri = self._allowed.check(pattern[1:])
        if uri in self._lists:
            return
        self._lists.add(uri)
        if len(self._lists) > MAX_LISTS:
            raise TooManyShards(f"{short(pattern)}: more than {MAX_LISTS} lists in one request")
        # the paths of a list are relative to its folder, as in a list of images
        folder = uri.rpartition("/")[0]
        for number, line in enumerate(self._text(uri).splitlines(), 1):
            place, text = f"line {number:,} of {short(pattern)}", line.strip()
            if text.startswith("@"):
                raise SourceError(f"{place}: a list cannot name another list")
            if text and not text.startswith("#"):
                yield Pattern(text if scheme_of(text) or text.startswith("/") else f"{folder}/{text}", place)

    def _text(self, uri: str) -> str:
        self._effort.count(f"@{short(uri)}")
        left = MAX_LIST_BYTES - self._bytes
        try:
            filesystem, path = file_system(uri)
            limits = self._effort.limits(filesystem)
            if filesystem.info(path, **limits)["type"] != "file":
                raise SourceError(f"@{short(uri)} is not a file")
            # one byte more than allowed shows that the list is too long
            data: bytes = filesystem.cat_file(path, start=0, end=left + 1, **limits)
        except (FileNotFoundError, NotADirectoryError):
            raise ShardMissing(f"no such list: {short(uri)}", [f"@{uri}"]) from None
        except SourceError:
            raise
        except Exception as error:  # each storage library has its own exceptions
            raise _unreadable(short(uri), "read", error) from error
        self._bytes += len(data)
        if len(data) > left:
            raise TooManyShards(f"@{short(uri)}: the lists of the request have more than {MAX_LIST_BYTES:,} bytes")
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise SourceError(f"@{short(uri)} is not text in UTF-8") from None

    def matches(self, name: str, line: str) -> Iterable[tuple[str, bool]]:
        """The name itself if it is not a glob, else its matches under the roots; each with whether it exists.

        Remote names are taken to exist. line: of the list that has the name.
        """
        self._effort.count(line or short(name))
        # find the first special character; only local paths know ? and [
        scheme = scheme_of(name)
        local = scheme in ("", "file")
        if scheme == "file":
            name = unquote(name[len("file://") :]) if name.startswith("/", len("file://")) else name
        magic = re.search(r"[*?[]" if local else r"\*", name)
        # a file may be named a[1].tar; a star matches the file named *.tar, and must not stand for it alone
        literal = local and "*" not in name
        if magic is None or (literal and self._allowed.find(name, line)[1] is not None):
            return [self._checked(name, line)]
        # a web server has no listing
        if scheme in ("http", "https"):
            if "?" in name[: magic.start()]:  # the star is part of the query
                return [self._checked(name, line)]
            place = line or short(name)
            raise SourceError(f"{place}: a web server cannot be listed; write a range as {{00000..00331}}")
        return self._glob(name, magic.start(), line)

    def _checked(self, name: str, line: str) -> tuple[str, bool]:
        """The normal form of a name under the roots, and whether it exists.

        Whether a remote shard exists is told by its job, which names the shard: then it would quote any line of a list.
        """
        uri, status = self._allowed.find(name, line, keep_link=True)
        if line and "://" in uri and not (name.endswith("/") or kind_by_name(name)):
            endings = ", ".join(f".{extension}" for extension in sorted(EXTENSIONS))
            raise SourceError(f"{line}: a remote shard that a list names must end in / or one of {endings}")
        return uri, status is not None or "://" in uri

    def _glob(self, name: str, magic: int, line: str) -> Iterator[tuple[str, bool]]:
        """The files under the roots that a glob matches. magic: index of the first special character in `name`."""
        # the folder before the first special character must lie under the roots; only the rest is a pattern
        place, cut = line or short(name), name.rfind("/", 0, magic) + 1
        top = self._allowed.check(name[:cut] or ".", line)
        try:
            found = Listing(place, self._allowed, self._effort).find(top, name[cut:])
        except FileNotFoundError:
            found = []
        except SourceError:
            raise
        except Exception as error:  # each storage library has its own exceptions
            raise _unreadable(place, "listed", error) from error
        if not found:
            raise ShardMissing(f"{place} matches nothing", [place])
        return ((uri, True) for uri in found)


def _unreadable(place: str, done: str, error: Exception) -> SourceError:
    # not the text of an error of the operating system: it ends with the path, which may be a line of a list
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return SourceError(f"{place} cannot be {done}: {type(error).__name__}: {' '.join(text.split())[:200]}")
