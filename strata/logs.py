"""The log of Strata's processes: one line for each event on stderr, without the secrets of URLs."""

from __future__ import annotations

import logging

from strata.addresses import without_secrets


class LogFormatter(logging.Formatter):
    """Formats a record, and its traceback if it has one, and removes users, passwords and queries from its URLs."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        return without_secrets(super().format(record))


def begin_log(time_format: str | None = None, quiet: bool = False) -> None:
    """Send the log of this process to stderr, from the level INFO on. time_format: as for time.strftime.

    quiet: from the level WARNING on, as of a command that shows its progress.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(LogFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s", time_format))
    logging.basicConfig(level=logging.WARNING if quiet else logging.INFO, handlers=[handler])
