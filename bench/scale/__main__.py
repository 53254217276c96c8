"""`python -m bench.scale`: as many images as CC3M through a real service, compared with two task queues; scaling.

1. 332 shards of 10,000 images (one real tar of tiny JPEGs, and copies of it with other ends) are submitted to a
   service whose workers' groups do nothing (`bench.fakes.null_group` says what is left out): index, schedule, drain;
   the same again with other fingerprints, so that the index parts are there; and the index alone.
2. Celery and taskiq with one message per image on the same kind of server (`bench.scale.queue_libraries`).
3. Images/s of two and of sixteen worker processes over one's, on stages that only wait (`bench.scale.workers`).

Clocks start when all workers have announced that they are ready. Linux only: memory peaks are read from /proc.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from bench.inputs.tiny_shards import write_shard
from bench.processes import Fleet
from bench.scale.queue_libraries import Celery, QueueRates, Taskiq, measure
from bench.scale.workers import scaling
from strata.client import Client
from strata.core import JobView
from strata.queue import Queue

SHARDS, IMAGES = 332, 10_000  # of CC3M
WORKERS = (["--groups", "index,vision,llm"],) * 3  # one more than cores, since each sometimes waits for the disk
INDEXERS = (["--groups", "index"], ["--groups", "index"])
MIB = 2**20
Figures = dict[str, float]


def make_shards(folder: Path, shards: int, images: int) -> list[str]:
    """Write one tar, and copies with more zeros at the end: shards of one content would share their parts."""
    first = folder / "00000.tar"
    write_shard(first, 0, images)
    for number in range(1, shards):
        copy = Path(shutil.copyfile(first, folder / f"{number:05d}.tar"))
        os.truncate(copy, copy.stat().st_size + 512 * number)
    return [str(folder / f"{number:05d}.tar") for number in range(shards)]


def run_job(client: Client, shards: list[str], profile: str, done: Callable[[JobView], bool]) -> tuple[float, JobView]:
    """Submit a job and wait for its end; return seconds and the job. Prints the progress every ten seconds."""
    began = told = time.monotonic()
    job_id = client.submit(shards, profile=profile).id
    while not done(view := client.job(job_id)):
        if time.monotonic() - told > 10:
            told = time.monotonic()
            far = ", ".join(f"{group} {progress.images:,}" for group, progress in view.groups.items())
            print(f"  {profile} {told - began:4.0f} s: {far}", flush=True)
        time.sleep(0.25)
    return time.monotonic() - began, view


def finished(view: JobView) -> bool:
    """Whether the job has ended. Raises RuntimeError if not all of its images succeeded."""
    if not view.status.final:
        return False
    counts = view.request_counts
    if view.status != "completed" or counts.total != counts.succeeded or view.groups["llm"].reused:
        raise RuntimeError(f"the job ended otherwise than it should: {view.model_dump_json()}")
    return True


def whole(folder: Path, shards: list[str], images: int, workers: Sequence[list[str]]) -> Figures:
    """Run both jobs on one fleet; also return the peak memory of its processes."""
    settings = {"STRATA_PROFILE": "null-1"}
    with Fleet(folder / "whole", str(Path(shards[0]).parent), workers, settings, "bench.fakes.null_group") as fleet:
        fleet.wait_ready()
        queue = Queue(fleet.server.url)
        with Client(fleet.url) as client:
            # the first job also indexes the shards
            seconds, view = run_job(client, shards, "null-1", finished)
            # the second has other fingerprints, and finds the index parts
            before = processor_seconds(fleet)
            again, second = run_job(client, shards, "null-2", finished)
            spent = {name: after - before[name] for name, after in processor_seconds(fleet).items()}
        assert view.request_counts.succeeded == second.request_counts.succeeded == images
        figures = {
            "images": images,
            "index, schedule and drain, seconds": seconds,
            "index, schedule and drain, images/s": images / seconds,
            "schedule and drain, seconds": again,
            "schedule and drain, images/s": images / again,
            **{f"schedule and drain, CPU seconds of {name}": cpu for name, cpu in spent.items()},
            "parts of both jobs": float(sum(1 for _ in Path(fleet.store, "parts").rglob("*.parquet"))),
            "peak memory of Redis, MiB": queue.peak_memory() / MIB,
            "peak memory of the API process, MiB": peak_memory(fleet.api.pid),
        }
        for number, worker in enumerate(fleet.workers):
            figures[f"peak memory of worker {number}, MiB"] = peak_memory(worker.pid)
    return figures


def index_alone(folder: Path, shards: list[str], images: int) -> Figures:
    """The images/s of two processes that only index."""
    settings = {"STRATA_PROFILE": "null-1"}
    with Fleet(folder / "index", str(Path(shards[0]).parent), INDEXERS, settings, "bench.fakes.null_group") as fleet:
        fleet.wait_ready()
        with Client(fleet.url) as client:
            seconds, _ = run_job(client, shards, "null-1", lambda view: view.shards.indexed == len(shards))
    return {"index alone, seconds": seconds, "index alone, images/s": images / seconds}


def peak_memory(pid: int) -> float:
    """A process's peak resident memory in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def processor_seconds(fleet: Fleet) -> Figures:
    """The CPU seconds of each process of a fleet; more reliable than wall-clock time on a machine with other load."""
    pids = {"Redis": fleet.server.pid, "the API process": fleet.api.pid}
    pids |= {f"worker {number}": worker.pid for number, worker in enumerate(fleet.workers)}
    times = {name: psutil.Process(pid).cpu_times() for name, pid in pids.items()}
    return {name: spent.user + spent.system for name, spent in times.items()}


