"""Images of requests are decoded in turn by processes; too many that wait are sent away."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from app.images import decoding
from app.images.decoding import MAX_WAITING, PICTURE_PIXELS, PROCESSES, Decoder
from app.problems import ProblemError
from strata.images import DecodersUnavailable, DecodingPool, ImageError
from strata.images.pool import Budget
from strata.images.process import Wanted
from strata.queue import Queue
from tests.fakes import jpeg
from tests.service import png, running_service


def test_an_image_is_refused_if_it_cannot_be_decoded() -> None:
    decoder = Decoder(max_pixels=1000)
    try:
        asyncio.run(decoder.checked(jpeg(20, 20)))
        for data, kind in ((png(40, 40), "too_many_pixels"), (jpeg()[:200], "truncated"), (b"text", "not_an_image")):
            with pytest.raises(ProblemError, match=kind) as caught:
                asyncio.run(decoder.checked(data))
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
            tasks = [asyncio.create_task(decoder.checked(png(8, 8))) for _ in range(PROCESSES + MAX_WAITING)]
            await asyncio.sleep(0)
            with pytest.raises(ProblemError) as caught:
                await decoder.checked(png(8, 8))
            assert caught.value.name == "too-busy" and caught.value.response().headers["Retry-After"]
            # a caller that goes away while it waits makes room at once
            tasks[-1].cancel()
            await asyncio.wait([tasks[-1]])
            tasks[-1] = asyncio.create_task(decoder.checked(png(8, 8)))
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
            first = asyncio.create_task(decoder.checked(png(8, 8) + bytes(200)))  # one passes, whatever its size
            await asyncio.sleep(0)
            with pytest.raises(ProblemError, match="wait to be decoded"):
                await decoder.checked(png(8, 8))
            await first
            await decoder.checked(png(8, 8))
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
            asyncio.run(decoder.checked(png(8, 8)))
        assert caught.value.name == "too-busy"
    finally:
        decoder.close()


def test_a_large_picture_is_shrunk_before_it_is_drawn_on() -> None:
    assert inspect.signature(Decoder.use).parameters["most"].default == PICTURE_PIXELS
    decoder = Decoder(10_000)
    try:
        assert asyncio.run(decoder.use(png(80, 80), lambda image: image.size, most=2000)) == (40, 40)
    finally:
        decoder.close()


def test_an_upload_is_decoded_once_and_within_the_budget(
    queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[bytes] = []
    held: list[tuple[int, int]] = []  # bytes that are held while an image is decoded, and those that it needs
    ask = DecodingPool._asked

    def noted(pool: DecodingPool, files: Sequence[bytes], wanted: Sequence[Wanted]) -> list[Image.Image | ImageError]:
        decoded.extend(files)
        held.append((pool.budget.in_use, wanted[0].memory))
        return ask(pool, files, wanted)

    monkeypatch.setattr(DecodingPool, "_asked", noted)
    images = [jpeg(40 + number, 30) for number in range(6)]
    with running_service(queue, tmp_path, workers=False) as service:
        assert service.caption(images[0], wait=None).status_code == 202
        (only,) = held
        assert only[0] == only[1] > 3 * 40 * 30
        # with a budget for one image, two are never decoded at the same time, whoever sends them
        budget = service.client.app.state.services.decoder.pool.budget = Budget(1)  # type: ignore[attr-defined]
        with ThreadPoolExecutor(len(images)) as threads:
            answers = list(threads.map(lambda data: service.caption(data, wait=None).status_code, images[1:]))
    assert answers == [202] * 5 and sorted(decoded) == sorted(images)
    assert [one[0] for one in held[1:]] == [1] * 5 and (budget.most, budget.in_use) == (1, 0)
