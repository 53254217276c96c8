"""Budgets: what is reserved, settled, lost with a worker, and told again by parts when Redis forgot it."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from strata.core.chunks import Chunk
from strata.core.profiles import Profile, StageSettings
from strata.core.records import ImageReference, Record
from strata.core.requests import ShardSummary
from strata.core.schemas import Budget, JobStatus
from strata.core.usage import Bill, Cost, Usage
from strata.jobs.jobs import Jobs
from strata.jobs.scheduler import Scheduler
from strata.queue import Ledger, keys
from strata.queue.queue import Queue
from strata.store.store import Store
from tests.fakes import FAKE_PROFILE, jpeg, wait_for_end, write_shard
from tests.raw_redis import raw_redis
from tests.service import Service, problem
from workers.accounts import Account, Meter, NotAffordable
from workers.items import WorkItem
from workers.prepared import PreparedChunk

PRICED = {"price_per_million_prompt_tokens": 2.0, "price_per_million_completion_tokens": 10.0}
CHAT = StageSettings(backend="openai", model="server:http://127.0.0.1:9/v1", revision="1", parameters=PRICED)
PAID = FAKE_PROFILE.model_copy(update={"stages": {**FAKE_PROFILE.stages, "composer": CHAT}})


def bill(job: str, entry: str, read: int, written: int = 0, doubt: int = 0) -> Bill:
    usage = Usage(prompt_tokens=read, completion_tokens=written, requests=1)
    return Bill(job=job, entry=entry, usage=usage, cost=PAID.cost({"composer": usage}), doubt=Cost(tokens=doubt))


@pytest.fixture
def ledger(jobs: Jobs) -> Ledger:
    """The ledger of the job "j", which may spend 100 tokens."""
    jobs.ledger.begin("j", Budget(tokens=100), new=True)
    return jobs.ledger


def test_what_is_reserved_and_not_used_comes_back(ledger: Ledger) -> None:
    assert ledger.reserve("j", "a", "a#1", Cost(tokens=60)) == "granted"
    assert ledger.reserve("j", "b", "b#1", Cost(tokens=60)) == "later"
    ledger.settle("a", bill("j", "a#1", 10, 10))
    assert ledger.reserve("j", "b", "b#1", Cost(tokens=80)) == "granted"
    assert ledger.reserve("j", "b", "b#1", Cost(tokens=81)) == "refused"  # the same entry, nobody else to wait for
    ledger.settle("b", bill("j", "b#1", 30, doubt=5))
    ledger.settle("b", bill("j", "b#1", 30, doubt=5))  # told twice, counted once
    usage = ledger.usage("j", priced=False)
    assert (usage.prompt_tokens, usage.completion_tokens, usage.reserved_tokens, usage.requests) == (40, 10, 5, 2)
    assert (usage.money, ledger.remaining("j")) == (None, "45 of 100 tokens")
    assert ledger.reserve("j", "c", "c#1", Cost(tokens=46)) == "refused"


def test_a_chunk_that_died_in_hand_keeps_its_reservation(ledger: Ledger) -> None:
    assert ledger.reserve("j", "a", "a#dead", Cost(tokens=40)) == "granted"
    assert ledger.reserve("j", "a", "a#heir", Cost(tokens=61)) == "refused"  # nothing will come back of the dead
    assert ledger.reserve("j", "a", "a#heir", Cost(tokens=60)) == "granted"
    ledger.settle("a", bill("j", "a#heir", 20))
    assert ledger.remaining("j") == "40 of 100 tokens"
    ledger.settle("a", bill("j", "a#dead", 30))  # it was only paused
    assert ledger.remaining("j") == "50 of 100 tokens"
    assert ledger.reserve("j", "b", "b#1", Cost(tokens=51)) == "refused"  # nothing is in hand any more


def test_money_is_kept_too(jobs: Jobs) -> None:
    ledger = jobs.ledger
    ledger.begin("m", Budget(tokens=1000, money=0.000_5), new=True)  # 500 millionths
    assert PAID.cost({"composer": Usage(prompt_tokens=7, completion_tokens=3)}) == Cost(tokens=10, money=44)
    assert ledger.reserve("m", "a", "a#1", Cost(tokens=10, money=501)) == "refused"
    assert ledger.reserve("m", "a", "a#1", Cost(tokens=10, money=500)) == "granted"
    ledger.settle("a", bill("m", "a#1", 100, 10))
    usage = ledger.usage("m", priced=True)
    assert (usage.money, usage.reserved_money) == (0.0003, 0.0)
    assert ledger.remaining("m") == "890 of 1,000 tokens and 0.0002 of 0.0005 in money"


def test_without_a_budget_all_is_counted_and_nothing_refused(jobs: Jobs) -> None:
    assert jobs.ledger.reserve("free", "a", "a#1", Cost(tokens=1)) == "later"  # nobody has said what it may spend
    jobs.ledger.begin("free", None)
    assert jobs.ledger.reserve("free", "a", "a#1", Cost(tokens=10**9)) == "granted"
    assert jobs.ledger.usage("free", priced=False).reserved_tokens == 10**9


def test_an_emptied_ledger_is_not_relied_on(queue: Queue, ledger: Ledger) -> None:
    raw_redis(queue).flushall()
    ledger.settle("a", bill("j", "a#1", 10))
    assert not raw_redis(queue).exists(keys.ledger("j"))  # the part tells it again
    ledger.begin("j", Budget(tokens=100))
    assert ledger.reserve("j", "a", "a#1", Cost(tokens=1)) == "later"
    ledger.complete("j")
    assert ledger.reserve("j", "a", "a#1", Cost(tokens=1)) == "granted"


# accounts: 3 tries of at most 4 tokens, 2 rows a micro-batch


def meter(profile: Profile = PAID) -> Meter:
    bound = Usage(prompt_tokens=3, completion_tokens=1, requests=1)
    return Meter(profile, "llm", lambda record: {"composer": (bound, bound * 3)})


def record(tokens: int | None = None) -> Record:
    usage = {} if tokens is None else {"composer": Usage(prompt_tokens=tokens, requests=1)}
    return Record(key="a", image=ImageReference(uri="a", size=1), usage=usage)


def account(ledger: Ledger, rows: int = 5) -> Account:
    return Account(ledger, Chunk("llm", "fake", "f", "a.tar", "i"), meter(), [*[record()] * rows, None], 2)


def test_an_account_reserves_each_row_once_and_repeats_of_the_next_micro_batch(ledger: Ledger) -> None:
    one = account(ledger)
    one.reserve_next(lambda: ["j"])
    assert ledger.remaining("j") == "64 of 100 tokens"  # 3 × 4, and 2 × 12
    one.computed([record(2), record(2)])
    one.reserve_next(lambda: ["j"])
    assert ledger.remaining("j") == "64 of 100 tokens"
    one.computed([record(12), record(12)])
    one.reserve_next(lambda: ["j"])
    assert ledger.remaining("j") == "60 of 100 tokens"  # 28 spent; the last row has its repeats too
    one.complete(
        [record(2)] * 4 + [record(1), record(50)]
    )  # the last was settled before: an earlier attempt paid for it
    one.settle()
    assert ledger.remaining("j") == "71 of 100 tokens"
    assert one.bill is not None and one.bill.usage == Usage(prompt_tokens=29, requests=5)


def test_a_row_that_is_found_to_be_a_copy_costs_nothing(ledger: Ledger) -> None:
    one = account(ledger, rows=2)
    one.reserve_next(lambda: ["j"])
    items = [WorkItem(record(50), settled=True, reused=True), WorkItem(record(2), settled=True)]
    one.computed(PreparedChunk.costs(cast(PreparedChunk, SimpleNamespace(items=items)), [0, 1]))
    one.settle()
    assert one.bill is not None and one.bill.usage == Usage(prompt_tokens=2, requests=1)


def test_what_is_in_hand_at_the_end_counts_with_its_worst_case(ledger: Ledger) -> None:
    one = account(ledger)
    one.reserve_next(lambda: ["j"])
    one.computed([record(2), record(2)])
    one.reserve_next(lambda: ["j"])
    one.settle()  # left while the second micro-batch was in hand
    assert ledger.remaining("j") == "72 of 100 tokens"  # 4 and 2 × 12
    assert ledger.usage("j", False).reserved_tokens == 24
    other = account(ledger)
    other.reserve_next(lambda: ["j"])
    other.lost()  # by a fault of ours
    other.computed([record(), record()])
    other.settle()
    assert ledger.remaining("j") == "48 of 100 tokens"


def test_the_oldest_job_that_can_afford_it_pays(ledger: Ledger) -> None:
    ledger.begin("apoor", Budget(tokens=35), new=True)
    one = account(ledger)
    with pytest.raises(NotAffordable) as refusal:
        one.reserve_next(lambda: ["apoor"])
    assert refusal.value.spent == {
        "apoor": "budget spent: the next chunk may cost up to 36 tokens or 0.000144 in money, left: 35 of 35 tokens"
    }
    one.reserve_next(lambda: ["j", "apoor"])
    assert one.payer == "j"


def test_without_servers_nothing_is_reserved(ledger: Ledger) -> None:
    free = Account(ledger, Chunk("llm", "fake", "f", "a.tar", "i"), None, [record()], 2)
    free.reserve_next(lambda: ["j"])
    free.complete([record()])
    free.settle()
    assert (free.bill, ledger.remaining("j")) == (None, "100 of 100 tokens")


# what parts tell


def test_bills_of_parts_are_counted_again_before_more_is_spent(jobs: Jobs) -> None:
    summary = ShardSummary(shard="a.tar", identity="i" * 16, images=12)
    job = jobs.new.create("batch", ["a.tar"], PAID, "lo", indexed=[summary], budget=Budget(tokens=100))
    first, second, _ = job.chunks(summary, "llm")
    jobs.store.write_records(first, [record()] * 4, bill(job.id, "mine", 30))
    jobs.store.write_records(second, [record()] * 4, bill("another", "theirs", 40))
    raw_redis(jobs.queue).flushall()
    scheduler = Scheduler(jobs.queue, jobs.store, high_water=10)
    until = time.monotonic() + 120
    while not jobs.queue.broker.depth("vision") and time.monotonic() < until:
        scheduler.tick()
        assert jobs.ledger.known(job.id) or not jobs.queue.broker.depth("vision")  # nothing is handed out before
    scheduler.billing.close()
    assert jobs.queue.broker.depth("vision") == 1  # the first two chunks have their final parts
    assert jobs.ledger.remaining(job.id) == "70 of 100 tokens"
    usage = jobs.view(job.id).usage
    assert usage is not None and (usage.prompt_tokens, usage.money) == (30, 0.00006)


def test_footers_carry_the_bill(store: Store) -> None:
    chunk = Chunk("llm", "fake", "f", "a.tar", "i", 0, 2)
    told = bill("j", "a#1", 3, 4, doubt=5)
    store.write_records(chunk, [record(3), record()], told)
    assert store.read_footer(chunk)[:2] == ({"succeeded": 2}, told)
    assert [one.usage for one in store.read_records(chunk)] == [{"composer": Usage(prompt_tokens=3, requests=1)}, {}]
    store.write_records(chunk, [record(), record()])
    assert store.read_footer(chunk).bill is None


def test_a_fingerprint_knows_no_price_and_no_address() -> None:
    def changed(**changes: object) -> str:
        stage = CHAT.model_copy(update=changes)
        return PAID.model_copy(update={"stages": {**PAID.stages, "composer": stage}}).fingerprint("llm")

    same = changed()
    assert changed(model="server:https://elsewhere/v1") == same
    assert changed(parameters={"concurrency": 99, "timeout": 1.0, "image_tokens": 3, "retries": 0}) == same
    assert changed(parameters={"temperature": 1.0}) != same
    assert changed(revision="2") != same
    assert changed(model="local:/m") != same


# the API


def test_a_budget_is_taken_and_shown(service: Service, tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "shards" / "a.tar", [jpeg()])
    job = service.submit(shard, budget={"tokens": 5}).json()
    assert job["budget"] == {"tokens": 5, "money": None} and job["usage"] is None
    wait_for_end(service.jobs, job["id"])
    assert service.jobs.view(job["id"]).status is JobStatus.COMPLETED  # nothing in the profile costs anything
    for wrong in ({"tokens": 0}, {"money": -1}, {"money": "nan"}, {"coins": 1}, {"tokens": 1.5}):
        problem(service.submit(shard, budget=wrong), 422, "invalid-request")


def test_money_without_prices_is_refused(service: Service, tmp_path: Path) -> None:
    profile = Path(service.settings.profiles_dir) / "unpriced.toml"
    text = (profile.parent / "fake.toml").read_text()
    profile.write_text(text.replace('"builtin:fake"', '"server:http://127.0.0.1:9/v1"'))
    shard = write_shard(tmp_path / "shards" / "a.tar", [jpeg()])
    answer = service.submit(shard, profile="unpriced", budget={"money": 1})
    told = problem(answer, 422, "invalid-request")
    assert "has no prices for some of its servers" in told["detail"]
    assert service.submit(shard, profile="unpriced", budget={"tokens": 1}).status_code == 202
