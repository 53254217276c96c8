"""Real worker processes that break, under the supervisor that restarts them."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app import supervisor
from app.supervisor import Child, Supervisor
from bench.processes import PYTHONPATH
from strata.cli.exits import PROCESS_BROKEN
from strata.core import load_profile
from strata.forks import ONE_THREAD, Template
from strata.jobs.jobs import Jobs
from tests.fakes import jpeg, write_shard
from tests.workers.programs.machines import BATCH_PROFILE


@pytest.fixture
def environment(jobs: Jobs, valkey_url: str, tmp_path: Path) -> dict[str, str]:
    """The environment of workers of these jobs."""
    (tmp_path / "breaking.toml").write_text(BATCH_PROFILE)
    return {
        **os.environ,
        "PYTHONPATH": PYTHONPATH,
        "REDIS_URL": valkey_url,
        "STRATA_STORE": jobs.store.uri,
        "STRATA_PROFILES_DIR": str(tmp_path),
        "STRATA_PROFILE": "breaking",
        "STRATA_LEASE_SECONDS": "5",
    }


def command(groups: str, after: int) -> list[str]:
    return [sys.executable, "-m", "tests.workers.programs.breaking_worker", "--groups", groups, "--after", str(after)]


@pytest.mark.usefixtures("scheduler")
def test_a_gpu_that_breaks_in_every_process_fails_none_of_200_images(
    jobs: Jobs,
    tmp_path: Path,
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(supervisor, "LONGEST_PAUSE", 1.0)
    shard = write_shard(tmp_path / "a.tar", [jpeg(100 + n, 8) for n in range(200)])
    # the probe, then twelve batches; the next process computes the eight suspects alone, and four batches
    children = [Child(groups, command(groups, 13), groups) for groups in ("index,vision", "llm")]
    template = Template("workers", [*command("", 13), "--forks"], {**environment, **ONE_THREAD})
    supervised = Supervisor(children, environment, lambda: None, lambda: None, template)
    with template, caplog.at_level(logging.WARNING), supervised:
        job = jobs.new.create("batch", [shard], load_profile("breaking", tmp_path), "lo")
        deadline = time.monotonic() + 300
        while not jobs.view(job.id).status.final:
            assert time.monotonic() < deadline, jobs.view(job.id).model_dump_json()
            time.sleep(0.1)
    counts = jobs.view(job.id).request_counts
    assert (counts.succeeded, counts.failed) == (200, 0)
    request = jobs.request(job.id)
    chunks = [chunk for one in jobs.summaries(job.id).values() for chunk in request.chunks(one, "llm")]
    texts = [record.caption.text for chunk in chunks for record in jobs.store.read_records(chunk) if record.caption]
    assert texts == [f"{100 + n} by 8 pixels" for n in range(200)]
    ends = [line for line in caplog.messages if f"ended with exit code {PROCESS_BROKEN}" in line]
    assert len(ends) > 1 and "it restarts in 0 s" in ends[0]
    assert children[1].failures == 0


def test_a_machine_that_is_broken_from_the_start_never_says_that_it_is_ready(
    jobs: Jobs, environment: dict[str, str]
) -> None:
    done = subprocess.run(
        command("vision", 0), env=environment, capture_output=True, encoding="utf-8", timeout=120, check=False
    )
    assert done.returncode == PROCESS_BROKEN
    assert "ready" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert "captioner is broken in this process: AcceleratorError: CUDA error: an illegal memory access" in last
