"""Questions to the list of keys, which is in memory; if it was not read lately, a thread waits for the store."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.concurrency import run_in_threadpool

from strata.keys import Access, KeyFacts, KeyRing


async def find_access(keys: KeyRing, secrets: Sequence[bytes] = (), digests: Sequence[str] = ()) -> Access:
    """What the key with one of these secrets, or hashes of secrets, may do. Raises KeyRefused and OSError."""
    access = keys.known(secrets, digests)
    return access if access is not None else await run_in_threadpool(keys.find, secrets, digests)


async def find_facts(keys: KeyRing, key_id: str) -> KeyFacts | None:
    """What is known of a key; None if there is none with this id. Whether it may be used, `find_access` says."""
    facts = keys.facts(key_id)
    if facts is None and key_id:  # this process has not read the list yet, or the key is new
        await run_in_threadpool(keys.refresh)
        facts = keys.facts(key_id)
    return facts
