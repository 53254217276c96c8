"""The log of Strata's processes: one line for each event on stderr, without the secrets of URLs.

On a terminal a line is text; elsewhere it is a JSON object. Both have the time in RFC 3339 (UTC), and the ids of the
request, the job and the chunk that the process worked on, where there are any. What libraries log has the same form.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Literal

from strata.addresses import without_secrets

LogFormat = Literal["auto", "text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]
# libraries whose lines below this level tell of each request, some with addresses
QUIET = (
    "httpx",
    "httpx2",
    "httpcore",
    "urllib3",
    "botocore",
    "aiobotocore",
    "s3fs",
    "fsspec",
    "asyncio",
    "PIL",
    "redis",
)
FIELDS = "fields"  # the attribute of a record with further fields, as of `log.info(…, extra={FIELDS: {…}})`

_NONE: Mapping[str, str] = MappingProxyType({})
_context: ContextVar[Mapping[str, str]] = ContextVar("log context", default=_NONE)


@contextmanager
def log_context(**ids: str) -> Iterator[None]:
    """Within the block the lines of this thread or task have these ids, such as `job`. Empty ones are left out."""
    token = _context.set({**_context.get(), **{name: text for name, text in ids.items() if text}})
    try:
        yield
    finally:
        _context.reset(token)


def current_ids() -> Mapping[str, str]:
    """The ids of the lines that are logged now."""
    return _context.get()


def rfc3339(seconds: float) -> str:
    """A time in seconds since 1970 as RFC 3339 in UTC, with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class LogFormatter(logging.Formatter):
    """Formats a record as text, and removes users, passwords and queries from its URLs.

    The first line has the ids at its end; a traceback follows it.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        ids = "".join(f" {name}={text}" for name, text in _context.get().items())
        line = f"{rfc3339(record.created)} {record.levelname} {record.name}: {record.getMessage()}{ids}"
        traceback = self.traceback_of(record)
        return without_secrets(f"{line}\n{traceback}" if traceback else line)

    def traceback_of(self, record: logging.LogRecord) -> str:
        """The traceback of a record, and the stack if it was asked for; empty if it has none."""
        parts = [self.formatException(record.exc_info)] if record.exc_info and record.exc_info[0] else []
        return "\n".join(parts + ([self.formatStack(record.stack_info)] if record.stack_info else []))


class JsonFormatter(LogFormatter):
    """Formats a record as a JSON object in one line: time, level, logger, message, ids, fields, exception."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON. All texts are without secrets."""
        line: dict[str, Any] = {
            "time": rfc3339(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": without_secrets(record.getMessage()),
            **_context.get(),
            **{name: _plain(value) for name, value in getattr(record, FIELDS, {}).items()},
        }
        if traceback := self.traceback_of(record):
            line["exception"] = without_secrets(traceback)
        return json.dumps(line)


def _plain(value: object) -> object:
    return value if isinstance(value, int | float | bool) or value is None else without_secrets(str(value))


def is_json(log_format: LogFormat) -> bool:
    """Whether lines are JSON: as it is said, else if stderr is no terminal."""
    return log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())


def begin_log(log_format: LogFormat | None = None, level: LogLevel | None = None, quiet: bool = False) -> None:
    """Send the log of this process to stderr. None: as STRATA_LOG_FORMAT and STRATA_LOG_LEVEL say, else auto and info.

    quiet: then warning instead of info, as of a command that shows its progress. Warnings of Python become lines too.
    """
    chosen: Any = log_format or os.environ.get("STRATA_LOG_FORMAT", "").strip() or "auto"
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if is_json(chosen) else LogFormatter())
    name = level or os.environ.get("STRATA_LOG_LEVEL", "").strip() or ("warning" if quiet else "info")
    logging.basicConfig(level=getattr(logging, name.upper(), logging.INFO), handlers=[handler])
    logging.captureWarnings(True)
    for library in QUIET:
        logging.getLogger(library).setLevel(max(logging.WARNING, logging.getLogger().level))


def adopt_libraries() -> None:
    """Let lines of libraries that bring a handler of their own, as transformers does, go where all others go."""
    for logger in list(logging.Logger.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger):
            for handler in [one for one in logger.handlers if _writes_to_terminal(one)]:
                logger.removeHandler(handler)
                logger.propagate = True


def _writes_to_terminal(handler: logging.Handler) -> bool:
    return isinstance(handler, logging.StreamHandler) and getattr(handler, "stream", None) in (sys.stderr, sys.stdout)
