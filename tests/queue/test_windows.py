"""What keys use of quotas within a time: exact for many callers, free again with time, given back at most once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st

from strata.core import Budget, Cost
from strata.jobs.jobs import Jobs
from strata.queue import FOR_EVER, IMAGES, Quota, Use, keys
from strata.queue.accounts import MONEY
from strata.queue.accounts.windows import PIECES
from strata.queue.queue import Queue
from tests.queue.test_ledger import bill
from tests.raw_redis import raw_redis

KEY = "0123456789ab"
HOUR = Quota("hour", 3600)  # pieces of a minute
TOTAL = Quota("total", FOR_EVER)


def plant(queue: Queue, quota: Quota, **ago: int) -> float:
    """Let the key have used amounts in pieces so long ago, as `p3=10`; how old the present piece is, in seconds."""
    server: Any = raw_redis(queue)
    seconds, micros = server.time()
    size = quota.seconds / PIECES
    present = int((seconds + micros / 1e6) // size)
    for name, amount in ago.items():
        server.hset(keys.used(quota.name, KEY), str(present - int(name[1:])), amount)
    return float((seconds + micros / 1e6) % size)


def test_the_bound_is_exact_for_callers_at_the_same_time(queue: Queue) -> None:
    with ThreadPoolExecutor(50) as pool:
        uses = list(pool.map(lambda _: queue.windows.use(IMAGES, KEY, 20), range(50)))
    assert sum(use.had for use in uses) == 20
    assert sorted(use.left for use in uses if use.had) == list(range(20))
    # nothing is told of another key, and asking uses nothing
    assert queue.windows.use(IMAGES, "other", 20, 0).left == 20
    assert queue.windows.use(IMAGES, KEY, 25, 0).left == 5


def test_what_was_used_counts_until_all_of_its_piece_is_older_than_the_window(queue: Queue) -> None:
    age = plant(queue, HOUR, p61=100, p60=10, p30=20, p0=5)
    asked = queue.windows.use(HOUR, KEY, 50, 0)
    assert asked.left == 15  # of the piece that is just leaving all counts, of the one before nothing
    assert asked.after is not None and abs(asked.after - (60 - age)) <= 2
    # 25 more fit when the piece of half an hour ago has left
    refused = queue.windows.use(HOUR, KEY, 50, 26)
    assert refused.had == 0 and refused.after is not None and abs(refused.after - (31 * 60 - age)) <= 2
    assert queue.windows.use(HOUR, KEY, 50, 15).had == 1
    # what is more than the quota never fits
    assert queue.windows.use(HOUR, KEY, 50, 51).after is None
    server: Any = raw_redis(queue)
    assert len(server.hgetall(keys.used("hour", KEY))) == 3 and 3600 < server.ttl(keys.used("hour", KEY)) <= 3661


def test_what_counts_for_ever_is_freed_by_giving_back_only(queue: Queue) -> None:
    windows = queue.windows
    assert windows.use_upload(TOTAL, KEY, 10, "a", 8) == Use(1, 2, None, 8)
    assert windows.use_upload(TOTAL, KEY, 10, "b", 3) == Use(0, 2, None, 0)
    server: Any = raw_redis(queue)
    assert server.ttl(keys.used("total", KEY)) == -1
    # an upload counts once, for the key that was first
    for key in (KEY, "other"):
        assert windows.use_upload(TOTAL, key, 10, "a", 8)[::3] == (1, 0)
    assert windows.use(TOTAL, "other", 10, 0).left == 10
    assert windows.use_upload(TOTAL, "other", 10, "c", 5).counted == 5
    for _ in range(2):  # a second time there is nothing
        windows.give_back_uploads(["a", "nobody has sent this"])
        assert not server.exists(keys.used("total", KEY)) and server.hgetall(keys.STORED).keys() == {"c"}
        assert windows.use(TOTAL, KEY, 10, 0).left == 10 and windows.use(TOTAL, "other", 10, 0).left == 5


def test_a_job_uses_each_of_its_chunks_once(queue: Queue) -> None:
    windows, things = queue.windows, [("a/0", 4), ("a/1", 4), ("a/2", 4)]
    first = windows.use_for(IMAGES, KEY, 10, "j", things)
    assert (first.had, first.left) == (2, 2) and first.after is not None
    # a scheduler that begins anew asks for the same
    assert windows.use_for(IMAGES, KEY, 10, "j", things)[:2] == (2, 2)
    assert windows.use_for(IMAGES, KEY, 10, "other", things[:1]).had == 0
    assert windows.use_for(IMAGES, KEY, 12, "j", things)[:2] == (3, 0)
    # of a job that was cancelled only its results count
    for _ in range(2):
        windows.give_back_for("j", but=["a/1"])
    assert windows.use(IMAGES, KEY, 12, 0).left == 8


def test_what_counts_no_longer_is_not_given_back(queue: Queue) -> None:
    plant(queue, IMAGES, p0=5)
    server: Any = raw_redis(queue)
    server.hset(keys.charged("j"), "a/0", f"17:4:{keys.used('images', KEY)}")  # long ago
    queue.windows.give_back_for("j")
    assert queue.windows.use(IMAGES, KEY, 10, 0).left == 5


@settings(max_examples=40)
@given(st.lists(st.tuples(st.sampled_from(["use", "back"]), st.integers(1, 6)), max_size=25))
def test_never_more_than_the_quota_is_used(valkey_url: str, steps: list[tuple[str, int]]) -> None:
    queue = Queue(valkey_url)
    raw_redis(queue).flushall()
    used: dict[str, int] = {}
    for number, (step, amount) in enumerate(steps):
        if step == "use":
            use = queue.windows.use_upload(TOTAL, KEY, 10, str(number), amount)
            assert use.had == (sum(used.values()) + amount <= 10) and use.counted == amount * use.had
            used |= {str(number): amount} if use.had else {}
        elif used:
            queue.windows.give_back_uploads([used.popitem()[0]])
        assert queue.windows.use(TOTAL, KEY, 10, 0).left == 10 - sum(used.values())


# money


def test_the_money_of_a_key_is_that_of_all_its_jobs(jobs: Jobs) -> None:
    ledger, server = jobs.ledger, cast(Any, raw_redis(jobs.queue))
    for job in ("j", "k"):
        ledger.begin(job, None, new=True, key_id=KEY)
        server.hset(keys.ACTIVE, job, "batch:1:")
    ledger.begin("free", None, new=True, key_id="other")
    ledger.allow({KEY: 0.000_5, "other": None})
    assert ledger.reserve("j", "a", "a#1", Cost(tokens=1, money=300)) == "granted"
    # the other job may give something back; one that has ended gives nothing
    assert ledger.reserve("k", "b", "b#1", Cost(tokens=1, money=201)) == "later"
    server.hdel(keys.ACTIVE, "j")
    assert ledger.reserve("k", "b", "b#1", Cost(tokens=1, money=201)) == "refused"
    assert not server.exists(f"{keys.RESERVING}{KEY}")
    server.hset(keys.ACTIVE, "j", "batch:1:")
    assert ledger.reserve("free", "b", "b#1", Cost(tokens=1, money=10**9)) == "granted"
    assert ledger.remaining("k") == f"0.0002 of 0.0005 in money that the key {KEY} may spend a day"
    # another chunk of the same job is in flight, and may give something back
    assert ledger.reserve("j", "c", "c#1", Cost(tokens=1, money=201)) == "later"
    ledger.settle("a", bill("j", "a#1", 50))  # 100 millionths
    ledger.settle("a", bill("j", "a#1", 50))
    assert ledger.reserve("k", "b", "b#1", Cost(tokens=1, money=400)) == "granted"
    assert ledger.reserve("j", "c", "c#1", Cost(tokens=1, money=1)) == "later"
    ledger.settle("b", bill("k", "b#1", 200))  # all of it was spent
    assert ledger.reserve("j", "c", "c#1", Cost(tokens=1, money=1)) == "refused"
    ledger.allow({KEY: None})
    assert ledger.reserve("j", "c", "c#1", Cost(tokens=1, money=10**9)) == "granted"
    assert ledger.remaining("j") == ""


def test_what_is_restored_does_not_count_for_the_key(jobs: Jobs) -> None:
    ledger, of_key = jobs.ledger, f"in money that the key {KEY} may spend a day"
    ledger.begin("j", Budget(money=1.0), key_id=KEY)
    ledger.allow({KEY: 0.000_5})
    for _ in range(2):
        ledger.restore("a", bill("j", "a#1", 200))  # 400 millionths, which were spent before Redis was emptied
        assert ledger.remaining("j") == f"0.9996 of 1 in money and 0.0005 of 0.0005 {of_key}"
    ledger.settle("a", bill("j", "a#1", 200))  # the worker tells the same once more
    ledger.settle("b", bill("j", "b#1", 50))  # 100 that are spent now
    assert ledger.remaining("j") == f"0.9995 of 1 in money and 0.0004 of 0.0005 {of_key}"


def test_what_is_given_back_is_taken_from_the_pieces_in_which_it_was_counted(queue: Queue, jobs: Jobs) -> None:
    ledger, server = jobs.ledger, cast(Any, raw_redis(queue))
    ledger.begin("j", None, new=True, key_id=KEY)
    ledger.allow({KEY: 0.001})
    assert ledger.reserve("j", "a", "a#1", Cost(tokens=1, money=300)) == "granted"
    # a piece of the time passes: what was counted now was counted in the piece before
    window = keys.used(MONEY.name, KEY)
    ((piece, amount),) = server.hgetall(window).items()
    before = str(int(piece) - 1)
    server.hdel(window, piece)
    server.hset(window, before, amount)
    server.hset(keys.ledger("j"), "pieces:a#1", f"{before}:{amount}")
    assert ledger.reserve("j", "a", "a#1", Cost(tokens=1, money=400)) == "granted"
    assert ledger.reserve("j", "b", "b#1", Cost(tokens=1, money=200)) == "granted"
    ledger.settle("a", bill("j", "a#1", 25))  # 50 of 400
    assert server.hgetall(window) == {before: "50", piece: "200"}  # the other chunk's are all there
    ledger.settle("b", bill("j", "b#1", 0))
    assert server.hgetall(window) == {before: "50"}
    assert ledger.remaining("j").startswith("0.00095 of 0.001 in money that the key")


def test_a_key_and_a_budget_both_hold(queue: Queue, jobs: Jobs) -> None:
    ledger = jobs.ledger
    ledger.begin("j", Budget(money=0.000_1), new=True, key_id=KEY)
    ledger.allow({KEY: 0.000_5})
    assert ledger.reserve("j", "a", "a#1", Cost(tokens=1, money=101)) == "refused"
    assert ledger.reserve("j", "a", "a#1", Cost(tokens=1, money=100)) == "granted"
    # the same entry grows, and shrinks
    ledger.settle("a", bill("j", "a#1", 20))
    assert queue.windows.use(MONEY, KEY, 500, 0).left == 460
