"""Hostile images by POST: each gets a response in time, and each that is taken gets a record or a reason."""

from __future__ import annotations

import base64
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx

from bench.hostile import images
from bench.hostile.jobs import finished
from bench.hostile.service import AttackedService

THREADS = 6
WAIT = 5  # seconds of `Prefer: wait`


def attack_uploads(service: AttackedService, seed: int, count: int) -> None:
    """Post bombs, many at a time, then damaged images as a form or as base64, some of which wait for their record."""
    bombs = list(images.bombs().items())
    damaged = list(images.mutated(seed + 2, max(0, count - len(bombs))))
    rng = random.Random(seed)
    taken: list[str] = []
    with ThreadPoolExecutor(THREADS) as pool:
        for group in (bombs, damaged):
            kinds = [rng.choice(("form", "base64", "wait")) for _ in group]
            answers = pool.map(lambda one: _post(service, *one), zip(group, kinds, strict=True))
            taken += [job for answer in answers if answer is not None for job in _job_of(answer)]
    for _ in finished(service, "uploads", taken):
        pass
    service.tally.done["images"] += count


def _post(service: AttackedService, named: tuple[str, bytes], kind: str) -> httpx.Response | None:
    name, data = named
    if kind == "base64":
        body = {"image_base64": base64.b64encode(data).decode()}
        return service.caller.patiently("uploads", "POST", "/v1/captions", json=body, what=name)
    headers, wait = ({"Prefer": f"wait={WAIT}"}, float(WAIT)) if kind == "wait" else ({}, 0.0)
    files = {"file": ("a.jpg", data)}
    return service.caller.patiently(
        "uploads", "POST", "/v1/captions", files=files, headers=headers, wait=wait, what=name
    )


def _job_of(answer: httpx.Response) -> Sequence[str]:
    """The id of the job of an image that was taken and has no record yet."""
    return [answer.headers["location"].rpartition("/")[2]] if answer.status_code == 202 else []
