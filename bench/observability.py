"""`python -m bench.observability`: a real Prometheus scrapes a job of the demo; its figures and the job's are compared.

It needs `prometheus` (Debian: `apt-get install prometheus`) and the weights of the demo. The dashboard's queries are
asked too: each must be understood; how many series it has is printed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from samples.demo import PROFILE, SHARD
from samples.service import running_service
from strata.core import JobView
from strata.errors import InvalidInput

ROOT = Path(__file__).resolve().parent.parent
OBSERVABILITY = ROOT / "deploy" / "observability"
SCRAPE_SECONDS = 2
WAIT_SECONDS = 120.0  # for the last counts to be told and scraped
_CONFIG = """
global: {{scrape_interval: {seconds}s, evaluation_interval: {seconds}s}}
rule_files: ["{rules}"]
scrape_configs: [{{job_name: strata, static_configs: [{{targets: ["{target}"]}}]}}]
"""


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[httpx.Client]:
    """Run Prometheus on a free port, scraping a target, and yield a client of its API."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = folder / "prometheus.yml"
    rules = OBSERVABILITY / "rules.yaml"
    config.write_text(_CONFIG.format(seconds=SCRAPE_SECONDS, rules=rules, target=target), encoding="utf-8")
    options = [f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    command = ["prometheus", *options, f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]
    with (
        (folder / "prometheus.log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1", timeout=60) as client,
    ):
        try:
            yield client
        finally:
            process.terminate()


def ask(client: httpx.Client, query: str) -> list[dict[str, Any]]:
    """The result of a query. Raises httpx.HTTPStatusError if Prometheus does not understand it."""
    answer = client.get("/query", params={"query": query}).raise_for_status().json()
    return list(answer["data"]["result"])


def total(client: httpx.Client, query: str) -> float:
    """The sum of a query's series."""
    return sum(float(one["value"][1]) for one in ask(client, query))


def wait_for(client: httpx.Client, query: str, least: float) -> None:
    """Wait until a query has a value. Raises TimeoutError."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            if total(client, query) >= least:
                return
        except httpx.TransportError:  # it starts
            pass
        if time.monotonic() > deadline:
            raise TimeoutError(f"{query} has not reached {least}")
        time.sleep(0.5)


def compared(client: httpx.Client, job: JobView) -> list[tuple[str, float, float]]:
    """Lines of a table: what, in the job's envelope, in Prometheus."""
    counts = job.request_counts
    rows = [(status, getattr(counts, status)) for status in ("succeeded", "filtered", "failed")]
    lines = [(s, float(n), total(client, f'strata_rows_total{{group="llm",status="{s}"}}')) for s, n in rows]
    vision = float(job.groups["vision"].images)
    lines.append(("vision", vision, total(client, 'strata_rows_total{group="vision"}')))
    chunks = sum(float(job.groups[group].chunks) for group in ("vision", "llm"))
    lines.append(("chunks", chunks, total(client, 'strata_chunks_finished_total{group!="index"}')))
    lines.append(("jobs ended", 1.0, total(client, 'strata_jobs_ended_total{status="completed"}')))
    lines.append(("left", 0.0, total(client, "strata_backlog_images")))
    return lines


def main(shard: Path, folder: Path) -> int:
    """Run the job, print the comparison and the dashboard's queries; 0 if all figures agree."""
    if shutil.which("prometheus") is None:
        raise InvalidInput("prometheus is not installed")
    with (
        running_service(folder, shard.parent, profile=PROFILE) as service,
        prometheus(folder, str(service.url).removeprefix("http://")) as client,
    ):
        wait_for(client, "up", 1.0)
        job = service.wait(service.submit([str(shard)], profile=PROFILE).id)
        wait_for(client, "sum(strata_jobs_ended_total)", 1.0)
        wait_for(client, "sum(strata_stage_batch_items_count)", 1.0)
        lines = compared(client, job)
        for what, wanted, found in lines:
            print(f"{what:12} envelope {wanted:6.0f}  prometheus {found:6.0f}")
        panels = json.loads((OBSERVABILITY / "dashboard.json").read_text(encoding="utf-8"))["panels"]
        queries = [target["expr"] for panel in panels for target in panel["targets"]]
        answers = [len(ask(client, query.replace("$__rate_interval", "1m"))) for query in queries]
        empty = [query for query, series in zip(queries, answers, strict=True) if not series]
        print(f"{len(queries)} queries of the dashboard answered, {len(queries) - len(empty)} with series; without:")
        for query in empty:
            print(f"  {query}")
        alerts = client.get("/rules").raise_for_status().json()["data"]["groups"][0]["rules"]
        print(f"{len(alerts)} rules, unhealthy: {[one['name'] for one in alerts if one['health'] == 'err']}")
    return int(any(wanted != found for _, wanted, found in lines))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shard", type=Path, default=SHARD)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        raise SystemExit(main(arguments.shard, Path(name)))
