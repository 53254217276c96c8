"""Images of requests are decoded in turn by processes; too many that wait are sent away."""

from __future__ import annotations

import asyncio
import threading

import pytest

from app.images import decoding
from app.images.decoding import MAX_WAITING, PROCESSES, Decoder
from app.problems import ProblemError
from strata.images import DecodersUnavailable
from tests.fakes import jpeg
from tests.service import png


def test_an_image_is_refused_if_it_cannot_be_decoded() -> None:
    decoder = Decoder(max_pixels=1000)
    try:
        asyncio.run(decoder.check(jpeg(20, 20)))
        for data, kind in ((png(40, 40), "too_many_pixels"), (jpeg()[:200], "truncated"), (b"text", "not_an_image")):
            with pytest.raises(ProblemError, match=kind) as caught:
                asyncio.run(decoder.check(data))
            assert caught.value.name == "invalid-image"
        assert decoder.waiting == 0
    finally:
        decoder.close()


def test_too_many_who_wait_are_sent_away_and_those_who_leave_make_room() -> None:
    async def run() -> None:
        decoder, go = Decoder(10_000), threading.Event()
        monkey = decoder.pool.check

        def wait_and_check(data: bytes) -> None:
            go.wait(60)
            monkey(data)

        decoder.pool.check = wait_and_check  # type: ignore[method-assign]
        try:
            tasks = [asyncio.create_task(decoder.check(png(8, 8))) for _ in range(PROCESSES + MAX_WAITING)]
            await asyncio.sleep(0)
            with pytest.raises(ProblemError) as caught:
                await decoder.check(png(8, 8))
            assert caught.value.name == "too-busy" and caught.value.headers["Retry-After"]
            # a caller that goes away while it waits makes room at once
            tasks[-1].cancel()
            await asyncio.wait([tasks[-1]])
            tasks[-1] = asyncio.create_task(decoder.check(png(8, 8)))
            await asyncio.sleep(0)
            go.set()
            await asyncio.wait_for(asyncio.gather(*tasks), 60)
            assert decoder.waiting == 0
        finally:
            decoder.close()

    asyncio.run(run())


def test_the_bytes_of_those_who_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        decoder = Decoder(10_000)
        monkeypatch.setattr(decoding, "WAITING_BYTES", 100)
        try:
            first = asyncio.create_task(decoder.check(png(8, 8) + bytes(200)))  # one passes, whatever its size
            await asyncio.sleep(0)
            with pytest.raises(ProblemError, match="wait to be decoded"):
                await decoder.check(png(8, 8))
            await first
            await decoder.check(png(8, 8))
        finally:
            decoder.close()

    asyncio.run(run())


def test_decoders_that_are_ended_from_outside_are_no_fault_of_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = Decoder(10_000)

    def fail(data: bytes) -> None:
        raise DecodersUnavailable("ended by SIGKILL")

    monkeypatch.setattr(decoder.pool, "check", fail)
    try:
        with pytest.raises(ProblemError, match="SIGKILL") as caught:
            asyncio.run(decoder.check(png(8, 8)))
        assert caught.value.name == "too-busy"
    finally:
        decoder.close()


def test_a_large_picture_is_shrunk_before_it_is_drawn_on(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = Decoder(10_000)
    monkeypatch.setattr(decoding, "PICTURE_PIXELS", 2000)
    try:
        assert asyncio.run(decoder.use(png(80, 80), lambda image: image.size)) == (40, 40)
    finally:
        decoder.close()
