"""The errors that Strata raises on purpose, as one tree under StrataError.

The classes here are kinds: a caller can handle a kind without importing the module that raises it. A module derives a
class from a kind if callers have to distinguish its error (`strata.jobs.jobs.UnknownJob` is a NotFound). The message of
every error is one line with the problem and, where possible, the solution. The command line maps kinds to exit codes
(`strata.cli.exits`), the REST service maps errors to problem documents (`app.problems`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class StrataError(Exception):
    """Any error that Strata raises on purpose; its message is one line."""

    @property
    def lines(self) -> list[str]:
        """The lines that the command line prints: the message, or one line for each of several faults."""
        return [str(self)]


def plain_line(error: BaseException) -> str:
    """An error in one line; for an error of the operating system the file and the reason, without its number."""
    text = str(error)
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        names = [name for name in (error.filename, error.filename2) if isinstance(name, str | bytes | os.PathLike)]
        text = ": ".join([*map(os.fsdecode, names), error.strerror])
    return " ".join(text.split()) or type(error).__name__


def fault_line(fault: Mapping[str, Any]) -> str:
    """What is wrong, as one of pydantic's errors says it; without the name of the exception that a validator raised."""
    return str(fault["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")


class InvalidInput(StrataError):
    """An argument, a setting or a configuration file has a value that cannot be used."""


class ProfileInvalid(InvalidInput):
    """A profile's file has faults; `lines` has a line for each."""


class WeightsError(StrataError):
    """The weights of a model are missing, damaged, or cannot be fetched."""


class ProofFailed(StrataError):
    """The models of a profile do not give what they must: `strata models prove` says which checks have not passed."""


class QualityDropped(StrataError):
    """A figure of an evaluation is worse than that of an earlier one, beyond noise."""


class PortInUse(StrataError):
    """The service cannot listen on its address."""

    def __init__(self, host: str, port: int, reason: str) -> None:
        super().__init__(f"cannot listen on {host} port {port}: {reason}; choose another with --port")
        self.host, self.port, self.reason = host, port, reason


class DataDirectoryError(StrataError):
    """The data directory cannot be used: another process holds it, or it cannot be written."""

    def __init__(self, folder: Path, message: str) -> None:
        super().__init__(message)
        self.folder = folder


class RedisUnavailable(StrataError):
    """Redis cannot be reached, is too old, or cannot be started."""


class QueueUnavailable(RedisUnavailable):
    """Redis cannot execute commands now. Retry later; nothing in the store is lost."""


class NoWorker(StrataError):
    """No worker of this machine is ready: `strata worker --check` has found none."""


class UnsafeBind(StrataError):
    """The service would listen beyond loopback, and no API key is set or stored."""

    def __init__(self, host: str) -> None:
        super().__init__(
            f"listening on {host} would give the whole network access: "
            "set STRATA_API_KEY, which must not be empty, make a key with `strata keys create`, or listen on 127.0.0.1"
        )
        self.host = host


class JobFailed(StrataError):
    """A job, or one of its images, ended without a result."""


class PartlyFailed(StrataError):
    """A job is done, but some of its images or shards have failed."""


class ServiceUnavailable(StrataError):
    """The REST service cannot be reached, or cannot serve the request now."""


class QueueFull(ServiceUnavailable):
    """No more work is taken now. own: it is the caller's share that is used; seconds: when to try again."""

    def __init__(self, what: str, number: int, most: int, own: bool, seconds: int) -> None:
        whose = "of yours" if own else "of all callers"
        super().__init__(f"{number:,} {what} {whose} have not ended; at most {most:,} may be open at a time")
        self.own, self.seconds = own, seconds


class QuotaExceeded(ServiceUnavailable):
    """An API key has used what it may. quota: its name; seconds: when to try again, None if waiting does not help."""

    def __init__(self, quota: str, message: str, seconds: int | None) -> None:
        super().__init__(message)
        self.quota, self.seconds = quota, seconds


class RequestRefused(StrataError):
    """The request is valid but cannot be executed."""


class NotFound(RequestRefused):
    """No object has the given name or id."""


class Conflict(RequestRefused):
    """The current state does not allow the request, for example a name is in use or a job has not ended."""


class DataError(RequestRefused):
    """A shard, an image, a sample or a part has invalid content."""


class DamagedFile(DataError):
    """A file that Strata has written cannot be parsed any more. path: relative to the store's root."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path} is damaged: {' '.join(reason.split())[:200]}")
        self.path = path


class BrokenStore(StrataError):
    """Files of the store are broken or missing."""


class IncompleteData(StrataError):
    """Data of a mixture are missing, or a source has fewer samples than the mixture needs."""


class ProcessBroken(StrataError):
    """This process can no longer do its work, but one that is started anew may."""


class ProcessFailed(StrataError):
    """A process of Strata that was started has failed. returncode: its exit code, never 0."""

    def __init__(self, message: str, returncode: int | None) -> None:
        super().__init__(message)
        self.returncode = returncode or 1
