"""The ledger: what each job has spent on servers and what is reserved for chunks in hand, kept within its budget.

A chunk's worst case is reserved before it is computed and settled with what was used. Work that dies in hand keeps
its reservation: the money may have gone. Each reservation is an entry with a name of its own, so that telling one
twice counts once, and a worker that was only paused settles its own. The bills in the footers of parts tell again
what was settled when Redis has lost it.
"""

from __future__ import annotations

from typing import Any, Literal, cast

import redis

from strata.core.schemas import Budget, JobUsage
from strata.core.usage import MILLION, Bill, Cost
from strata.queue import keys

Answer = Literal["yes", "later", "no"]
_KNOWN = "known"  # there while nothing that the job has spent was forgotten
_COUNTS = ("tokens", "money", "prompt_tokens", "completion_tokens", "requests", "paid")
_LIMITS = ("limit:tokens", "limit:money")

# KEYS: ledger; ARGV: "reserve" or "settle", chunk id, entry, then a number for each of _COUNTS
# tokens and money are what the entry takes of the budget, the others what is known of it
_CHARGE = """
local ledger, holds, entry = KEYS[1], 'holds:' .. ARGV[2], 'entry:' .. ARGV[3]
local function number(name) return tonumber(redis.call('HGET', ledger, name) or '0') end
local names, before, place = {@NAMES@}, {0, 0, 0, 0, 0, 0}, 0
for word in string.gmatch(redis.call('HGET', ledger, entry) or '', '%d+') do
  place = place + 1
  before[place] = tonumber(word)
end
local holder, others = redis.call('HGET', ledger, holds), number('open')
if holder then others = others - 1 end
if ARGV[1] == 'settle' then
  if redis.call('EXISTS', ledger) == 0 then return 'no' end
else
  local tokens, money = redis.call('HGET', ledger, 'limit:tokens'), redis.call('HGET', ledger, 'limit:money')
  if not tokens or not money then return 'later' end
  if tokens ~= '' or money ~= '' then
    if redis.call('HEXISTS', ledger, 'known') == 0 then return 'later' end
    local over = tokens ~= '' and number('tokens') - before[1] + tonumber(ARGV[4]) > tonumber(tokens)
    over = over or (money ~= '' and number('money') - before[2] + tonumber(ARGV[5]) > tonumber(money))
    if over and others > 0 then return 'later' end
    if over then return 'no' end
  end
  redis.call('HSET', ledger, holds, ARGV[3])
  if not holder then redis.call('HINCRBY', ledger, 'open', 1) end
end
for i, name in ipairs(names) do
  redis.call('HINCRBY', ledger, name, string.format('%.0f', tonumber(ARGV[3 + i]) - before[i]))
end
redis.call('HSET', ledger, entry, table.concat(ARGV, ' ', 4))
if ARGV[1] == 'settle' and holder == ARGV[3] then
  redis.call('HDEL', ledger, holds)
  redis.call('HINCRBY', ledger, 'open', -1)
end
return 'yes'
""".replace("@NAMES@", ", ".join(f"'{name}'" for name in _COUNTS))


class Ledger:
    """The ledgers of all jobs. Every method raises redis.RedisError when Redis cannot be reached."""

    def __init__(self, connection: redis.Redis) -> None:
        self.redis = connection
        self._charge = connection.register_script(_CHARGE)

    def begin(self, job_id: str, budget: Budget | None, new: bool = False) -> None:
        """Open a job's ledger if there is none. new: nothing can have been spent yet."""
        tokens, money = (budget.tokens, budget.money) if budget else (None, None)
        limits = (tokens, None if money is None else int(money * MILLION))
        with self.redis.pipeline(transaction=True) as pipe:
            for name, limit in zip(_LIMITS, limits, strict=True):
                pipe.hsetnx(keys.ledger(job_id), name, "" if limit is None else str(limit))
            if new:
                pipe.hset(keys.ledger(job_id), _KNOWN, "1")
            pipe.persist(keys.ledger(job_id))
            pipe.execute()

    def known(self, job_id: str) -> bool:
        """Whether the ledger holds all that the job has spent; not after Redis was emptied."""
        return bool(self.redis.hexists(keys.ledger(job_id), _KNOWN))

    def complete(self, job_id: str) -> None:
        """All bills of the job's parts have been settled: its ledger can be relied on again."""
        self.redis.hset(keys.ledger(job_id), _KNOWN, "1")

    def reserve(self, job_id: str, chunk_id: str, entry: str, cost: Cost) -> Answer:
        """Take a chunk's worst case out of the job's budget; of an entry that is there, the cost is its new whole.

        "later": it does not fit now, but others hold reservations that may come back, or it is not known yet what
        was spent; "no": it does not fit. Whoever else held the chunk is dead or will settle for itself.
        """
        return cast(Answer, self._run("reserve", job_id, chunk_id, entry, (cost.tokens, cost.money, 0, 0, 0, 0)))

    def settle(self, chunk_id: str, bill: Bill) -> None:
        """Put what was spent in the place of a reservation; nothing if the job's ledger is gone."""
        taken, used = bill.cost + bill.doubt, bill.usage
        told = (used.prompt_tokens, used.completion_tokens, used.requests, bill.cost.money)
        self._run("settle", bill.job, chunk_id, bill.entry, (taken.tokens, taken.money, *told))

    def _run(self, mode: str, job_id: str, chunk_id: str, entry: str, numbers: tuple[int, ...]) -> Any:
        return self._charge(keys=[keys.ledger(job_id)], args=[mode, chunk_id, entry, *numbers])

    def left(self, job_id: str) -> str:
        """What is left of a job's budget, in words."""
        found: Any = self.redis.hmget(keys.ledger(job_id), [*_LIMITS, "tokens", "money"])
        limits, taken = found[:2], [int(number or 0) for number in found[2:]]
        said = []
        if limits[0]:
            said.append(f"{int(limits[0]) - taken[0]:,} of {int(limits[0]):,} tokens")
        if limits[1]:
            said.append(f"{(int(limits[1]) - taken[1]) / MILLION:.6g} of {int(limits[1]) / MILLION:.6g} in money")
        return " and ".join(said)

    def usage(self, job_id: str, priced: bool) -> JobUsage:
        """What a job has spent. priced: whether its profile knows the prices."""
        found: Any = self.redis.hmget(keys.ledger(job_id), _COUNTS)
        tokens, money, read, written, requests, paid = (int(number or 0) for number in found)
        return JobUsage(
            prompt_tokens=read,
            completion_tokens=written,
            requests=requests,
            money=paid / MILLION if priced else None,
            reserved_tokens=tokens - read - written,
            reserved_money=(money - paid) / MILLION if priced else None,
        )
