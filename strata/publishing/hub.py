"""Exports on the Hugging Face Hub, as data sets: one commit has all of an export, or nothing.

The contents of large files are sent before the commit, by `preupload_lfs_files`. The hub knows contents by their
hashes, so that a push that was ended goes on with those that it lacks, and nobody sees them before the commit.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from strata.addresses import without_secrets
from strata.errors import Conflict, InvalidInput, NotFound, RequestRefused, ServiceUnavailable
from strata.files import is_of_writing
from strata.publishing.checksums import SUMS, parse_sums
from strata.publishing.contents import Contents
from strata.publishing.storage import Advance, Planned, Pushed

log = logging.getLogger(__name__)

HUB = "https://huggingface.co"
PREFIX = "hub:"
MOST_FILES = 25_000  # of a commit (huggingface_hub 2.4, `create_commit`)
# the limits of a repository and the free storage of an account (huggingface/hub-docs, docs/hub/storage-limits.md)
MOST_IN_FOLDER = 10_000
LARGEST_FILE, LARGE_FILE = 500 * 10**9, 200 * 10**9
FREE_PRIVATE = 100 * 10**9
_NAME = re.compile(r"([\w.-]+/[\w.-]+)(?:@(\S+))?", re.ASCII)
_SIGNED = re.compile(r"(https?://[^\s?'\"]+)\?[^\s'\"]*")
_XET = "/xet-write-token/"  # in the address of what a hub without Xet has not (huggingface_hub 2.4)
_RETRYING = "huggingface_hub.utils._http"  # the logger that tells of attempts which are repeated (huggingface_hub 2.4)
_SECONDS = 5.0  # in which a line is told once: several files are sent at a time
_CHANGED = 412  # the status of a commit whose parent is not the newest any more


class HubDataset:
    """A data set of the hub that HF_ENDPOINT names, with the token of HF_TOKEN or of `hf auth login`.

    The constructor raises InvalidInput for another form than OWNER/NAME or OWNER/NAME@REVISION, and if huggingface_hub
    is not installed. The methods raise NotFound, RequestRefused, Conflict and ServiceUnavailable.
    """

    def __init__(self, name: str, public: bool = False) -> None:
        found = _NAME.fullmatch(name)
        if found is None:
            raise InvalidInput(f"{PREFIX}{name[:120]} is not {PREFIX}OWNER/NAME, or {PREFIX}OWNER/NAME@REVISION")
        try:
            from huggingface_hub import HfApi
            from huggingface_hub.utils import (  # type: ignore[attr-defined]
                HFValidationError,
                disable_progress_bars,
                validate_repo_id,
            )
        except ImportError:
            raise InvalidInput("the hub needs huggingface_hub: pip install 'strata[hub]'") from None
        try:
            validate_repo_id(found[1])
        except HFValidationError as error:
            raise InvalidInput(f"{PREFIX}{name[:120]} cannot be a name on the hub: {_line(error)}") from None
        disable_progress_bars()
        self.id, self._asked, self._public = found[1], found[2], public
        self.endpoint = (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")
        self.name = f"{PREFIX}{name}"
        self._api: Any = HfApi(endpoint=self.endpoint)

    @functools.cached_property
    def _commit(self) -> str:
        with self._one_line_errors():
            return str(self._api.dataset_info(self.id, revision=self._asked).sha)

    def revision(self) -> str:
        """The commit that is read."""
        return f"{self.name.partition('@')[0]}@{self._commit}"

    def sums(self) -> str | None:
        """The SHA256SUMS of the commit; None if it has none."""
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

        url = hf_hub_url(self.id, SUMS, repo_type="dataset", revision=self._commit, endpoint=self.endpoint)
        with self._one_line_errors():
            response = get_session().get(url, headers=self._headers(), follow_redirects=True)
            if response.status_code == 404:
                return None
            response.raise_for_status()
            return response.content.decode("utf-8", "replace")

    def fetch(self, name: str, target: Path) -> None:
        """Read a file of the commit to a local path; what is there already is its beginning."""
        from huggingface_hub import hf_hub_url
        from huggingface_hub.file_download import http_get

        url = hf_hub_url(self.id, name, repo_type="dataset", revision=self._commit, endpoint=self.endpoint)
        with self._one_line_errors(), target.open("ab") as sink:
            http_get(url, sink, resume_size=sink.tell(), headers=self._headers(), displayed_filename=name)

    def check(self, contents: Contents) -> list[str]:
        """Compare an export with the hub's limits, without asking the hub; returns what the user should know, by line.

        Raises InvalidInput for what the hub would refuse: too many files in a commit or a folder, or a file too large.
        """
        if self._asked is not None:
            raise InvalidInput(f"{self.name}: a push names no revision")
        inside = "export as webdataset, parquet or messages, which have the images inside of files"
        if len(contents.sums) >= MOST_FILES:  # SHA256SUMS is a file too
            files = f"{len(contents.sums):,} files are more than the hub takes in a commit ({MOST_FILES:,})"
            raise InvalidInput(f"{files}: {inside}")
        folder, number = Counter(name.rpartition("/")[0] for name in contents.sums).most_common(1)[0]
        if number > MOST_IN_FOLDER:
            files = f"{folder or 'the export'} has {number:,} files, more than the hub takes in a folder"
            raise InvalidInput(f"{files} ({MOST_IN_FOLDER:,}): {inside}")
        largest, size = max(contents.sizes.items(), key=lambda entry: entry[1])
        if size > LARGEST_FILE:
            raise InvalidInput(f"{largest} has {size / 1e9:,.0f} GB, and the hub takes {LARGEST_FILE / 1e9:,.0f} GB")
        return [*self._advice(largest, size, contents.bytes)]

    def _advice(self, largest: str, size: int, total: int) -> Iterator[str]:
        if size > LARGE_FILE:
            yield f"{largest} has {size / 1e9:,.0f} GB; the hub asks for files of at most {LARGE_FILE / 1e9:,.0f} GB"
        if total > FREE_PRIVATE and not self._public:
            held = f"a free account holds {FREE_PRIVATE / 1e9:,.0f} GB of private data"
            yield f'the export has {total / 1e9:,.0f} GB; {held}, and others more: see the hub\'s "Storage limits"'

    def plan(self, contents: Contents, tell: Callable[[str], object] = log.warning) -> Planned:
        """What a push would do, found out by reading alone. tell: as of `push`, which raises the same errors.

        Whether the token has the right to write is not known before something is written.
        """
        self.check(contents)
        with _told_retries(tell):
            try:
                self._check_public()
            except NotFound:
                made = "public" if self._public else "private"
                tell(f"{self.name} does not exist, or HF_TOKEN may not read it: a push would make it, {made}")
                return Planned([*contents.every_size], [])
            there = self.sums()
        return Planned([], []) if there == contents.text else Planned([*contents.every_size], _stale(contents, there))

    def push(
        self,
        contents: Contents,
        advance: Advance = lambda size: None,
        tell: Callable[[str], object] = log.warning,
    ) -> Pushed:
        """Send an export as one commit on the branch `main`. advance: is called with the bytes of each file sent.

        tell: is called with a line for each attempt that is repeated, since the hub did not take it.

        The data set is made if there is none, private unless it shall be public. Files of an earlier export that this
        one does not have are removed; others stay. Raises what `check` raises, and InvalidInput for a data set that is
        public and shall be private, or is private and shall be public.
        """
        self.check(contents)
        with _told_retries(tell):
            return self._push(contents, advance)

    def _push(self, contents: Contents, advance: Advance) -> Pushed:
        self._make()
        there = self.sums()
        place = f"{self.endpoint}/datasets/{self.id}"
        if there == contents.text:
            advance(contents.bytes)
            return Pushed(place, len(contents.every_size), 0, 0, 0)
        stale = _stale(contents, there)
        with self._one_line_errors():
            sent = self._send(contents, advance)
            self._end(contents, sent, stale)
        sizes = contents.every_size
        return Pushed(place, len(sizes), len(sizes), sum(sizes.values()), len(stale))

    def _make(self) -> None:
        """Make the data set if there is none. Raises InvalidInput if one is public and shall not be, or is not."""
        with self._one_line_errors():
            self._api.create_repo(self.id, repo_type="dataset", private=not self._public, exist_ok=True)
        self._check_public()

    def _check_public(self) -> None:
        """Raise InvalidInput for a data set that is public and shall not be, or is not, and NotFound for none."""
        with self._one_line_errors():
            info = self._api.dataset_info(self.id)
        if not info.private and not self._public:
            raise InvalidInput(f"{self.name} is public: add --public, or make it private on the hub")
        if info.private and self._public:
            raise InvalidInput(f"{self.name} is private: leave out --public, or make it public on the hub")

    def _send(self, contents: Contents, advance: Advance) -> list[Any]:
        """Send the contents of large files; returns the operations of the commit."""
        from huggingface_hub import CommitOperationAdd

        operations: list[Any] = []
        for batch in contents.batches(list(contents.sums)):
            added = [CommitOperationAdd(name, str(contents.folder / name)) for name in batch]
            for operation in added:
                operation.upload_info.sha256 = bytes.fromhex(contents.sums[operation.path_in_repo])
            self._api.preupload_lfs_files(self.id, added, repo_type="dataset", free_memory=False)
            operations += added
            advance(sum(contents.sizes[name] for name in batch))
        return operations

    def _end(self, contents: Contents, operations: list[Any], stale: list[str]) -> None:
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        operations += [CommitOperationAdd(SUMS, contents.text.encode())]
        operations += [CommitOperationDelete(name, is_folder=False) for name in stale]
        message = f"Export {contents.digest[:12]} of Strata"
        parent = self._commit
        self._api.create_commit(
            self.id, operations, commit_message=message, repo_type="dataset", revision="main", parent_commit=parent
        )

    def _headers(self) -> dict[str, str]:
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        return dict(build_hf_headers())

    @contextmanager
    def _one_line_errors(self) -> Iterator[None]:
        """Turn the hub's errors, and those of the connection, into ours, with one line and without the token."""
        import httpx2
        from huggingface_hub import errors

        try:
            yield
        except (RequestRefused, ServiceUnavailable, InvalidInput):
            raise
        except Exception as error:
            # an upload's error is wrapped in a RuntimeError
            cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
            if _XET in str(cause):
                told = f"{self.endpoint} has no Xet, by which huggingface_hub sends files: set HF_HUB_DISABLE_XET=1"
                raise InvalidInput(f"{told} ({_line(cause)})") from error
            if is_of_writing(cause):
                raise cause from None  # the disk here is full
            if isinstance(cause, errors.OfflineModeIsEnabled):
                raise InvalidInput("HF_HUB_OFFLINE is set") from error
            if isinstance(cause, errors.HfHubHTTPError | httpx2.HTTPStatusError):
                raise self._refusal(cause) from error
            if isinstance(cause, httpx2.HTTPError | OSError):
                raise ServiceUnavailable(f"{self.endpoint}: {_line(cause)}") from error
            if isinstance(cause, json.JSONDecodeError):
                raise ServiceUnavailable(f"{self.endpoint} answers something else than JSON: is it a hub?") from error
            if isinstance(cause, ValueError):
                raise RequestRefused(f"{self.name}: {_line(cause)}") from error
            raise

    def _refusal(self, error: Any) -> Exception:
        from huggingface_hub import errors

        status = error.response.status_code
        if isinstance(error, errors.GatedRepoError):
            return RequestRefused(f"{self.name} is gated: accept its terms on the hub, and set HF_TOKEN")
        if isinstance(error, errors.RevisionNotFoundError):
            return NotFound(f"{self.name}: there is no such revision")
        if isinstance(error, errors.RepositoryNotFoundError):
            return NotFound(f"{self.name} does not exist, or is private: set HF_TOKEN")
        if status in (401, 403):
            return RequestRefused(f"{self.name}: the hub refuses ({status}): HF_TOKEN needs the right to write")
        if status == _CHANGED:
            return Conflict(f"{self.name} has changed since the push began: push again")
        if status >= 500 or status == 429:
            return ServiceUnavailable(f"{self.endpoint} answers {status}: {_line(error)}")
        return RequestRefused(f"{self.name}: {_line(error)}")


