"""How values of settings are read: hosts, lists, folders, buckets, and roots that were moved.

Each function raises ValueError with what would be right.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

from strata.egress import RefusedAddress, host_pattern

BUCKETS = ("s3", "s3a", "gs", "gcs")
# a colon between two entries of a list, but none of those within a URI such as http://host:80/folder
_BETWEEN = re.compile(r":(?!//)(?=[/~$.]|[A-Za-z][A-Za-z0-9+.-]*://)")


def host_of(text: str) -> str:
    """As `host_pattern`. Raises ValueError with what would be right."""
    try:
        return host_pattern(text)
    except RefusedAddress:
        raise ValueError(f"{text[:100]!r} is not a host's name; right are example.org and *.example.org") from None


def moves_of(texts: Iterable[str]) -> dict[str, str]:
    """OLD=NEW texts as a mapping; an old path is made absolute. Raises ValueError for a text that is not OLD=NEW."""
    moves: dict[str, str] = {}
    for text in texts:
        old, equals, new = (part.strip() for part in text.partition("="))
        if not (old and equals and new):
            raise ValueError(f"{text.strip()[:100]!r} is not OLD=NEW, such as /data=/mnt/data")
        moves[old if "://" in old else str(Path(old).absolute())] = location(new, (*BUCKETS, "http", "https"))
    return moves


def object_of(text: str) -> object:
    """A JSON value that begins as an object does."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError('the value is not a JSON object such as {"/data": "/mnt/data"}') from None


def list_of(text: str) -> list[str]:
    """The entries of a JSON list, of a list separated by commas, or of one separated by colons as PATH is."""
    if text.startswith("["):
        try:
            entries = json.loads(text)
        except (ValueError, RecursionError):
            entries = None
        if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
            raise ValueError('the value is not a JSON list of texts such as ["/data", "s3://bucket"]')
        return entries
    separator = "," if "," in text else _BETWEEN if "://" in text else ":"
    parts = separator.split(text) if isinstance(separator, re.Pattern) else text.split(separator)
    return [part.strip() for part in parts if part.strip()]


def location(text: str, schemes: tuple[str, ...]) -> str:
    """A folder's path, or the URI of a bucket or folder. Raises ValueError if it can be neither."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        return local_path(text)
    # plug-ins of fsspec serve further schemes; HTTP can only be read
    usable = scheme in schemes or (scheme in _file_systems() and scheme not in ("http", "https"))
    if not usable:
        found = difflib.get_close_matches(scheme, schemes, n=1)
        hint = f"did you mean {found[0]}://?" if found else f"right are a folder's path and {_prefixes(schemes)}"
        raise ValueError(f"{scheme[:40]}:// cannot be used here; {hint}")
    if "@" in rest.partition("/")[0]:
        raise ValueError(
            f"{scheme}:// with a user or key; credentials are given by variables such as AWS_ACCESS_KEY_ID"
        )
    if scheme in BUCKETS and not rest.partition("/")[0]:
        raise ValueError(f"the bucket is missing: {scheme}://BUCKET/FOLDER")
    return text


def _prefixes(schemes: tuple[str, ...]) -> str:
    return ", ".join(f"{scheme}://" for scheme in schemes)


def _file_systems() -> list[str]:
    """The schemes that fsspec knows, those of its plug-ins included."""
    import fsspec  # needed by no process whose store is a folder and which is no worker

    return list(fsspec.available_protocols())


def local_path(text: str) -> str:
    """A path with `~` and `$NAME` replaced. Raises ValueError if one of them is unknown."""
    try:
        path = os.path.expandvars(Path(text).expanduser())
    except RuntimeError:
        raise ValueError(f"the home folder of {text.partition('/')[0]} is not known") from None
    if unset := re.search(r"\$\{?[A-Za-z_]\w*\}?", path):
        raise ValueError(f"the variable {unset[0]} in the path is not set")
    return path


def local_folder(text: str) -> str:
    """As `local_path`. Raises ValueError if there is a file instead of a folder."""
    path = local_path(text)
    if Path(path).exists() and not Path(path).is_dir():
        raise ValueError("a file is there, but a folder is needed")
    return path
