"""How long `strata serve` takes until it is ready, and the row of a job of one photograph after that.

    python -m bench.start CHECKOUT... [--profile everyday] [--rounds 3]

Each checkout starts in turn, with a data directory of its own. Beside the seconds by the clock, which depend on what
else the machine does, it prints the processor seconds of the service and all its processes until it is ready, and the
memory that they have then (proportional set size).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import psutil  # type: ignore[import-untyped]

from bench.processes import CHECKOUT, free_port, python_path
from strata.processes import leaving_on

PHOTOGRAPH = CHECKOUT / "samples" / "photographs" / "coffee.jpg"
LONGEST = 600.0  # seconds until a service must be ready, and a job must have its first row


def start(checkout: Path, profile: str, folder: Path) -> dict[str, float]:
    """One start and one job, in an empty folder. Raises TimeoutError."""
    port, shard = free_port(), folder / "photographs"
    shard.mkdir()
    shutil.copy(PHOTOGRAPH, shard)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("STRATA_", "REDIS_URL"))},
        "PYTHONPATH": python_path(checkout),
        "STRATA_DATA_DIR": str(folder / "data"),
        "STRATA_SHARD_ROOTS": str(shard),
        "STRATA_PROFILE": profile,
        "STRATA_PORT": str(port),
    }
    began = time.monotonic()
    command = [sys.executable, "-m", "strata", "serve"]
    with (folder / "log").open("wb") as log:
        process = psutil.Popen(command, cwd=checkout, env=environment, stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60.0) as client:
            _wait(lambda: _answer(client, "/readyz").get("workers"), process)
            ready = time.monotonic() - began
            family = [process, *process.children(recursive=True)]
            found = {"ready": ready, "cpu": sum(_cpu(one) for one in family), "mib": sum(map(_mib, family))}
            # the first row of a job, as a client sees it
            began = time.monotonic()
            job = client.post("/v1/batches", json={"input": {"shards": [str(shard)]}}).raise_for_status().json()["id"]
            _wait(lambda: _answer(client, f"/v1/jobs/{job}/results", limit="1").get("rows"), process)
            return {**found, "first row": time.monotonic() - began}
    finally:
        process.terminate()
        process.wait(60)


def _answer(client: httpx.Client, path: str, **parameters: str) -> Mapping[str, Any]:
    """The JSON of an answer; nothing if the service does not answer yet, or has nothing to say."""
    try:
        response = client.get(path, params=parameters)
        if response.status_code != httpx.codes.OK:
            return {}
        if path.endswith("results"):
            return {"rows": response.text.strip()}
        answer: Mapping[str, Any] = json.loads(response.text)
        return answer
    except httpx.TransportError:
        return {}


def _wait(condition: Any, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + LONGEST
    while not condition():
        if time.monotonic() > until or process.poll() is not None:
            raise TimeoutError(f"nothing after {LONGEST:g} s, or the service has ended")
        time.sleep(0.05)


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _mib(process: psutil.Process) -> float:
    try:
        return float(process.memory_full_info().pss) / 2**20
    except psutil.Error:  # it has just ended
        return 0.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkouts", nargs="+", type=Path)
    parser.add_argument("--profile", default="everyday")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    found: dict[Path, list[dict[str, float]]] = {checkout: [] for checkout in options.checkouts}
    for _ in range(options.rounds):
        for checkout, rounds in found.items():
            with leaving_on(signal.SIGTERM), tempfile.TemporaryDirectory() as folder:
                rounds.append(start(checkout.resolve(), options.profile, Path(folder)))
            print(f"{checkout}: {rounds[-1]}; load {os.getloadavg()[0]:.1f}", flush=True)
    for checkout, rounds in found.items():
        middle = {name: round(median(one[name] for one in rounds), 2) for name in rounds[0]}
        print(f"{checkout}, median of {len(rounds)}: {middle}")


if __name__ == "__main__":
    main()
