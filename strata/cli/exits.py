"""The exit codes of every command, and the one table that gives each kind of error its code.

| code | meaning |
|---|---|
| 0 | done |
| 1 | an error without a code of its own, or a programming error in Strata |
| 2 | an argument, a setting or a file cannot be used |
| 3 | weights are missing, damaged, or cannot be fetched |
| 4 | the port is in use |
| 5 | the data directory is in use, or cannot be written |
| 6 | Redis cannot be reached or started |
| 7 | `serve` would listen beyond loopback without an API key |
| 8 | the job ended as failed or cancelled, or the image failed |
| 9 | the service cannot be reached, or cannot serve the request |
| 10 | the request was refused |
| 11 | a mixture's data are incomplete |
| 12 | a profile has faults |
| 13 | this worker process cannot go on, but a new one may: its GPU or one of its models is broken |
| 14 | `verify` has found broken or missing files |
| 15 | `models prove` has found models that do not give what they must |
| 16 | `evaluate --against` has found a figure that dropped beyond noise |
| 17 | the job that was followed is done, but some of its images or shards have failed |
| 130 | Ctrl-C has ended the command (a job of a service goes on), or SIGTERM a run |
"""

from __future__ import annotations

from strata import errors

FAILURE = 1
USAGE = 2
WEIGHTS_MISSING = 3
PORT_IN_USE = 4
DATA_DIR_IN_USE = 5
REDIS_UNREACHABLE = 6
UNSAFE_BIND = 7
JOB_FAILED = 8
API_UNREACHABLE = 9
REQUEST_REFUSED = 10
MIXTURE_INCOMPLETE = 11
PROFILE_INVALID = 12
PROCESS_BROKEN = 13
STORE_BROKEN = 14
PROOF_FAILED = 15
QUALITY_DROPPED = 16
PARTLY_FAILED = 17
INTERRUPTED = 130  # as shells give it for a process that Ctrl-C has ended

CODES: dict[type[Exception], int] = {
    errors.StrataError: FAILURE,
    errors.InvalidInput: USAGE,
    errors.ProfileInvalid: PROFILE_INVALID,
    errors.WeightsError: WEIGHTS_MISSING,
    errors.ProcessBroken: PROCESS_BROKEN,
    errors.PortInUse: PORT_IN_USE,
    errors.DataDirectoryError: DATA_DIR_IN_USE,
    errors.RedisUnavailable: REDIS_UNREACHABLE,
    errors.UnsafeBind: UNSAFE_BIND,
    errors.JobFailed: JOB_FAILED,
    errors.PartlyFailed: PARTLY_FAILED,
    errors.ServiceUnavailable: API_UNREACHABLE,
    errors.RequestRefused: REQUEST_REFUSED,
    errors.IncompleteData: MIXTURE_INCOMPLETE,
    errors.BrokenStore: STORE_BROKEN,
    errors.ProofFailed: PROOF_FAILED,
    errors.QualityDropped: QUALITY_DROPPED,
    # a file that is missing, cannot be read or written, or is not text
    OSError: USAGE,
    UnicodeDecodeError: USAGE,
}


def code_of(error: Exception) -> int | None:
    """The exit code of an error: that of the first class in its method resolution order that CODES has, or None.

    For a failed child process it is the process's own code, which comes from this table too.
    """
    if isinstance(error, errors.ProcessFailed):
        return error.returncode
    return next((CODES[kind] for kind in type(error).__mro__ if kind in CODES), None)


def lines() -> list[str]:
    """The table above as lines of text, for a terminal."""
    rows = [line.strip("|").split("|") for line in (__doc__ or "").splitlines() if line.startswith("| ")]
    return [f"{code.strip():>4}  {meaning.strip()}" for code, meaning in rows]
