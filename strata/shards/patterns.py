"""Expand the shard patterns of a request (ranges, globs and @lists) to URIs under the allowed roots."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from strata.errors import InvalidInput
from strata.store import file_system

MAX_SHARDS = 100_000
_MAX_PATTERN = 4096  # characters
_RANGE = re.compile(r"(\d{1,15})\.\.(\d{1,15})")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


class SourceError(InvalidInput, ValueError):
    """The input is not a valid source. The message is one line with the reason."""


class OutsideRoots(SourceError):
    """A URI outside the allowed roots."""


class ShardMissing(SourceError):
    """A shard that does not exist."""


def expand(patterns: Sequence[str]) -> list[str]:
    """Expand braces: `{00000..00331}` is a range, `{a,b}` a list. Returns all names in order, each once.

    Zero padding is kept; several braces in a pattern give their product. Raises SourceError for braces that are
    neither a range nor a list (a typo would otherwise become the name of a missing file), and for more than MAX_SHARDS
    names.
    """
    names: dict[str, None] = {}
    for pattern in patterns:
        # count the product before it is built: a short pattern can have billions of names
        pieces = _pieces(pattern)
        if len(names) + math.prod(len(piece) for piece in pieces) > MAX_SHARDS:
            raise SourceError(f"{short(pattern)}: more than {MAX_SHARDS:,} shards in one request")
        grown = [""]
        for piece in pieces:
            grown = [name + part for name in grown for part in piece]
        names.update(dict.fromkeys(grown))
    return list(names)


def _pieces(pattern: str) -> list[Sequence[str]]:
    """Split a pattern into pieces, each a list of alternative texts; its names are the product of the pieces."""
    if not pattern.strip():
        raise SourceError("the name of a shard is empty")
    if len(pattern) > _MAX_PATTERN:
        raise SourceError(f"{short(pattern)}: longer than {_MAX_PATTERN} characters")
    pieces: list[Sequence[str]] = []
    for literal, brace in re.findall(r"([^{}]+)|\{([^{}]*)\}|.", pattern, re.DOTALL):
        if literal:
            pieces.append([literal])
        elif brace:
            pieces.append(_alternatives(brace, pattern))
        else:
            raise SourceError(f"{short(pattern)}: braces that are empty, nested or not closed")
    return pieces


def _alternatives(brace: str, pattern: str) -> list[str]:
    match = _RANGE.fullmatch(brace)
    if match:
        low, high = match.groups()
        first, last = int(low), int(high)
        if last < first:
            raise SourceError(f"{short(pattern)}: the range {{{brace}}} runs backwards")
        if last - first >= MAX_SHARDS:
            raise SourceError(f"{short(pattern)}: the range {{{brace}}} is longer than {MAX_SHARDS:,}")
        # a leading zero in either bound sets the width of all numbers
        padded = (len(low) > 1 and low[0] == "0") or (len(high) > 1 and high[0] == "0")
        width = max(len(low), len(high)) if padded else 0
        return [f"{i:0{width}d}" for i in range(first, last + 1)]
    # not a range: a list of at least two texts
    parts = brace.split(",")
    if len(parts) < 2 or not all(parts) or ".." in brace:
        hint = "write a range as {00000..00331}, a list as {a,b}"
        raise SourceError(f"{short(pattern)}: {{{short(brace)}}} is neither a range nor a list; {hint}")
    return parts


def short(text: str) -> str:
    """Shorten a text that an error message quotes."""
    return text if len(text) <= 120 else text[:100] + "…"


def encodable(text: str) -> str:
    """The text with every byte of a file's name that is not valid UTF-8 replaced by a question mark."""
    return text.encode("utf-8", "replace").decode()


