"""The one error that callers of the queue catch."""

from __future__ import annotations

from strata.errors import RedisUnavailable


class QueueUnavailable(RedisUnavailable):
    """Redis cannot be reached or cannot execute commands now. Retry later; nothing in the store is lost."""
