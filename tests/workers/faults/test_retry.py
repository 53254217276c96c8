"""Pauses and retries."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strata.core.backoff import growing_pause
from workers import retry
from workers.retry import WorkInterrupted, retry_until_done


@given(st.integers(0, 10_000), st.floats(0.001, 10), st.floats(0, 100))
def test_pauses_double_up_to_the_longest(attempt: int, first: float, more: float) -> None:
    longest = first + more
    pause, next_pause = growing_pause(attempt, first, longest), growing_pause(attempt + 1, first, longest)
    assert growing_pause(0, first, longest) == first
    assert first <= pause <= next_pause <= longest
    assert next_pause == min(2 * pause, longest)


class Away:
    """Raises errors in order, then returns "done"."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)

    def __call__(self) -> str:
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def test_errors_that_pass_are_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.001)
    act = Away(OSError("full"), ConnectionError("away"))
    assert retry_until_done(act, (OSError,), threading.Event(), lambda: True) == "done"


@pytest.mark.parametrize("error", [ValueError("broken"), FileNotFoundError("none")])
def test_other_errors_are_raised(error: Exception) -> None:
    with pytest.raises(type(error)):
        retry_until_done(Away(error), (OSError,), threading.Event(), lambda: True)


def test_a_stop_ends_the_pause_at_once_and_nothing_is_tried_again() -> None:
    stop, act = threading.Event(), Away(*[OSError("away")] * 2)
    threading.Timer(0.05, stop.set).start()
    start = time.monotonic()
    with pytest.raises(WorkInterrupted):
        retry_until_done(act, (OSError,), stop, lambda: True)
    assert time.monotonic() - start < retry.FIRST_PAUSE / 2 and len(act.errors) == 1


def test_work_that_is_no_longer_wanted_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.001)
    act = Away(*[OSError("away")] * 2)
    with pytest.raises(WorkInterrupted):
        retry_until_done(act, (OSError,), threading.Event(), lambda: False)
    assert len(act.errors) == 1
