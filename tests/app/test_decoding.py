"""Images are decoded with a bound on the pixels in flight; callers beyond it wait, and too many are sent away."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.images.decoding import Decoder, PixelGate
from app.problems import ProblemError
from tests.fakes import jpeg
from tests.service import png


@settings(deadline=None)
@given(weights=st.lists(st.integers(1, 120), min_size=1, max_size=30), leaving=st.sets(st.integers(0, 29)))
def test_never_more_pixels_pass_than_allowed_and_all_get_their_turn(weights: Sequence[int], leaving: set[int]) -> None:
    asyncio.run(_pass_all(weights, leaving))


async def _pass_all(weights: Sequence[int], leaving: set[int]) -> None:
    """Some callers go away at any moment: all others still get their turn, and nothing stays reserved."""
    gate, most = PixelGate(100, max_waiting=1000), 0

    async def one(weight: int) -> None:
        nonlocal most
        async with gate.passing(weight):
            most = max(most, gate.in_flight)
            await asyncio.sleep(0)

    tasks = [asyncio.create_task(one(weight)) for weight in weights]
    for number in sorted(leaving):
        await asyncio.sleep(0)
        if number < len(tasks):
            tasks[number].cancel()
    outcomes = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 60)
    assert all(outcome is None or isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
    assert all(outcomes[number] is None for number in range(len(tasks)) if number not in leaving)
    assert gate.in_flight == 0 and most <= 100


def test_too_many_who_wait_are_sent_away() -> None:
    async def run() -> None:
        gate, go = PixelGate(10, max_waiting=2), asyncio.Event()

        async def one() -> None:
            async with gate.passing(10):
                await go.wait()

        tasks = [asyncio.create_task(one()) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(ProblemError) as caught:
            await one()
        assert caught.value.name == "too-busy" and caught.value.headers["Retry-After"]
        go.set()
        await asyncio.gather(*tasks)

    asyncio.run(run())


def test_an_image_is_measured_before_it_is_decoded_and_refused_if_it_cannot_be() -> None:
    decoder = Decoder(max_pixels=1000)
    try:
        asyncio.run(decoder.check(jpeg(20, 20)))
        for data, kind in ((png(40, 40), "too_many_pixels"), (jpeg()[:200], "truncated"), (b"text", "not_an_image")):
            with pytest.raises(ProblemError, match=kind):
                asyncio.run(decoder.check(data))
        assert decoder.gate.in_flight == 0
    finally:
        decoder.close()
