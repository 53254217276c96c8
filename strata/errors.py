"""The errors that Strata raises on purpose, as one tree under StrataError.

The classes here are kinds: a caller who handles a kind needs no module that raises it. A module that can say more
derives its own class from a kind (`strata.jobs.jobs.UnknownJob` is a NotFound). The message of every error is one line
that says what is wrong and, where possible, what to do. The command line turns kinds into exit codes
(`strata.cli.exits`), the REST service turns errors into problem documents (`app.problems`).
"""

from __future__ import annotations

from pathlib import Path


class StrataError(Exception):
    """Any error that Strata raises on purpose; its message is one line."""

    @property
    def lines(self) -> list[str]:
        """What the command line prints, a line each: the message, or one line for each of several faults."""
        return [str(self)]


class InvalidInput(StrataError):
    """An argument, a setting or a configuration file has a value that cannot be used."""


class ProfileInvalid(InvalidInput):
    """A profile's file has faults; `lines` tells each."""


class WeightsError(StrataError):
    """The weights of a model are missing, damaged, or cannot be fetched."""


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


class UnsafeBind(StrataError):
    """The service would listen beyond loopback without an API key."""

    def __init__(self, host: str) -> None:
        super().__init__(
            f"listening on {host} would let everybody in the network in: set STRATA_API_KEY, or listen on 127.0.0.1"
        )
        self.host = host


class JobFailed(StrataError):
    """A job, or an image of it, ended without the result that was asked for."""


class ServiceUnavailable(StrataError):
    """The REST service cannot be reached, or cannot answer now."""


class RequestRefused(StrataError):
    """The request was understood and is not carried out."""


class NotFound(RequestRefused):
    """Nothing has the given name or id."""


class Conflict(RequestRefused):
    """The present state does not allow the request: a name is taken, a job has not ended."""


class DataError(RequestRefused):
    """Data that were read are not what they must be: a shard, an image, a sample, a part."""


class IncompleteData(StrataError):
    """Data that a mixture names are missing or are fewer than it asks for."""


class ProcessFailed(StrataError):
    """A process of Strata that was started has failed. returncode: its exit code, never 0."""

    def __init__(self, message: str, returncode: int | None) -> None:
        super().__init__(message)
        self.returncode = returncode or 1
