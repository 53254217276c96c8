"""Which files with the images of a source are not there, looked for before a training without reading them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from strata.data.prefetch import prefetch_map
from strata.egress import EgressRules
from strata.errors import plain_line
from strata.store import as_os_error, file_system, is_transient, reason_of

MOST_ASKED = 1000  # images of web servers that are asked for: a web server lists no folders
MOST_SILENT = 4  # requests that a server may leave without an answer before it is asked no more
_THREADS = 16  # concurrent requests


class NeededFile(NamedTuple):
    """A file with an image. uri: as samples name it; place: where it lies now; key: of the first sample with it."""

    uri: str
    place: str
    key: str


class Missing(NamedTuple):
    """A line for each file that is missing, has changed or cannot be reached, and how many were not looked for."""

    lines: list[str]
    not_asked: int = 0


def missing_files(files: Iterable[NeededFile], rules: EgressRules | None = None) -> Missing:
    """Look for files: in a listing of their folder, or by a request for each if they lie on web servers.

    rules: which web addresses may be read; None: all.
    """
    on_web: list[NeededFile] = []
    folders: dict[str, list[NeededFile]] = defaultdict(list)
    for file in files:
        if file.place.startswith(("http://", "https://")):
            on_web.append(file)
        else:
            folders[file.place.rpartition("/")[0]].append(file)
    # one listing per folder is much faster than a request per image
    lines = [line for folder, inside in folders.items() for line in _in_folder(folder, inside)]
    found = _asked(on_web, rules)
    return Missing(lines + found.lines, found.not_asked)


def _in_folder(folder: str, files: Sequence[NeededFile]) -> list[str]:
    try:
        there = _names(folder)
    except Exception as error:  # each storage has its own exceptions
        many = f"; {len(files):,} images are in it" if len(files) > 1 else ""
        return [f"{files[0].uri} (sample {files[0].key}): its folder cannot be listed: {plain_line(error)}{many}"]
    missing = (file for file in files if file.place.rpartition("/")[2] not in there)
    return [f"no such image: {file.uri} (sample {file.key})" for file in missing]


@as_os_error
def _names(folder: str) -> set[str]:
    """The names of a folder's entries; empty if the folder does not exist."""
    filesystem, path = file_system(folder)
    try:
        return {name.rstrip("/").rpartition("/")[2] for name in filesystem.ls(path, detail=False)}
    except (FileNotFoundError, NotADirectoryError):
        return set()


def _asked(files: Sequence[NeededFile], rules: EgressRules | None) -> Missing:
    """Ask web servers for files, at most MOST_ASKED of them, evenly spread; no further ones of a silent server."""
    chosen = files[:: -(-len(files) // MOST_ASKED) or 1]
    silent: Counter[str] = Counter()
    answers = list(prefetch_map(lambda file: _answer(file, silent, rules), chosen, _THREADS))
    told = ((file, reason) for file, reason in zip(chosen, answers, strict=True) if reason)
    lines = [f"{file.uri} (sample {file.key}): {reason}" for file, reason in told]
    return Missing(lines, len(files) - sum(reason is not None for reason in answers))


def _answer(file: NeededFile, silent: Counter[str], rules: EgressRules | None) -> str | None:
    """Why a web server does not give a file, "" if it does, None if it is not asked, because it has been silent."""
    server = file.place.split("/", 3)[2]
    if silent[server] >= MOST_SILENT:
        return None
    try:
        filesystem, path = file_system(file.place, rules)
        filesystem.info(path)
    except Exception as error:  # of the libraries, and of a URL that is none
        silent[server] += is_transient(error)
        return reason_of(error)
    silent[server] = 0
    return ""
