"""Hostile shards and images through the workers: each job must end, its rows add up, and whole samples come out."""

from __future__ import annotations

import io
import json
import os
import random
import re
import tarfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from bench.hostile import crafted_shards, images, tars
from bench.hostile.service import AttackedService

STALL_SECONDS = 90.0  # in which a job must have one more row: longer than any deadline of the service
SHARDS_A_JOB = 50
LIMIT = 1000  # rows of a page
PLAIN = ("quadrants", "blue over yellow", "one colour", "stripes", "checks")

Row = dict[str, Any]


def attack_tars(service: AttackedService, seed: int, count: int) -> None:
    """Damaged and crafted tars as shards of jobs."""
    folder = service.shards / "tars"
    folder.mkdir()
    shards = list(_hostile_tars(seed, count))
    # a first sample that no other shard has: shards of equal content share their rows, which name one of them
    data = [tars.sample(f"first-{number}") + broken.data for number, (_, broken) in enumerate(shards)]
    for number, content in enumerate(data):
        (folder / f"{number:05d}.tar").write_bytes(content)
    jobs = []
    for first in range(0, count, SHARDS_A_JOB):
        last = min(first + SHARDS_A_JOB, count) - 1
        jobs.append(submit(service, "tars", f"{folder}/{{{first:05d}..{last:05d}}}.tar"))
    places = defaultdict(list)
    for job in finished(service, "tars", [job for job in jobs if job]):
        for row in rows_of(service, "tars", job):
            if row["status"] == "succeeded":
                image = row["image"]
                places[image["uri"]].append((image["offset"], image["size"], row["alt_text"]))
    for number, (name, broken) in enumerate(shards):
        rows = places[str(folder / f"{number:05d}.tar")]
        found = {(data[number][offset : offset + size], text) for offset, size, text in rows}
        lost = [one.text for one in broken.whole if (one.image, one.text) not in found]
        if lost:
            service.tally.add(service.tally.wrong, f"tar {name}: whole samples are lost: {lost}")
    service.tally.done["tars"] += count


def _hostile_tars(seed: int, count: int) -> Iterator[tuple[str, tars.Broken]]:
    """So many tars: crafted ones, then mixed and damaged ones; of some it is known which samples must come out."""
    crafted = [*tars.crafted_shards(), *((name, tars.Broken(data, [])) for name, data in crafted_shards.crafted_tars())]
    yield from crafted[:count]
    mixed = max(0, count - len(crafted)) // 4
    for number in range(mixed):
        yield f"mixed {number}", tars.Broken(crafted_shards.mutated_tar(seed * 10_000 + number), [])
    yield from tars.damaged_shards(seed, max(0, count - len(crafted)) - mixed)


def attack_lists(service: AttackedService) -> None:
    """Crafted lists of images: each is a shard of its own job, because some are refused."""
    folder = service.shards / "lists"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(images.good_images()["jpeg 444"])
    jobs = []
    for name, data in crafted_shards.crafted_lists():
        (folder / name).write_bytes(data)
        body = {"input": {"shards": [str(folder / name)]}, "profile": service.profiles[0]}
        answer = service.caller.patiently("lists", "POST", "/v1/batches", json=body, what=name)
        jobs += [str(answer.json()["id"])] if answer is not None and answer.status_code == 202 else []
    for job in finished(service, "lists", jobs):
        rows_of(service, "lists", job)