class Roots:
    """The folders and buckets that may be read. The constructor raises SourceError if one is not a valid URI."""

    def __init__(self, roots: Sequence[str]) -> None:
        self._tops = tuple(normalise(root) for root in roots)
        # with a slash at the end, so that /data does not allow /database
        self._folders = tuple(top.rstrip("/") + "/" for top in self._tops)

    def hold(self, normal: str) -> bool:
        """Whether a normalised URI lies under one of the roots."""
        return normal in self._tops or normal.startswith(self._folders)

    def check(self, uri: str) -> str:
        """The normalised URI: an absolute path without links or `..`, or scheme://host/path.

        Raises OutsideRoots if it lies under none of the roots, SourceError if it is not a valid URI.
        """
        normal = normalise(uri)
        if not self.hold(normal):
            raise OutsideRoots(f"{short(uri)} lies outside the folders that this service may read")
        return normal


def check_roots(uri: str, roots: Sequence[str]) -> str:
    """Call `Roots.check` for one URI."""
    return Roots(roots).check(uri)


def normalise(uri: str) -> str:
    """Convert a URI to its one normal form. Local paths are made absolute and their links resolved.

    Raises SourceError.
    """
    if not uri or "::" in uri or any(ord(character) < 32 for character in uri):
        # fsspec reads "a::b" as one file system inside another, which would evade the check of the roots
        raise SourceError(f"{short(ascii(uri))} is not a path or URI of a shard")
    if uri.lower().startswith("file://"):
        uri = unquote(uri[len("file://") :])
        if not uri.startswith("/"):
            raise SourceError("a file:// URI needs an absolute path: file:///folder/shard.tar")
        return normalise(uri)
    if not _SCHEME.match(uri):
        try:
            return str(Path(uri).resolve())
        except (OSError, RuntimeError, ValueError) as error:
            raise SourceError(f"{short(uri)}: {error}") from None
    return _normal_remote(uri)


def _normal_remote(uri: str) -> str:
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise SourceError(f"{short(uri)}: {error}") from None
    if not parts.netloc or "@" in parts.netloc:
        raise SourceError(f"{short(uri)}: a URI needs a host or bucket, and no user name in it")
    # look for .. in every decoding of the path: the server may decode it more than once
    path = parts.path
    while (decoded := unquote(path)) != path:  # %2e%2e, and %252e%252e
        path = decoded
    if ".." in re.split(r"[/\\]", path):
        raise SourceError(f"{short(uri)}: .. is not allowed in a URI")
    # only in web addresses the host is case-insensitive and a query is allowed
    web = parts.scheme in ("http", "https")
    host = parts.netloc.lower() if web else parts.netloc
    kept = "/".join(segment for segment in parts.path.split("/") if segment not in ("", "."))
    query = f"?{parts.query}" if web and parts.query else ""
    if not web and (parts.query or parts.fragment):
        raise SourceError(f"{short(uri)}: ? and # are not allowed in the name of an object")
    return f"{parts.scheme}://{host}/{kept}".rstrip("/") + query


MAX_LIST = 16 * 2**20  # bytes of an @list
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def find_shards(patterns: Sequence[str], roots: Sequence[str]) -> list[str]:
    """The normalised URIs of all shards that the patterns name, in order, each once; the matches of a glob are sorted.

    A pattern may contain ranges (`expand`) and globs: `*`, `?` and `[ab]` in local paths, `*` in buckets.
    `@/folder/list.txt` names a text file of patterns, one per line; empty lines and lines that begin with # are
    skipped, and paths are relative to the file's folder. Nothing outside the roots is listed or read.

    Raises OutsideRoots; ShardMissing for a glob without matches and for a missing list; and SourceError for a
    pattern that is not valid or cannot be listed.
    """
    allowed = Roots(roots)
    found: dict[str, None] = {}
    for name in expand([line for pattern in patterns for line in _listed(pattern, allowed)]):
        found.update(dict.fromkeys(_matches(name, allowed)))
        if len(found) > MAX_SHARDS:
            raise SourceError(f"{short(name)}: more than {MAX_SHARDS:,} shards in one request")
    return list(found)


