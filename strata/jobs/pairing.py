"""One store for one Redis database: the store has a mark with an id, and Redis remembers the id.

Two services with different stores in one database would take each other's chunks, and write parts that the other does
not find.
"""

from __future__ import annotations

from strata.addresses import redis_address, without_secrets
from strata.errors import InvalidInput
from strata.queue import Queue
from strata.store import Store


class OtherStore(InvalidInput):
    """The Redis database has the jobs of another store."""

    def __init__(self, queue: Queue, store: Store, what: str) -> None:
        super().__init__(
            f"STRATA_STORE: {what} at {without_secrets(store.uri)}, but Redis at {redis_address(queue.url)} has the "
            "jobs of another store: mount that store, choose another database number in REDIS_URL (another "
            "STRATA_DATA_DIR if REDIS_URL is not set), or empty this database with FLUSHDB"
        )


def pair(queue: Queue, store: Store) -> None:
    """Give the store a mark if it has none, and have Redis remember its id. Harmless if it was done before.

    Raises OtherStore if Redis remembers another store's id, QueueUnavailable, DamagedFile, and OSError if the store
    cannot be reached or has lost the mark that this process has seen.
    """
    # an empty place does not become a new store while Redis has jobs: the store may not be mounted
    known, found = queue.store_id(), store.find_mark()
    if found is None and known is not None and store.is_empty():
        raise OtherStore(queue, store, "there is no store")
    found = found or store.make_mark()
    if queue.remember_store(found) != found:
        raise OtherStore(queue, store, "a different store is")
