"""CaptionFlow: its index of the shards, its orchestrator and its workers; a worker that was killed is started again.

It ends when the orchestrator has stored a row for each image, or when the workers have ended because three times in a
row, 10 s apart, there was no work for them. Its rows are then copied from its Lance dataset into a Parquet file.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from argparse import Namespace
from contextlib import suppress
from pathlib import Path
from typing import Any

import lance
import pyarrow.parquet as pq
import webshart

from bench.peers.scripts.options import options
from bench.peers.scripts.stage import BATCH

CHUNK = 128  # images, as many as Strata's chunks have here
BUFFER = 50  # rows that the orchestrator writes at once: of a job of 64 images, too, and whole at the end of the others
LOOK_SECONDS = 0.1


def index(shards: Path, folder: Path) -> int:
    """Let webshart index the shards, and return the number of their images."""
    metadata = folder / "metadata"
    if not metadata.exists():
        unfinished = folder / "metadata.tmp"
        webshart.MetadataExtractor().extract_metadata(source=str(shards), destination=str(unfinished))
        unfinished.rename(metadata)
    found = webshart.discover_dataset(source=str(shards), metadata=str(metadata))
    return sum(int(found.get_shard_info(number)["num_samples"]) for number in range(found.num_shards))


def config(folder: Path, shards: Path, port: int) -> dict[str, Any]:
    """The orchestrator's: so many chunks are ready that no worker waits for its thread, which looks every 5 s."""
    return {
        "host": "127.0.0.1",
        "port": port,
        "chunk_size": CHUNK,
        "min_chunk_buffer": 1_000_000,
        "cache_dir": str(folder / "cache"),
        "dataset": {
            "processor_type": "webdataset",
            "dataset_path": str(shards),
            "metadata_path": str(folder / "metadata"),
        },
        "vllm": {"model": "peer", "batch_size": BATCH, "inference_prompts": ["{column:_filename}"]},
        "storage": {
            "data_dir": str(folder / "data"),
            "checkpoint_dir": str(folder / "checkpoints"),
            "caption_buffer_size": BUFFER,
        },
        "auth": {"worker_tokens": [{"token": "peer", "name": "peer"}]},
    }


def start(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    """Start a module in the folder, with its logs there."""
    return subprocess.Popen(
        [sys.executable, "-m", *words], cwd=folder, env={**os.environ, "CAPTIONFLOW_LOG_DIR": str(folder)}
    )


class Fleet:
    """Orchestrator and workers."""

    def __init__(self, folder: Path, given: Namespace) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        settings = folder / "orchestrator.yaml"  # JSON is YAML
        settings.write_text(json.dumps({"orchestrator": config(folder, given.shards, port)}), encoding="utf-8")
        self.orchestrator = start(folder, "caption_flow.cli", "orchestrator", "--config", str(settings), "--no-ssl")
        _await(port, self.orchestrator)
        words = [f"--server=ws://127.0.0.1:{port}", f"--calls={given.calls}", f"--seconds={given.seconds}"]
        words += ["--demo"] if given.demo else []
        self._commands = [
            ("bench.peers.scripts.captionflow_worker", f"--number={number}", *words) for number in range(given.workers)
        ]
        self._workers = [start(folder, *command) for command in self._commands]

    def is_working(self) -> bool:
        """Whether a worker runs; one that was killed is started again."""
        for number, worker in enumerate(self._workers):
            if worker.poll():
                self._workers[number] = start(self.folder, *self._commands[number])
        return self.orchestrator.poll() is None and any(worker.poll() is None for worker in self._workers)

    def end(self) -> None:
        """End the workers; the orchestrator writes what it holds and ends."""
        for worker in self._workers:
            worker.kill()
        self.orchestrator.send_signal(signal.SIGINT)
        self.orchestrator.wait()


def _await(port: int, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(LOOK_SECONDS)
    raise SystemExit("the orchestrator has ended")


def rows(data: Path) -> int:
    """The number of rows that are stored."""
    with suppress(ValueError, OSError):  # there is no dataset yet
        return int(lance.dataset(str(data)).count_rows())
    return 0


def export(data: Path, out: Path) -> None:
    """Copy the rows."""
    table = lance.dataset(str(data)).to_table(columns=["item_key", "captions"]).rename_columns(["key", "caption"])
    unfinished = out / "rows.tmp"
    pq.write_table(table, unfinished)
    unfinished.rename(out / "rows.parquet")


def main() -> None:
    """Describe what is missing."""
    given = options(__doc__)
    folder = given.out.resolve() / "captionflow"
    given.shards, given.calls = given.shards.resolve(), given.calls.resolve()
    folder.mkdir(exist_ok=True)
    images, data, seen = index(given.shards, folder), folder / "data" / "captions.lance", False
    fleet = Fleet(folder, given)
    while fleet.is_working() and (stored := rows(data)) < images:
        if stored and not seen:
            export(data, given.out)
            seen = True
        time.sleep(LOOK_SECONDS)
    fleet.end()
    export(data, given.out)


if __name__ == "__main__":
    main()
