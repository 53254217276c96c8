"""What a request names: ranges, globs and @lists, as the URIs of shards under the allowed roots."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import unquote

from strata.storage import file_system
from strata.uris import MAX_SHARDS, Roots, ShardMissing, SourceError, expand, normalise, short

MAX_LIST = 16 * 2**20  # bytes of an @list
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def find_shards(patterns: Sequence[str], roots: Sequence[str]) -> list[str]:
    """The normalised URIs of all shards that the patterns name, in order, each once; a glob's are sorted.

    A pattern may hold ranges (`strata.uris.expand`) and globs: `*`, `?` and `[ab]` in local paths, `*` in buckets.
    `@/folder/list.txt` names a text file of patterns, one a line; empty lines and those that begin with # are passed
    over, and paths are relative to the file's folder. Nothing outside the roots is listed or read.

    Raises OutsideRoots, ShardMissing for a glob that matches nothing and for a list that is not there, and
    SourceError for what cannot be understood or listed.
    """
    allowed = Roots(roots)
    found: dict[str, None] = {}
    for name in expand([line for pattern in patterns for line in _listed(pattern, allowed)]):
        found.update(dict.fromkeys(_matches(name, allowed)))
        if len(found) > MAX_SHARDS:
            raise SourceError(f"{short(name)}: more than {MAX_SHARDS:,} shards in one request")
    return list(found)


def _listed(pattern: str, allowed: Roots) -> Iterator[str]:
    """The pattern itself, or what the list holds that it names."""
    if not pattern.startswith("@"):
        yield pattern
        return
    uri = allowed.check(pattern[1:])
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
            raise SourceError(f"@{short(uri)} is no file")
        data: bytes = filesystem.cat_file(path, start=0, end=MAX_LIST + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise ShardMissing(f"no such list: {short(uri)}") from None
    except SourceError:
        raise
    except Exception as error:  # each storage has its own
        raise _unreadable(uri, "read", error) from error
    if len(data) > MAX_LIST:
        raise SourceError(f"@{short(uri)}: a list of more than {MAX_LIST:,} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise SourceError(f"@{short(uri)} is no text in UTF-8") from None


def _matches(name: str, allowed: Roots) -> list[str]:
    """The name itself if it is no glob, else what it matches under the roots."""
    scheme = _SCHEME.match(name)
    local = scheme is None or scheme[1].lower() == "file"
    if scheme and local:
        name = unquote(name[scheme.end() :]) if name.startswith("/", scheme.end()) else name
    magic = re.search(r"[*?[]" if local else r"\*", name)
    if magic is None or (local and os.path.lexists(allowed.check(name))):  # a file may be named a[1].tar
        return [allowed.check(name)]
    if scheme and scheme[1].lower() in ("http", "https"):
        if "?" in name[: magic.start()]:  # the star is the query's
            return [allowed.check(name)]
        raise SourceError(f"{short(name)}: a web server cannot be listed; write a range as {{00000..00331}}")
    return _glob(name, magic.start(), allowed)


def _glob(name: str, magic: int, allowed: Roots) -> list[str]:
    """magic: where in the name the first special character stands."""
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
    except Exception as error:  # each storage has its own
        raise _unreadable(name, "listed", error) from error
    normal = (normalise(top + place[len(path.rstrip("/")) :]) for place in sorted(found))
    inside = [uri for uri in normal if allowed.hold(uri)]  # a link may lead out
    if not inside:
        raise ShardMissing(f"{short(name)} matches nothing")
    return inside


def _unreadable(uri: str, done: str, error: Exception) -> SourceError:
    line = " ".join(str(error).split())[:200]
    return SourceError(f"{short(uri)} cannot be {done}: {type(error).__name__}: {line}")