def attack_workers(service: AttackedService, seed: int, count: int) -> None:
    """Damaged and crafted images in a folder and in tars, and plain pictures through the demo's stages."""
    half = count // 2
    pictures = [data for _, data in images.mutated(seed, count - half)]
    folder, packed = service.shards / "folder", service.shards / "packed"
    for made in (folder, packed):
        made.mkdir()
    loose = [*images.bombs().values(), *(data for _, data in images.mutated(seed + 1, half))][:half]
    for number, data in enumerate(loose):
        (folder / f"{number:05d}.jpg").write_bytes(data)
    _write_odd_files(folder)
    for first in range(0, len(pictures), 250):
        write_tar(packed / f"{first:05d}.tar", pictures[first : first + 250])
    plain = service.shards / "plain.tar"
    write_tar(plain, list(plain_pictures(seed, max(len(PLAIN), count // 25))))
    jobs = [submit(service, "workers", str(folder)), submit(service, "workers", f"{packed}/*.tar")]
    jobs += [submit(service, "workers", str(plain), profile) for profile in service.profiles[1:]]
    for job in finished(service, "workers", [job for job in jobs if job]):
        rows_of(service, "workers", job)
    service.tally.done["images"] += count
    ask_for_pictures(service, jobs[0])


def _write_odd_files(folder: Path) -> None:
    """What is named as an image and is none: a pipe, links, a folder, and large files, of which most is a hole."""
    os.mkfifo(folder / "a pipe.jpg")
    (folder / "a folder.jpg").mkdir()
    for name, target in (("secret", "/etc/passwd"), ("circle", "a circle.jpg"), ("zeros", "/dev/zero")):
        (folder / f"a {name}.jpg").symlink_to(target)
    for name, size in (("10 GiB", 10 * 2**30), ("600 MiB", 600 * 2**20), ("60 MiB", 60 * 2**20)):
        with (folder / f"{name}.jpg").open("wb") as file:
            file.write(b"\xff\xd8\xff\xe0")
            file.truncate(size)


def ask_for_pictures(service: AttackedService, job: str | None) -> None:
    """Draw the layers on hostile images, and send their bytes back."""
    for number in range(0, 40):
        for path in ("overlay.png", "image"):
            service.caller.send("overlays", "GET", f"/v1/records/{job}/{number:05d}/{path}")


def plain_pictures(seed: int, count: int) -> Iterator[bytes]:
    """So many pictures of few colours, which have no background, or no object, or neither."""
    rng = random.Random(seed)
    for number in range(count):
        width, height = rng.choice([(64, 48), (8, 8), (1, 1), (1, 200), (333, 7), (256, 256)])
        colours = [tuple(rng.randrange(256) for _ in range(3)) for _ in range(4)]
        image = Image.new("RGB", (width, height))
        kind = PLAIN[number % len(PLAIN)]
        image.putdata([colours[_cell(kind, x, y, width, height)] for y in range(height) for x in range(width)])
        yield images.encoded(image, "PNG")


def _cell(kind: str, x: int, y: int, width: int, height: int) -> int:
    """Which of four colours a pixel has."""
    right, low = int(2 * x >= width), int(2 * y >= height)
    cells = {"quadrants": 2 * low + right, "blue over yellow": low, "stripes": x % 4, "checks": (x + y) % 2}
    return cells.get(kind, 0)


def write_tar(path: Path, pictures: Sequence[bytes]) -> None:
    """Write images as a webdataset tar with texts."""
    with tarfile.open(path, "w") as tar:
        for number, data in enumerate(pictures):
            for suffix, content in (("jpg", data), ("txt", f"text {number}".encode())):
                member = tarfile.TarInfo(f"{number:05d}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


# jobs over HTTP


def submit(service: AttackedService, attack: str, pattern: str, profile: str = "fake") -> str | None:
    """Submit shards; the job's id, None if they were refused, which is noted: they exist and lie below the roots."""
    body = {"input": {"shards": [pattern]}, "profile": profile}
    answer = service.caller.patiently(attack, "POST", "/v1/batches", json=body)
    if answer is None or answer.status_code != 202:
        service.tally.add(service.tally.wrong, f"{attack}: {pattern} was refused: {answer and answer.text[:300]}")
        return None
    return str(answer.json()["id"])


def finished(service: AttackedService, attack: str, jobs: Sequence[str]) -> Iterator[str]:
    """Each job when it has ended. One that has no new row for STALL_SECONDS is noted as a hang."""
    left, seen = list(jobs), {job: (0, time.monotonic()) for job in jobs}
    told = time.monotonic()
    while left:
        time.sleep(0.3)
        for job in list(left):
            answer = service.caller.send(attack, "GET", f"/v1/jobs/{job}")
            view = answer.json() if answer is not None and answer.status_code == 200 else None
            if view and view["status"] in ("completed", "failed", "cancelled"):
                left.remove(job)
                check_counts(service, attack, view)
                yield job
                seen = {each: (count, time.monotonic()) for each, (count, _) in seen.items()}
                continue
            counts = view["request_counts"] if view else {}
            done = sum(counts.get(name, 0) for name in ("total", "succeeded", "failed", "filtered"))
            if done != seen[job][0]:
                seen[job] = done, time.monotonic()
            elif time.monotonic() - seen[job][1] > STALL_SECONDS:
                left.remove(job)
                service.tally.add(
                    service.tally.hangs, f"{attack}: job {job}: no new row for {STALL_SECONDS:g} s: {view}"
                )
        if time.monotonic() - told > 10:
            told = time.monotonic()
            print(f"  {attack}: {len(left)} of {len(jobs)} jobs left", flush=True)


def check_counts(service: AttackedService, attack: str, view: Row) -> None:
    """Note a job whose counts do not add up, or that is completed with cancelled images."""
    counts = view["request_counts"]
    ended = counts["succeeded"] + counts["filtered"] + counts["failed"] + counts["cancelled"]
    if counts["total"] != ended or (view["status"] == "completed" and counts["cancelled"]):
        service.tally.add(service.tally.wrong, f"{attack}: job {view['id']}: the counts do not add up: {counts}")


def rows_of(service: AttackedService, attack: str, job: str) -> list[Row]:
    """All rows of a job that has ended, page by page; their number must be that of its counts."""
    rows: list[Row] = []
    address: str | None = f"/v1/jobs/{job}/results?limit={LIMIT}"
    while address:
        answer = service.caller.patiently(attack, "GET", address)
        if answer is None or answer.status_code != 200:
            service.tally.add(service.tally.wrong, f"{attack}: {address}: {answer and answer.text[:200]}")
            break
        rows += map(json.loads, answer.text.splitlines())
        found = re.search(r'<([^>]+)>; rel="next"', answer.headers.get("link", ""))
        address = found[1] if found else None
    answer = service.caller.send(attack, "GET", f"/v1/jobs/{job}")
    counts = answer.json()["request_counts"] if answer is not None else {}
    if len(rows) != sum(counts.get(name, 0) for name in ("succeeded", "filtered", "failed")):
        service.tally.add(service.tally.wrong, f"{attack}: job {job}: {len(rows)} rows, but its counts are {counts}")
    return rows
