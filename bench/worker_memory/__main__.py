"""`python -m bench.worker_memory [CASE …]`: the memory of a worker with the demo's models on images that cost much.

A service and one worker process for all groups. Each case is a folder, and a job over it. Told is the largest
proportional set size of the worker with its decoding processes while the job runs, above that with loaded models. At
most 1,024 MiB are promised.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from bench.processes import CHECKOUT, Fleet
from bench.worker_memory.large_images import pages, panoramas, photographs, write_images, write_padded
from bench.worker_memory.resident import memory, peak_memory
from strata.client import Client

MIB = 2**20
PROFILE = CHECKOUT / "models" / "profiles" / "demo.toml"
CHUNK = 256  # images of a chunk here, so that all files of a folder are one chunk
CASES: dict[str, Callable[[Path], None]] = {
    "256 files of 40 MB": lambda folder: write_padded(folder, CHUNK),
    "16 pages of dense text": lambda folder: write_images(folder, pages(16)),
    "16 photographs of 12 megapixels": lambda folder: write_images(folder, photographs(16, (4000, 3000))),
    "8 photographs of 24 megapixels": lambda folder: write_images(folder, photographs(8)),
    "6 panoramas of 20,000×1,500": lambda folder: write_images(folder, panoramas(6)),
}


def measure(folder: Path, cases: list[str]) -> None:
    """Print a row for each case."""
    # the demo's profile, but with larger chunks
    profiles = folder / "profiles"
    profiles.mkdir()
    profile = PROFILE.read_text(encoding="utf-8").replace("chunk_size = 16", f"chunk_size = {CHUNK}")
    (profiles / "demo.toml").write_text(profile, encoding="utf-8")
    settings = {"STRATA_PROFILES_DIR": str(profiles), "STRATA_PROFILE": "demo"}
    arguments = [["worker", "--groups", "index,vision,llm"]]
    with Fleet(folder, str(folder), arguments, settings, worker="strata") as fleet, Client(fleet.url) as client:
        fleet.wait_ready(300)
        process = psutil.Process(fleet.workers[0].pid)
        print(f"| loaded models | {memory(process) / MIB:.0f} MiB |", flush=True)
        for case in cases:
            images = folder / "images" / str(list(CASES).index(case))
            CASES[case](images)
            start = time.perf_counter()
            with peak_memory(process) as found:
                view = client.wait(client.submit([str(images)]).id, poll=0.5)
            counts = view.request_counts
            print(
                f"| {case} | {(found[1] - found[0]) / MIB:.0f} MiB above {found[0] / MIB:.0f} |"
                f" {counts.succeeded} succeeded, {counts.failed} failed, {time.perf_counter() - start:.0f} s |",
                flush=True,
            )


def main() -> None:
    """Measure the cases that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", choices=[[], *CASES], help="all, if none is given")
    options = parser.parse_args()
    print(f"load before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", flush=True)
    with tempfile.TemporaryDirectory() as work:
        measure(Path(work), options.cases or list(CASES))


if __name__ == "__main__":
    main()
