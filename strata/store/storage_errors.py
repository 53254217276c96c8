"""Errors of storages: which pass by themselves, which tell of a full disk, and what a caller is told of them.

`as_os_error` raises those of all libraries as OSError.
"""

from __future__ import annotations

import errno
import functools
from collections.abc import Callable
from typing import Literal, ParamSpec, TypeVar

P = ParamSpec("P")
Result = TypeVar("Result")

# these raise their own exceptions: for missing credentials, an endpoint that is away, a broken connection
LIBRARIES = frozenset({"aiobotocore", "aiohttp", "botocore", "gcsfs", "google"})
# what the file or its name is the cause of; any other number tells of the disk, the network or the machine
_OF_THE_FILE = frozenset(
    {
        *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENXIO, errno.ENODEV),
        *(errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL),
    }
)
# no room on the disk, or for this user
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
# the same of a bucket: MinIO's two, Ceph's, Backblaze's, and WebDAV's status 507
_FULL_CODES = frozenset(
    {"XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "QuotaExceeded", "StorageCapExceeded", "507"}
)
# answers of a web server from 400 to 499 that say "later": request timeout, too early, too many requests
_LATER = frozenset({408, 425, 429})


def as_os_error(act: Callable[P, Result]) -> Callable[P, Result]:
    """Decorator: raise OSError where a storage library raises its own exception."""

    @functools.wraps(act)
    def call(*args: P.args, **kwargs: P.kwargs) -> Result:
        try:
            return act(*args, **kwargs)
        except Exception as error:
            # all others are errors of ours and stay as they are
            if isinstance(error, OSError) or _library(error) not in LIBRARIES:
                raise
            raise OSError(f"{type(error).__name__}: {error}") from error

    return call


def is_transient(error: BaseException | None) -> bool:
    """Whether a later attempt to read may succeed, because the storage, the network or the machine is the cause.

    False for what the file or its name is the cause of (missing, not readable), and for credentials that are missing
    or refused.
    """
    if error is None:
        return False
    # fsspec reports every failed request for a web address's size as a missing file, and raises it from the cause
    if isinstance(error, FileNotFoundError):
        return _library(error.__cause__) == "aiohttp" and is_transient(error.__cause__)
    # a web server has answered: `status` is aiohttp's, `code` is gcsfs's
    status = getattr(error, "status", getattr(error, "code", None))
    if isinstance(status, int) and 400 <= status < 500:
        return status in _LATER
    # waiting does not help against missing credentials or a request that the library itself refuses
    if any(word in type(error).__name__ for word in ("Credential", "Validation", "InvalidURL")):
        return False
    if isinstance(error, OSError):
        return not isinstance(error, PermissionError) and error.errno not in _OF_THE_FILE
    return _library(error) in LIBRARIES


def storage_fault(error: BaseException) -> Literal["full", "unavailable"] | None:
    """What an error of a read or write tells of the storage as a whole; None if it tells of one file or of no storage.

    "full": no room for this user. "unavailable": anything else that the storage, the network or the rights cause.
    """
    chain = _causes(error)
    if any(getattr(one, "errno", None) in _FULL or _FULL_CODES & _codes(one) for one in chain):
        return "full"
    if isinstance(error, FileNotFoundError | FileExistsError):
        return None
    # an OSError of pyarrow without a number tells of a broken file; fsspec's time limit has none either
    known = any(
        isinstance(one, OSError) and (one.errno or isinstance(one, PermissionError | TimeoutError)) for one in chain
    )
    return "unavailable" if known or any(_library(one) in LIBRARIES for one in chain) else None


def _causes(error: BaseException) -> list[BaseException]:
    """The error and its causes."""
    chain = [error]
    while chain[-1].__cause__ is not None and len(chain) < 10:
        chain.append(chain[-1].__cause__)
    return chain


def _codes(error: BaseException) -> set[str]:
    """The codes of a storage's response: that of botocore, and its HTTP status."""
    response = getattr(error, "response", None)
    if not isinstance(response, dict):
        return {str(getattr(error, "code", ""))}
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", "")
    return {str(response.get("Error", {}).get("Code", "")), str(status)}


def reason_of(error: BaseException) -> str:
    """What went wrong, in one line of at most 300 characters, without the path or address that the storage used.

    The caller knows the file by the name that was given, which may differ from where it lies on the server.
    """
    if isinstance(error, FileNotFoundError):
        return "no such file" if error.__cause__ is None else reason_of(error.__cause__)
    # the text of a failed web request has its whole address, often with a signature
    status, message = getattr(error, "status", None), getattr(error, "message", None)
    if isinstance(status, int):
        return f"the server answered {status} {message or ''}".strip()[:300]
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    if isinstance(error, TimeoutError) and not text:
        return "the server does not answer"
    return " ".join(f"{text or type(error).__name__}".split())[:300]


def _library(error: BaseException | None) -> str:
    """The package that defines the exception's class; empty for None."""
    return "" if error is None else type(error).__module__.partition(".")[0]
