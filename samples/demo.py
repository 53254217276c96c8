"""The demo, `python -m samples.demo`: describe a photograph, two drawn scenes and a shard of scenes; read the parts.

Starts `strata serve` with the embedded Valkey on a free port, and stops it at the end, also after an error. The
photograph is described by the profile `everyday`, the drawn scenes by the profile `demo`.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
import pyarrow.parquet as pq
from rich.console import Console
from rich.text import Text

from samples.service import running_service
from strata.cli import exits
from strata.cli.rendering import records as render
from strata.client import ApiError, Client
from strata.components import strata_command
from strata.core import JobStatus, JobView
from strata.errors import JobFailed, ProcessFailed, StrataError

SAMPLES = Path(__file__).resolve().parent
PHOTOGRAPH = SAMPLES / "photographs" / "giraffe-and-zebra.jpg"
SCENES = (SAMPLES / "images" / "one.jpg", SAMPLES / "images" / "two.jpg")
PHOTOGRAPHS_PROFILE, PROFILE = "everyday", "demo"  # of the photograph, and of the drawn scenes
SHARD = SAMPLES / "shards" / "00000.tar"
SHARD_IMAGES = 64


def main() -> None:
    """Run the demo in ./demo-output. The exit code is 0 only if all images of the shard succeeded."""
    signal.signal(signal.SIGTERM, _interrupt)
    console = Console() if sys.stdout.isatty() else Console(width=120)
    try:
        code = run(Path("demo-output").resolve(), console)
    except (ApiError, httpx.HTTPError) as error:
        console.print(Text(f"demo: {error}; the service's log is demo-output/serve.log", "red"))
        code = exits.REQUEST_REFUSED
    except StrataError as error:
        console.print(Text(f"demo: {error}", "red"))
        code = exits.code_of(error) or exits.FAILURE
    except KeyboardInterrupt:
        code = 130
    raise SystemExit(code)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def run(folder: Path, console: Console) -> int:
    """Run the demo's steps; return the exit code. Raises StrataError and httpx.HTTPError."""
    for profile in (PHOTOGRAPHS_PROFILE, PROFILE):
        fetched = subprocess.run(strata_command("models", "fetch", profile), check=False)
        if fetched.returncode:
            raise ProcessFailed(f"the weights of the profile {profile} could not be fetched", fetched.returncode)
    # a fresh store, so that everything is computed
    shutil.rmtree(folder / "data", ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    with ExitStack() as stack:
        with console.status("starting Strata: embedded Valkey, workers, models"):
            client = stack.enter_context(running_service(folder, SHARD.parent))
        console.print(f"ready after {time.monotonic() - begin:.1f} s")
        # 1. single images
        _caption_image(client, PHOTOGRAPH, PHOTOGRAPHS_PROFILE, folder, console)
        for scene in SCENES:
            _caption_image(client, scene, PROFILE, folder, console)
        console.rule(f"a shard of {SHARD_IMAGES} drawn scenes", align="left")
        # 2. a shard as a job
        job = _run_shard(client, console)
        if job.status is not JobStatus.COMPLETED or job.request_counts.succeeded != SHARD_IMAGES:
            for row in list(client.failures(job.id))[:10]:
                console.print(Text(render.failure_line(row), "red"))
            raise JobFailed(f"not all of {SHARD_IMAGES} images succeeded")
        # 3. its parts
        _show_parts(folder / "data" / "store" / "parts" / "llm", console)
        console.rule("the same shard again", align="left")
        # 4. the same job again, from the parts
        _run_again(client, console)
    console.print(Text("\nStopped all that was started. Overlays, parts and the log are in demo-output/.", "green"))
    return 0


def _caption_image(client: Client, image: Path, profile: str, folder: Path, console: Console) -> None:
    """Describe one image, print its layers and save its overlay. Raises JobFailed if it is not described in time."""
    console.rule(f"one image: {image.name}", align="left")
    begin = time.monotonic()
    answer = client.captioned(image, profile=profile, wait=120)
    if answer.record is None or answer.job_id is None:
        raise JobFailed(f"{image.name} was not described within two minutes")
    seconds = time.monotonic() - begin
    console.print(render.layers_tree(answer.record, image.name))
    path = folder / f"{image.stem}.overlay.png"
    path.write_bytes(client.overlay(answer.job_id, answer.record.key))
    console.print(Text(f"answered in {seconds:.1f} s; overlay: {path}"), soft_wrap=True)


def _run_shard(client: Client, console: Console) -> JobView:
    """Submit the shard, follow the job, print its counts and rate."""
    job = client.submit([str(SHARD)], PROFILE, metadata={"from": "demo"})
    job = render.follow(client.watch(job.id, poll=0.5), console) or job
    counts = job.request_counts
    ends = (counts.succeeded, counts.filtered, counts.failed, counts.cancelled)
    sums = "{} succeeded + {} filtered + {} failed + {} cancelled".format(*ends)
    console.print(Text(f"job {job.id} {job.status}: {counts.total} = {sums}"), soft_wrap=True)
    if job.started_at and job.finished_at:
        seconds = (job.finished_at - job.started_at).total_seconds()
        console.print(f"{seconds:.1f} s, {counts.total / max(seconds, 1e-3):.1f} images/s")
    return job


def _show_parts(folder: Path, console: Console) -> None:
    """Print the paths of the shard's parts, and one row of them, read with plain pyarrow."""
    # the folder also has the parts of the single images
    rows: list[dict[str, Any]] = []
    for path in sorted(folder.rglob("*.parquet")):
        own = [row for row in pq.read_table(path).to_pylist() if row["image"]["uri"].endswith(SHARD.name)]
        if own:
            console.print(Text(f"part: {path} ({len(own)} rows)"), soft_wrap=True)
        rows += own
    console.print(f"pyarrow reads {len(rows)} rows; the one with the most regions, in short:")
    if len({row["key"] for row in rows}) != SHARD_IMAGES or len(rows) != SHARD_IMAGES:
        raise JobFailed(f"the parts hold {len(rows)} rows, not {SHARD_IMAGES}")
    row = max(rows, key=lambda row: len(row["regions"]))
    short = {
        "key": row["key"],
        "alt_text": row["alt_text"],
        "caption": row["caption"] and row["caption"]["text"],
        "regions": [region["phrase"] for region in row["regions"] if region["kept"]],
        "objects": [thing["phrase"] for thing in row["objects"] if thing["kept"]],
        "text": [line["text"] for line in row["text"] if line["kept"]],
        "description": row["description"] and row["description"]["text"],
    }
    for name, value in short.items():
        console.print(Text(f"  {name}: {render.clean(str(value))}"), soft_wrap=True)


def _run_again(client: Client, console: Console) -> None:
    """Submit the same shard again. Raises StrataExit if anything is computed although all parts exist."""
    begin = time.monotonic()
    job = _run_shard(client, console)
    seconds = time.monotonic() - begin
    groups = [job.groups[name] for name in render.SHOWN_GROUPS]
    if job.status is not JobStatus.COMPLETED or any(group.reused != group.images for group in groups):
        raise JobFailed("the second submission computed parts that were there")
    chunks = sum(group.chunks for group in groups)
    console.print(f"done in {seconds:.1f} s: all {chunks} parts were there, nothing was computed")


if __name__ == "__main__":
    main()
