"""`make demo-train`: describe the demo's shard, make a snapshot, train a tiny model on a CPU, and plot its losses.

The training is killed with SIGKILL before its end and started again; the steps that are logged twice must have equal
losses. Everything is written to demo-output/training, which is deleted at the start.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.text import Text

from samples.demo import SHARD
from samples.service import running_service
from samples.training.vision_tower import SIDE, tower_config
from strata.cli import exits
from strata.cli.rendering import records as render
from strata.client import ApiError
from strata.components import strata_command
from strata.consoles import PlainConsole
from strata.core import JobStatus
from strata.data import snapshot_source
from strata.errors import JobFailed, ProcessFailed, StrataError
from strata.snapshots import Selection, Snapshot, Snapshots
from strata.store import PartsOf, Store
from training.config import Config, load_config
from training.losses import LossLog, running_means
from training.tiny import build_processor, save_start
from training.trainer import last_checkpoint, step_of

CHECKOUT = Path(__file__).resolve().parents[1]
CONFIG = CHECKOUT / "training" / "configs" / "demo.toml"
FOLDER = CHECKOUT / "demo-output" / "training"
SNAPSHOT, LEVELS = "demo", ("description", "caption")
KILLED = 0.45  # the training is killed after this share of the steps


def main() -> None:
    """Run the demo. The exit code is 0 only if the loss fell and the resumed run had the same losses."""
    console = PlainConsole(width=None if sys.stdout.isatty() else 120)
    try:
        run(console)
    except (ApiError, httpx.HTTPError) as error:
        console.print(Text(f"demo-train: {error}; the service's log is {FOLDER}/serve.log", "red"))
        raise SystemExit(exits.REQUEST_REFUSED) from None
    except StrataError as error:
        console.print(Text(f"demo-train: {error}", "red"))
        raise SystemExit(exits.code_of(error)) from None


def run(console: Console) -> None:
    """Run the demo's steps. Raises StrataError and httpx.HTTPError."""
    begin = time.monotonic()

    def began(phase: str) -> None:
        console.rule(f"{phase} (after {time.monotonic() - begin:.0f} s)", align="left")

    shutil.rmtree(FOLDER, ignore_errors=True)
    began("the demo's shard, described")
    # 1. describe the bundled shard
    job = describe_shard(console)
    began("a snapshot of the job")
    # 2. pin its rows
    store = Store(str(FOLDER / "data" / "store"))
    snapshot = Snapshots(store).create(SNAPSHOT, PartsOf(store).sources([job]), Selection(), [job])
    console.print(Text(f"{SNAPSHOT}: id {snapshot.id[:12]}, {snapshot.manifest.counts.selected} rows"))
    began("a tiny vision-language model, trained from nothing")
    # 3. train, with an interruption
    make_start(store, snapshot)
    config = load_config(CONFIG)
    train_killed_and_resumed(config, console)
    began("what came of it")
    # 4. check the losses
    show_curve(config, console)
    console.print(Text(f"{(time.monotonic() - begin) / 60:.1f} minutes in all", "green"))


def describe_shard(console: Console) -> str:
    """Describe the bundled shard with a temporary service; return the job's id."""
    fetched = subprocess.run(strata_command("models", "fetch", "demo"), check=False)
    if fetched.returncode:
        raise ProcessFailed("the demo's weights could not be fetched", fetched.returncode)
    with running_service(FOLDER, SHARD.parent, profile="demo") as client:
        job = client.submit([str(SHARD)], metadata={"from": "demo-train"})
        job = render.follow(client.watch(job.id, poll=0.5), console) or job
        console.print(Text(f"job {job.id} {job.status}: {job.request_counts.succeeded} images described"))
    if job.status is not JobStatus.COMPLETED:
        raise JobFailed(f"the job ended as {job.status}")
    return job.id


def make_start(store: Store, snapshot: Snapshot) -> None:
    """Write a model with random weights, whose vocabulary is made from the snapshot's texts."""
    sources = [snapshot_source(store, snapshot, level, FOLDER / "tables") for level in LEVELS]
    texts = [raw.turns[-1] for source in sources for raw in source.read(range(len(source)))]
    save_start(FOLDER / "start", build_processor(texts, SIDE), tower_config(), seed=0, width=128)


def train_killed_and_resumed(config: Config, console: Console) -> None:
    """Train, kill the training with SIGKILL, and start it again. Raises JobFailed if the curves differ."""
    # run until the step, kill
    log, death = LossLog(config.output), round(KILLED * (config.steps or 0))
    with _training() as first:
        while first.poll() is None and last_step(log) < death:
            time.sleep(0.05)
        first.send_signal(signal.SIGKILL)
    checkpoint = last_checkpoint(config.output)
    if first.returncode != -signal.SIGKILL or checkpoint is None:
        raise JobFailed("the training ended before it could be killed")
    # run again, to the end
    before = log.read()
    console.print(Text(f"killed with SIGKILL at step {before[-1]['step']}; started again"))
    with _training() as second:
        second.wait()
    if second.returncode:
        raise JobFailed("the training failed")
    # the resumed run has logged the steps after the checkpoint again
    after = log.read()
    if after[: len(before)] != before:
        raise JobFailed("the resumed run's losses are not those of the killed one")
    twice = len(before) - step_of(checkpoint)
    console.print(Text(f"steps {step_of(checkpoint) + 1} to {len(before)} were run twice, all {twice} losses the same"))


def _training() -> subprocess.Popen[bytes]:
    # one thread: two give so small a model nothing, and cost two thirds of its speed if other processes use the cores
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(strata_command("train", str(CONFIG)), env=environment)


def last_step(log: LossLog) -> int:
    """The last step that was logged, 0 before the first."""
    lines: list[dict[str, Any]] = log.read()
    return int(lines[-1]["step"]) if lines else 0


def show_curve(config: Config, console: Console) -> None:
    """Print the loss at ten points of the training. Raises JobFailed if it did not fall."""
    losses = [line["loss"] for line in LossLog(config.output).read()]
    means = running_means(losses)
    shown = [means[round(i * (len(means) - 1) / 9)] for i in range(10)]
    console.print(Text("loss: " + " ".join(f"{value:.2f}" for value in shown)))
    console.print(Text(f"plot: {config.output / 'losses.png'}; model: {config.output / 'model'}"), soft_wrap=True)
    if not means[-1] < means[0] / 2:
        raise JobFailed(f"the loss did not fall: {means[0]:.2f} to {means[-1]:.2f}")


if __name__ == "__main__":
    main()
