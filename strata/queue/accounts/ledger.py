"""The ledger: what each job has spent on model servers and has reserved for chunks in flight, kept within its budget.

The money also counts in the window of the key that made the job, if the key may spend so much a day only.

A chunk's worst-case cost is reserved before the chunk is computed, and settled with the actual cost afterwards. If a
worker dies, its reservation stays, because the servers may have charged for its requests. Each reservation is an entry
with a name of its own: a repeated call replaces the entry's numbers, and a worker that was only paused settles its own
entry. If Redis loses a ledger, it is rebuilt from the bills in the footers of the job's parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

from strata.core import MILLION, Bill, Budget, Cost, JobUsage
from strata.queue import keys
from strata.queue.accounts.windows import MONEY, Windows, window_functions
from strata.queue.connection import Connection, translate_errors
from strata.queue.scripts import load_script

Reservation = Literal["granted", "later", "refused"]
_KNOWN = "known"  # a field that exists while the ledger holds everything that the job has spent
_COUNTS = ("tokens", "money", "prompt_tokens", "completion_tokens", "requests", "paid")
_KEY = "key"  # a field with the API key that made the job
_LIMITS = ("limit:tokens", "limit:money")


@translate_errors
class Ledger:
    """The ledgers of all jobs. Every method raises QueueUnavailable.

    Money is counted in millionths of the currency of the profile's prices.
    """

    def __init__(self, connection: Connection) -> None:
        self._redis = connection
        # the script gets the names of the sums as Lua strings
        counts = ", ".join(f"'{name}'" for name in _COUNTS)
        names = {"QUOTAS": keys.MONEY_QUOTAS, "USED": keys.used(MONEY.name, ""), "SECONDS": str(MONEY.seconds)}
        names |= {"RESERVING": keys.RESERVING, "LEDGER": keys.LEDGER, "ACTIVE": keys.ACTIVE}
        functions = window_functions()
        self._charge = connection.register_script(load_script("charge", COUNTS=counts, WINDOWS=functions, **names))
        self._windows = Windows(connection)

    def begin(self, job_id: str, budget: Budget | None, new: bool = False, key_id: str = "") -> None:
        """Open a job's ledger with its budget's limits if it has none. new: the job cannot have spent anything yet.

        key_id: the API key that made the job, empty if none has.
        """
        tokens, money = (budget.tokens, budget.money) if budget else (None, None)
        limits = (tokens, None if money is None else round(money * MILLION))
        with self._redis.pipeline(transaction=True) as pipe:
            # an empty limit means that there is none
            for name, limit in zip(_LIMITS, limits, strict=True):
                pipe.hsetnx(keys.ledger(job_id), name, "" if limit is None else str(limit))
            if key_id:
                pipe.hset(keys.ledger(job_id), _KEY, key_id)
            if new:
                pipe.hset(keys.ledger(job_id), _KNOWN, "1")
            # the ledger of a job that is retried must not expire any more
            pipe.persist(keys.ledger(job_id))
            pipe.execute()

    def known(self, job_id: str) -> bool:
        """Whether the ledger holds everything that the job has spent. False after Redis was emptied."""
        return bool(self._redis.hexists(keys.ledger(job_id), _KNOWN))

    def complete(self, job_id: str) -> None:
        """Mark a ledger as complete: the bills of all parts of the job have been settled."""
        self._redis.hset(keys.ledger(job_id), _KNOWN, "1")

    def reserve(self, job_id: str, chunk_id: str, entry: str, cost: Cost) -> Reservation:
        """Reserve a chunk's worst-case cost in a job's ledger; for an entry that exists, cost is its new total.

        "later": the cost does not fit now, but chunks in flight may return budget, or it is not known yet what the
        job has spent. "refused": it does not fit. A reservation of the same chunk by another entry is not waited for:
        that worker has lost the chunk.
        """
        reply = self._run("reserve", job_id, chunk_id, entry, (cost.tokens, cost.money, 0, 0, 0, 0))
        return cast(Reservation, reply)

    def settle(self, chunk_id: str, bill: Bill) -> None:
        """Replace a reservation by what was spent. Does nothing if the job's ledger is gone."""
        self._tell("settle", chunk_id, bill)

    def restore(self, chunk_id: str, bill: Bill) -> None:
        """Tell again what was spent before the ledger was lost. It does not count for the key: it was spent earlier."""
        self._tell("restore", chunk_id, bill)

    def _tell(self, mode: str, chunk_id: str, bill: Bill) -> None:
        # usage that is not known exactly is taken from the budget, but not reported as usage
        total, usage = bill.cost + bill.doubt, bill.usage
        known = (usage.prompt_tokens, usage.completion_tokens, usage.requests, bill.cost.money)
        self._run(mode, bill.job, chunk_id, bill.entry, (total.tokens, total.money, *known))

    def _run(self, mode: str, job_id: str, chunk_id: str, entry: str, numbers: tuple[int, ...]) -> Any:
        return self._charge(keys=[keys.ledger(job_id)], args=[mode, chunk_id, entry, *numbers])

    def allow(self, money: Mapping[str, float | None]) -> None:
        """What keys may spend a day on model servers, by their ids; None: as much as their jobs may."""
        with self._redis.pipeline(transaction=False) as pipe:
            for key_id, amount in money.items():
                if amount is None:
                    pipe.hdel(keys.MONEY_QUOTAS, key_id)
                else:
                    pipe.hset(keys.MONEY_QUOTAS, key_id, str(round(amount * MILLION)))
            pipe.execute()

    def remaining(self, job_id: str) -> str:
        """What remains of a job's budget, and of what its key may spend, as text for people."""
        found: Any = self._redis.hmget(keys.ledger(job_id), [*_LIMITS, "tokens", "money", _KEY])
        limits, spent, key_id = found[:2], [int(number or 0) for number in found[2:4]], found[4]
        texts = []
        if limits[0]:
            texts.append(f"{int(limits[0]) - spent[0]:,} of {int(limits[0]):,} tokens")
        if limits[1]:
            texts.append(f"{(int(limits[1]) - spent[1]) / MILLION:.6g} of {int(limits[1]) / MILLION:.6g} in money")
        quota: Any = self._redis.hget(keys.MONEY_QUOTAS, key_id) if key_id else None
        if quota is not None:
            left = self._windows.use(MONEY, key_id, int(quota), 0).left / MILLION
            texts.append(f"{left:.6g} of {int(quota) / MILLION:.6g} in money that the key {key_id} may spend a day")
        return " and ".join(texts)

    def usage(self, job_id: str, priced: bool) -> JobUsage:
        """What a job has spent and reserved. priced: whether its profile has prices; without them money is None."""
        found: Any = self._redis.hmget(keys.ledger(job_id), _COUNTS)
        # what is taken from the budget beyond the known usage is reserved
        tokens, money, prompt_tokens, completion_tokens, requests, paid = (int(number or 0) for number in found)
        return JobUsage(
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            requests=requests,
            money=paid / MILLION if priced else None,
            reserved_tokens=tokens - prompt_tokens - completion_tokens,
            reserved_money=(money - paid) / MILLION if priced else None,
        )