def _listed(pattern: str, allowed: Roots) -> Iterator[str]:
    """Yield the pattern itself, or the patterns of the list that it names."""
    if not pattern.startswith("@"):
        yield pattern
        return
    uri = allowed.check(pattern[1:])
    # the paths of a list are relative to its folder, as in a list of images
    folder = uri.rpartition("/")[0]
    for line in _text(uri).splitlines():
        line = line.strip()
        if line.startswith("@"):
            raise SourceError(f"{short(pattern)}: a list cannot name another list, as {short(line)} does")
        if line and not line.startswith("#"):
            yield line if _SCHEME.match(line) or line.startswith("/") else f"{folder}/{line}"


def _text(uri: str) -> str:
    try:
        filesystem, path = file_system(uri)
        if filesystem.info(path)["type"] != "file":
            raise SourceError(f"@{short(uri)} is not a file")
        # one byte more than allowed shows that the list is too long
        data: bytes = filesystem.cat_file(path, start=0, end=MAX_LIST + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise ShardMissing(f"no such list: {short(uri)}") from None
    except SourceError:
        raise
    except Exception as error:  # each storage library has its own exceptions
        raise _unreadable(uri, "read", error) from error
    if len(data) > MAX_LIST:
        raise SourceError(f"@{short(uri)}: a list of more than {MAX_LIST:,} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise SourceError(f"@{short(uri)} is not text in UTF-8") from None


def _matches(name: str, allowed: Roots) -> list[str]:
    """The name itself if it is not a glob, else its matches under the roots."""
    # find the first special character; only local paths know ? and [
    scheme = _SCHEME.match(name)
    local = scheme is None or scheme[1].lower() == "file"
    if scheme and local:
        name = unquote(name[scheme.end() :]) if name.startswith("/", scheme.end()) else name
    magic = re.search(r"[*?[]" if local else r"\*", name)
    if magic is None or (local and os.path.lexists(allowed.check(name))):  # a file may be named a[1].tar
        return [allowed.check(name)]
    # a web server has no listing
    if scheme and scheme[1].lower() in ("http", "https"):
        if "?" in name[: magic.start()]:  # the star is part of the query
            return [allowed.check(name)]
        raise SourceError(f"{short(name)}: a web server cannot be listed; write a range as {{00000..00331}}")
    return _glob(name, magic.start(), allowed)


def _glob(name: str, magic: int, allowed: Roots) -> list[str]:
    """The files under the roots that a glob matches, sorted. magic: index of the first special character in `name`."""
    # the folder before the first special character must lie under the roots; only the rest is a pattern
    cut = name.rfind("/", 0, magic) + 1
    rest = name[cut:]
    if "**" in rest or ".." in rest.split("/"):
        raise SourceError(f"{short(name)}: ** and .. are not allowed in a glob")
    top = allowed.check(name[:cut] or ".").rstrip("/")
    try:
        filesystem, path = file_system(top or "/")
        found: list[Any] = filesystem.glob(f"{path.rstrip('/')}/{rest}")
    except FileNotFoundError:
        found = []
    except Exception as error:  # each storage library has its own exceptions
        raise _unreadable(name, "listed", error) from error
    normal = (normalise(top + match[len(path.rstrip("/")) :]) for match in sorted(found))
    inside = [uri for uri in normal if allowed.hold(uri)]  # a symbolic link may point outside the roots
    if bad := next((uri for uri in inside if encodable(uri) != uri), None):
        raise SourceError(f"{short(encodable(bad))}: the file's name is not valid UTF-8; rename the file")
    if not inside:
        raise ShardMissing(f"{short(name)} matches nothing")
    return inside


def _unreadable(uri: str, done: str, error: Exception) -> SourceError:
    line = " ".join(str(error).split())[:200]
    return SourceError(f"{short(uri)} cannot be {done}: {type(error).__name__}: {line}")
