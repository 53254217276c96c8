"""The folders and buckets that may be read, and the one normal form of a path or URI."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from strata.errors import InvalidInput

MAX_URI = 4096  # characters of a path or URI; Linux has the same limit for paths
_FOLDERS = 1000  # whose normal forms are kept
_CONTROL = re.compile(r"[\x00-\x1f]")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


class SourceError(InvalidInput, ValueError):
    """The input is not a valid source. The message is one line with the reason, and quotes no content of a file."""


class OutsideRoots(SourceError):
    """A URI outside the allowed roots."""


class ShardMissing(SourceError):
    """Shards that do not exist. places: how the caller named each of them, or which line of a list does."""

    def __init__(self, message: str, places: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.places = list(places)


def short(text: str) -> str:
    """Shorten a text that an error message quotes."""
    return text if len(text) <= 120 else text[:100] + "…"


def encodable(text: str) -> str:
    """The text with every byte of a file's name that is not valid UTF-8 replaced by a question mark."""
    return text.encode("utf-8", "replace").decode()


def scheme_of(uri: str) -> str:
    """The scheme of a URI in lower case, empty for a path."""
    scheme = _SCHEME.match(uri)
    return scheme[1].lower() if scheme else ""


class Roots:
    """The folders and buckets that may be read. The constructor raises SourceError if one is not a valid URI."""

    def __init__(self, roots: Sequence[str]) -> None:
        self._tops = tuple(normalise(root) for root in roots)
        # with a slash at the end, so that /data does not allow /database
        self._folders = tuple(top.rstrip("/") + "/" for top in self._tops)
        self._real: dict[str, str] = {}  # the normal forms of folders that were looked up

    def hold(self, normal: str) -> bool:
        """Whether a normalised URI lies under one of the roots."""
        return normal in self._tops or normal.startswith(self._folders)

    def check(self, uri: str, named: str = "") -> str:
        """The normalised URI: an absolute path without links or `..`, or scheme://host/path.

        named: what messages call it, if they must not quote it. Raises OutsideRoots if it lies under none of the roots,
        SourceError if it is not a valid URI.
        """
        return self._inside(normalise(uri, named), named or short(uri))

    def find(self, uri: str, named: str = "", keep_link: bool = False) -> tuple[str, os.stat_result | None]:
        """As `check`, and what a local path leads to, None if it does not exist or if the URI is a remote one.

        keep_link: the path of a link to a file stays that of the link; both must lie under the roots. The folders of
        local paths are looked up once, since thousands of them often share one: resolving a path takes a system call
        for each of its folders.
        """
        place, (folder, _, name) = _checked(uri, named), uri.rpartition("/")
        # the last segment must be a name
        if scheme_of(uri) or not folder or name in ("", ".", ".."):
            normal = self.check(uri, named)
            return normal, None if "://" in normal else _status(normal)
        if folder not in self._real:
            self._real = self._real if len(self._real) < _FOLDERS else {}
            self._real[folder] = normalise(folder, named)
        path = f"{self._real[folder].rstrip('/')}/{name}"
        # the target of a symbolic link must also lie under the roots
        status = _status(path, follow=False)
        if status is not None and stat.S_ISLNK(status.st_mode):
            target = self._inside(normalise(path, named), place)
            status = _status(target)
            path = path if keep_link and status is not None and stat.S_ISREG(status.st_mode) else target
        return self._inside(path, place), status

    def _inside(self, normal: str, place: str) -> str:
        if not self.hold(normal):
            raise OutsideRoots(f"{place} lies outside the folders that this service may read (STRATA_SHARD_ROOTS)")
        return normal


def _status(path: str, follow: bool = True) -> os.stat_result | None:
    try:
        return Path(path).stat(follow_symlinks=follow)
    except (OSError, ValueError):
        return None


def _checked(uri: str, named: str) -> str:
    """What messages call a URI. Raises SourceError if it is none."""
    place = named or short(uri if uri.isprintable() else ascii(uri))
    if len(uri) > MAX_URI:
        raise SourceError(f"{place}: longer than {MAX_URI:,} characters")
    if not uri or "::" in uri or _CONTROL.search(uri):
        # fsspec reads "a::b" as one file system inside another, which would evade the check of the roots
        raise SourceError(f"{place} is not a path or URI of a shard: it is empty, or has a control character or ::")
    return place


def normalise(uri: str, named: str = "") -> str:
    """Convert a URI to its one normal form. Local paths are made absolute and their links resolved.

    named: what messages call it, if they must not quote it. Raises SourceError.
    """
    place = _checked(uri, named)
    scheme = scheme_of(uri)
    if scheme == "file":
        path = unquote(uri[len("file://") :])
        if not path.startswith("/"):
            raise SourceError(f"{place}: a file:// URI needs an absolute path, as in file:///folder/shard.tar")
        return normalise(path, named)
    if scheme:
        return _normal_remote(uri, place)
    try:
        # POSIX gives two slashes at the beginning a meaning of their own, which Linux does not
        return str(Path(f"/{uri.lstrip('/')}" if uri.startswith("/") else uri).resolve())
    except (OSError, RuntimeError, ValueError) as error:
        # the text of an OSError ends with the path
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it cannot be resolved"
        raise SourceError(f"{place}: {reason}") from None


def _normal_remote(uri: str, place: str) -> str:
    try:
        parts = urlsplit(uri)
    except ValueError:
        raise SourceError(f"{place}: its host is not valid") from None
    if not parts.netloc or "@" in parts.netloc:
        raise SourceError(f"{place}: a URI needs a host or bucket, and no user name in it")
    # look for .. in every decoding of the path: the server may decode it more than once
    path = parts.path
    while (decoded := unquote(path)) != path:  # %2e%2e, and %252e%252e
        path = decoded
    if ".." in re.split(r"[/\\]", path):
        raise SourceError(f"{place}: .. is not allowed in a URI")
    # only in web addresses the host is case-insensitive and a query is allowed
    web = parts.scheme in ("http", "https")
    host = parts.netloc.lower() if web else parts.netloc
    kept = parts.path.removeprefix("/")
    # in a bucket "a//b" and "a/./b" are names of their own
    if web:
        kept = "/".join(segment for segment in kept.split("/") if segment not in ("", "."))
    query = f"?{parts.query}" if web and parts.query else ""
    if not web and (parts.query or parts.fragment):
        raise SourceError(f"{place}: ? and # are not allowed in the name of an object")
    return f"{parts.scheme}://{host}/{kept}".rstrip("/") + query
