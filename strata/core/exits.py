"""Exit codes of the command line, and the error that carries one."""

from __future__ import annotations

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


class StrataExit(Exception):
    """One clear line for the person at the terminal, and the exit code that goes with it."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code
