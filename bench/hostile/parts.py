"""Broken parts: flipped bits must be noticed, and each kind of broken part computed again with the same rows."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.hostile.jobs import finished, submit
from bench.hostile.service import AttackedService
from bench.hostile.tally import DEADLINE
from bench.inputs.tiny_shards import write_shard
from strata.core import ShardSummaries
from strata.store import BrokenPart, Part, Source, Store

IMAGES = 1000  # four parts of each group

Rows = list[dict[str, Any]]
Damage = Callable[[Path, random.Random], object]


def attack_parts(service: AttackedService, seed: int, flips: int) -> None:
    """Flip single bits of parts, each of which must be noticed; then break parts of a job in every way."""
    rng, store = random.Random(seed + 6), service.store
    write_shard(service.shards / "whole.tar", 0, IMAGES)
    job = submit(service, "parts", str(service.shards / "whole.tar"))
    if job is None:
        return
    list(finished(service, "parts", [job]))
    _flip_bits(service, store, rng, flips)
    expected = _results(service, job)
    for name, damage in DAMAGES.items():
        _break(service, store, job, expected, name, damage, rng)


def _flip_bits(service: AttackedService, store: Store, rng: random.Random, flips: int) -> None:
    """Read parts of all groups with one flipped bit each, in a store of their own."""
    paths = [path for path in store.find("parts") if Part.find(path) is not None]
    copy, noticed = Store(str(service.folder / "flipped")), 0
    for _ in range(flips):
        path = rng.choice(paths)
        data = bytearray(store.get(store.path(path)))
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        copy.put(copy.path(path), bytes(data))
        try:
            copy.check(Source(Part.parse(path), path))
        except BrokenPart:
            noticed += 1
    service.tally.done["flips"] += flips
    print(f"  parts: {noticed} of {flips} flipped bits were noticed", flush=True)
    if noticed < flips:
        service.tally.add(service.tally.wrong, f"parts: {flips - noticed} of {flips} flipped bits were not noticed")


def _flip(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def _cut(path: Path, rng: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(len(data))])


def _exchange(path: Path, rng: random.Random) -> None:
    others = [other for other in path.parents[3].rglob("*.parquet") if other != path and other.is_file()]
    path.write_bytes(rng.choice(others).read_bytes())


def _fold(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, Damage] = {
    "flipped": _flip,
    "cut": _cut,
    "empty": lambda path, rng: path.write_bytes(b""),
    "deleted": lambda path, rng: path.unlink(),
    "of another chunk": _exchange,
    "noise": lambda path, rng: path.write_bytes(rng.randbytes(5000)),
    "a folder": _fold,
}


def _break(
    service: AttackedService, store: Store, job: str, expected: Rows, name: str, damage: Damage, rng: random.Random
) -> None:
    """Break the parts of one chunk in all groups; the job's results must come back as they were, and never shorter."""
    number = rng.randrange(IMAGES // 256)
    broken = [path for path in _parts_of(store, job) if "index" in path.parts or path.stem == f"{number:05d}"]
    for path in broken:
        damage(path, rng)
    until = time.monotonic() + 2 * DEADLINE
    while time.monotonic() < until:
        # a record needs the index part too
        service.caller.send("parts", "GET", f"/v1/records/{job}/{rng.randrange(IMAGES):09d}")
        answer = service.caller.send("parts", "GET", f"/v1/jobs/{job}/results?limit={IMAGES}")
        view = service.caller.send("parts", "GET", f"/v1/jobs/{job}")
        ended = view is not None and view.json()["status"] == "completed"
        if answer is not None and answer.status_code == 200 and ended:
            if _rows(answer.text) == expected:
                return
            rows = len(answer.text.splitlines())
            told = f"parts: {name}: {rows} rows of {IMAGES}, or other ones than before, while the job is completed"
            service.tally.add(service.tally.wrong, told)
            return
        time.sleep(0.2)
    service.tally.add(service.tally.hangs, f"parts: {name}: not computed again within {2 * DEADLINE:g} s")


def _parts_of(store: Store, job: str) -> list[Path]:
    """The parts of the shard of a job, of all groups."""
    kept = store.parse_job_file(job, "shards", ShardSummaries)
    identities = {summary.identity for summary in kept.shards} if kept else set()
    return [Path(store.path(path)) for path in store.find("parts") if path.split("/")[3] in identities]


def _rows(text: str) -> Rows:
    """The rows of a response, without what differs between two runs."""
    return [
        {name: value for name, value in json.loads(line).items() if name != "seconds"} for line in text.splitlines()
    ]


def _results(service: AttackedService, job: str) -> Rows:
    answer = service.caller.send("parts", "GET", f"/v1/jobs/{job}/results?limit={IMAGES}")
    return _rows(answer.text) if answer is not None else []