class _Retries(logging.Filter):
    """Tells of repeated attempts in place of huggingface_hub's log, whose lines have addresses with signatures."""

    def __init__(self, tell: Callable[[str], object]) -> None:
        super().__init__()
        self._tell, self._lock = tell, threading.Lock()
        self._reasons: dict[int, str] = {}  # by thread: what its last attempt met
        self._told: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell of a line, or keep it as the reason for the next one; no line is logged."""
        text = record.getMessage()
        reason, _, request = text.partition(" thrown while requesting ")
        with self._lock:
            if request:
                place = without_secrets(_SIGNED.sub(r"\1", request))
                self._reasons[threading.get_ident()] = f"{reason} to {place}"
                return False
            # several threads meet the same: the address of one of them is enough
            if time.monotonic() - self._told.get(text, -_SECONDS) >= _SECONDS:
                self._told[text] = time.monotonic()
                self._tell(f"{self._reasons.get(threading.get_ident(), 'the hub')}: {text[:1].lower()}{text[1:]}")
        return False


@contextmanager
def _told_retries(tell: Callable[[str], object]) -> Iterator[None]:
    """Within the block, attempts that huggingface_hub repeats are told."""
    logger, retries = logging.getLogger(_RETRYING), _Retries(tell)
    logger.addFilter(retries)
    try:
        yield
    finally:
        logger.removeFilter(retries)


def _stale(contents: Contents, there: str | None) -> list[str]:
    """The files of an earlier export, of which the checksums are there, that this one does not have."""
    return sorted(parse_sums(there or "").keys() - contents.sums.keys())


def _line(error: BaseException) -> str:
    text = getattr(error, "server_message", None) or str(error)
    with suppress(AttributeError):
        text = text.replace(os.environ["HF_TOKEN"], "…") if os.environ.get("HF_TOKEN") else text
    # the addresses to which contents are sent have a signature
    return without_secrets(_SIGNED.sub(r"\1", " ".join(text.split())))[:300] or type(error).__name__
