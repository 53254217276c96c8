"""A small run of `make faults`: one fault of each kind that needs no second try of its own; and how it counts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from bench.faults import run, schedule, store
from bench.faults.chat import chat_server
from bench.faults.orders import Orders
from bench.faults.schedule import Schedule
from bench.processes import CHECKOUT
from strata.core.records import Caption
from tests.described import described

LONGEST = 3600.0  # seconds: it ends by itself, and has taken 413 beside other load
# the kinds that are over quickly; `make faults` causes all
KINDS = "sticky_cuda,out_of_memory,server_half,redis_readonly,part_truncated,part_flipped,worker_killed,hang_locked"


@pytest.mark.slow
def test_no_row_is_lost_doubled_or_false() -> None:
    command = [sys.executable, "-m", "bench.faults.run", "--images", "264", "--kinds", KINDS]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, encoding="utf-8", timeout=LONGEST)
    assert done.stdout.splitlines()[-1] == "lost 0 doubled 0 false 0 of 264, faults 9 of 9 kinds", done.stdout
    assert done.returncode == 0, done.stdout


EXPECTED = [described(key, ["car"]) for key in "abcd"]


def changed(**values: Any) -> Any:
    """The first expected row with other values."""
    return EXPECTED[0].model_copy(update=values)


@pytest.mark.parametrize(
    ("found", "counts"),
    [
        (EXPECTED, (0, 0, 0)),
        (EXPECTED[1:], (1, 0, 0)),
        ([*EXPECTED, EXPECTED[0], EXPECTED[0], EXPECTED[1]], (0, 3, 0)),
        ([changed(caption=Caption(text="A lie.", match=0.5)), *EXPECTED[1:]], (0, 0, 1)),
        ([changed(caption=Caption(text="A picture.", match=0.502)), *EXPECTED[1:]], (0, 0, 1)),
        ([EXPECTED[0].failed("captioner", "ValueError", "why"), *EXPECTED[1:]], (0, 0, 1)),
        ([*EXPECTED, described("nobody asked for it")], (0, 0, 1)),
        ([changed(caption=None), EXPECTED[1], EXPECTED[1]], (2, 1, 1)),
        # what an undisturbed run has different too
        ([changed(seconds={"captioner": 9.0}), *EXPECTED[1:]], (0, 0, 0)),
        ([changed(caption=Caption(text="A picture.", match=0.5005)), *EXPECTED[1:]], (0, 0, 0)),
    ],
)
def test_lost_doubled_and_false_rows_are_counted(found: list[Any], counts: tuple[int, int, int]) -> None:
    assert run.compare(EXPECTED, found) == counts


def ask(orders: Orders) -> None:
    """Send a question to the chat server."""
    with chat_server(orders) as server, suppress(httpx.RemoteProtocolError):  # of half a response
        httpx.post(f"{server.url}/chat/completions", json={"messages": [{"role": "user", "content": "?"}]}, timeout=60)


def write(orders: Orders) -> None:
    """Write a file to the store."""
    files = store.FaultyFileSystem(skip_instance_cache=True)
    files._orders = orders
    with pytest.raises(OSError, match="No space"):
        files.pipe_file(str(orders.folder / "file"), b"")


@pytest.mark.parametrize(("kind", "act"), [("server_401", ask), ("server_half", ask), ("disk_full", write)])
def test_a_state_counts_when_a_call_has_failed_for_it(
    kind: str, act: Callable[[Orders], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet: Any = SimpleNamespace(look_after=lambda: None)
    orders = Orders(tmp_path / "orders")
    faults = Schedule(fleet, orders, tmp_path, 1, [kind], (0.0, 0.0))
    faults.beat()
    assert orders.holds(kind) and not faults.caused() and not faults.is_over()
    act(orders)
    faults.beat()
    assert faults.caused() == {kind: 1} and faults.is_over()
    # one for which no call ever fails is given up, and does not count
    monkeypatch.setattr(schedule, "PATIENCE", 0.0)
    idle = Schedule(fleet, Orders(tmp_path / "others"), tmp_path, 1, [kind], (0.0, 0.0))
    idle.beat()
    assert not idle.is_over()
    idle.beat()
    assert idle.is_over() and not idle.caused()
