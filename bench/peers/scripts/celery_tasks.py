"""Celery: a shard a task, prefork workers, late acknowledgement, a Redis at `--redis`; done shards are left out.

The worker is started by this script, which waits until every shard's file is there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import celery

from bench.peers.scripts.options import options
from bench.peers.scripts.pool import run

URL, GIVEN = "PEER_REDIS", "PEER_OPTIONS"
app: Any = celery.Celery("peer", broker=os.environ[URL].replace("unix://", "redis+socket://"))
app.conf.update(
    task_ignore_result=True,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
)


@app.task(name="describe")  # type: ignore[untyped-decorator]
def describe_shard(shard: str) -> None:
    """Describe one shard, unless it was."""
    given = Namespace(**json.loads(os.environ[GIVEN]))
    given.out, given.calls = Path(given.out), Path(given.calls)
    if not (given.out / f"{Path(shard).stem}.parquet").exists():
        run(Path(shard), given)


def main() -> None:
    """Start the worker, queue the missing shards, and wait for them."""
    given = options(__doc__)
    told = vars(given) | {name: str(getattr(given, name)) for name in ("shards", "out", "calls")}
    os.environ[GIVEN] = json.dumps(told)
    command = [sys.executable, "-m", "celery", "--app", __spec__.name, "worker", "--loglevel", "ERROR"]
    worker = subprocess.Popen([*command, "--pool", "prefork", "--concurrency", str(given.workers)])
    wanted = {given.out / f"{one.stem}.parquet": one for one in sorted(given.shards.glob("*.tar"))}
    for out, shard in wanted.items():
        if not out.exists():
            describe_shard.delay(str(shard))
    while not all(out.exists() for out in wanted):
        time.sleep(0.05)
        if worker.poll() is not None:
            raise SystemExit("the worker has ended")
    worker.terminate()
    worker.wait()


if __name__ == "__main__":
    main()