def told(rates: QueueRates) -> Figures:
    """The rates of a library by name."""
    name = rates.name
    return {
        f"{name}: messages": rates.messages,
        f"{name}: publish, first half, messages/s": rates.publish[0],
        f"{name}: publish, second half, messages/s": rates.publish[1],
        f"{name}: drain, first half, messages/s": rates.drain[0],
        f"{name}: drain, second half, messages/s": rates.drain[1],
        f"{name}: whole, images/s": rates.whole,
        f"{name}: Redis bytes an image": rates.bytes_each,
    }


def ratios(figures: Figures) -> Figures:
    """The ratios of our rates to theirs, where both were measured."""
    ours, found = ("index, schedule and drain", "schedule and drain"), {}
    for library in (Celery.name, Taskiq.name):
        for own in ours:
            if f"{library}: whole, images/s" in figures and f"{own}, images/s" in figures:
                ratio = figures[f"{own}, images/s"] / figures[f"{library}: whole, images/s"]
                found[f"{own} over {library}'s whole"] = ratio
    return found


def table(figures: Figures) -> str:
    """Format the figures as lines of a Markdown table."""
    return "\n".join(f"| {name} | {value:,.{0 if value >= 100 else 2}f} |" for name, value in figures.items())


def parts(options: argparse.Namespace, folder: Path) -> Iterator[Figures]:
    """Run the selected parts; yield the figures of each when it ends."""
    if "cc3m" in options.parts:
        print(f"{options.shards} shards of {options.images} images", flush=True)
        shards, images = make_shards(folder / "shards", options.shards, options.images), options.shards * options.images
        workers = [["--groups", groups] for groups in options.workers] or list(WORKERS)
        yield whole(folder, shards, images, workers)
        yield index_alone(folder, shards, images)
    if "libraries" in options.parts:
        for library, messages in ((Celery, options.celery), (Taskiq, options.taskiq)):
            print(f"{library.name}: {messages} messages", flush=True)
            yield told(measure(library, messages, folder / library.name))
    if "workers" in options.parts:
        yield scaling(folder / "scaling")


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="cc3m,libraries,workers", help="comma-separated: what to measure")
    parser.add_argument("--shards", type=int, default=SHARDS)
    parser.add_argument("--images", type=int, default=IMAGES, help="of a shard")
    parser.add_argument("--workers", nargs="*", default=[], metavar="GROUPS", help="the groups of each worker process")
    parser.add_argument("--celery", type=int, default=10_000, help="messages through Celery")
    parser.add_argument("--taskiq", type=int, default=30_000, help="messages through taskiq")
    parser.add_argument("--folder", type=Path, help="where to work instead of the system's temporary folder")
    parser.add_argument("--json", type=Path, help="a file that gets the figures as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="scale-", dir=options.folder) as folder:
        # print every part when it ends: all of them take long
        figures: Figures = {}
        for part in parts(options, Path(folder)):
            figures |= part
            print(table(part), flush=True)
    print(table(ratios(figures)))
    figures |= ratios(figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
