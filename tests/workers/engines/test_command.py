"""`strata run` as people type it: exit codes, Ctrl-C, a process that dies, a driver that is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest
from typer.testing import CliRunner

from bench.processes import BENCH_PROFILES, PLUG_INS
from strata.cli import exits
from strata.cli.main import app
from strata.cli.running import command
from strata.core import Estimate, JobEnd, JobRequest, JobRun, JobStatus, JobView
from strata.store import Store
from tests.checkout import CHECKOUT
from tests.fakes import wait_for
from tests.workers.engines.runs import options, rows_of, settings_of, shards_of, started
from workers.engines.start import computed

# a process for each attempt at a job of one shard, forked from one that has imported all; it prints how they have ended
ATTEMPTS = """
import os, sys
from pathlib import Path
from tests.workers.engines.runs import options, settings_of, started
from workers.engines.start import computed
folder = Path(sys.argv[1])
how = options(notes=folder / "notes.json")
known = folder / "job"
settings = settings_of(folder)
ends = []
while len(ends) < 8 and 0 not in ends:
    pid = os.fork()
    if pid:
        ends.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        continue
    try:
        job = started(settings, known.read_text() if known.exists() else [str(folder / "shards/00000.tar")], how)
        known.write_text(job.request.id)
        computed(job, settings, how)
        os._exit(0)
    finally:
        os._exit(1)
print(ends)
"""


def environment(folder: Path) -> dict[str, str]:
    """The environment of a command with a store in a folder and the fake profile."""
    own = {"STRATA_STORE": str(folder / "store"), "STRATA_PROFILES_DIR": str(BENCH_PROFILES)}
    path = f"{CHECKOUT}:{PLUG_INS}"
    return {**os.environ, **own, "STRATA_PROFILE": "fake", "PYTHONPATH": path}


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A process of `strata run`, whose output can be read; it is ended with the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "strata", "run", *arguments],
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def only_job(store: Store) -> str:
    """The id of the only job of a store, when it is there."""
    wait_for(lambda: store.job_ids() and store.read_job_file(store.job_ids()[0], "request"))
    (found,) = store.job_ids()
    return found


def complete(store: Store, job_id: str, images: int) -> bool:
    """Whether every image of a job has its row, once."""
    request = store.parse_job_file(job_id, "request", JobRequest)
    assert request is not None
    return Counter(key for key, _ in rows_of(store, request)) == {f"{i:09d}": 1 for i in range(images)}


def test_a_process_that_dies_is_started_again(tmp_path: Path) -> None:
    store, shards = Store(settings_of(tmp_path).store_uri), shards_of(tmp_path / "shards", 4, 256)
    with running(tmp_path, *shards) as process:
        job_id = only_job(store)
        wait_for(lambda: store.read_job_file(job_id, "run"))
        run = store.parse_job_file(job_id, "run", JobRun)
        assert run is not None and run.pid in [one.pid for one in psutil.Process(process.pid).children()]
        os.kill(run.pid, signal.SIGKILL)
        output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert output.splitlines()[0] == job_id
    assert "was ended by signal 9; a new one goes on" in output
    assert store.job_ids() == [job_id] and complete(store, job_id, 1024)


def test_an_image_that_ends_processes_is_a_failed_row(tmp_path: Path) -> None:
    shards_of(tmp_path / "shards", 1, 12, deadly=5)
    done = subprocess.run(
        [sys.executable, "-c", ATTEMPTS, str(tmp_path)], env=environment(tmp_path), capture_output=True, text=True
    )
    # the first process dies with the chunk, then two with the image alone; the last one passes it over
    assert json.loads(done.stdout) == [-signal.SIGKILL] * 3 + [0], done.stderr
    store = Store(settings_of(tmp_path).store_uri)
    (job_id,) = store.job_ids()
    request = store.parse_job_file(job_id, "request", JobRequest)
    assert request is not None and complete(store, job_id, 12)
    failed = {key: row["failure"]["error_type"] for key, row in rows_of(store, request) if row["failure"]}
    assert failed.keys() == {"000000005", "000000011"} and failed["000000005"] == "poison"


def test_faults_are_one_line_and_an_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    store = ["--run-folder", str(tmp_path)]
    for arguments, code, words in (
        (["nowhere.tar"], 2, "does not exist"),
        (["0" * 22], 10, "no job"),
        (["a.tar", "--engine", "ray", "--actors", "vision=0"], 2, "--actors 'vision=0'"),
        (["a.tar", "--engine", "ray", "--gpus", "index=1"], 2, "expected vision=NUMBER"),
        (["a.tar", "--profile", "none"], 2, "unknown profile 'none'"),
        (["a.tar", "--budget-money", "1", "--budget-tokens", "0"], 2, "budget-tokens"),
    ):
        result = CliRunner().invoke(app, ["run", *arguments, *store])
        assert result.exit_code == code, (arguments, result.output)
        assert words in result.output and "Traceback" not in result.output


def test_ray_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "workers.engines.ray", raising=False)
    result = CliRunner().invoke(app, ["run", "a.tar", "--engine", "ray"])
    assert result.exit_code == 2 and result.output == "strata: ray is not installed: pip install 'strata[ray]'\n"


@pytest.mark.cluster
def test_a_driver_that_is_killed_loses_nothing(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    store, shards = Store(settings_of(tmp_path).store_uri), shards_of(tmp_path / "shards", 3, 256)
    ray = ["--engine", "ray", "--cpus", "vision=0.4", "--cpus", "llm=0.4"]
    with running(tmp_path, *shards, *ray) as process:
        job_id = only_job(store)
        wait_for(lambda: store.find("parts/vision"), 600)  # Ray's starts may take minutes on a busy machine
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert store.parse_job_file(job_id, "end", JobEnd) is None
    # the same machine: the run is known to be dead at once, and any engine goes on
    with running(tmp_path, job_id) as process:
        output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert complete(store, job_id, 768)


def test_a_job_is_shown_without_a_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(tmp_path)
    how = options()
    job = started(settings, shards_of(tmp_path / "shards", 1, 5), how)
    monkeypatch.delenv("STRATA_URL", raising=False)
    shown = ["status", job.request.id, "--store", settings.store_uri, "--json"]
    assert CliRunner().invoke(app, shown).exit_code == 10
    job.tell()
    running_now = CliRunner().invoke(app, shown)
    assert JobView.model_validate_json(running_now.output).status is JobStatus.VALIDATING
    computed(job, settings, how)
    ended = CliRunner().invoke(app, [*shown, "--follow"])
    assert ended.exit_code == exits.PARTLY_FAILED  # one of the images is damaged
    view = JobView.model_validate_json(ended.stdout)
    assert (view.status, view.request_counts.succeeded) == (JobStatus.COMPLETED, 4)


def test_a_dry_run_describes_a_sample_and_tells_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(command, "_end_on_signals", lambda job: None)
    shards = shards_of(tmp_path / "shards", 2, 40)
    arguments = ["run", *shards, "--dry-run", "-n", "30", "--seed", "3", "--run-folder"]
    result = CliRunner().invoke(app, [*arguments, str(_folder(tmp_path / "first"))])
    assert result.exit_code == 0, result.output
    assert "80 images in 2 shards" in result.stdout and "by 30 random images (seed 3)" in result.stdout
    assert "with ready workers: 1 vision, 1 llm" in result.stdout and "images/s of one worker" in result.stdout
    store = Store(settings_of(tmp_path).store_uri)
    (job_id,) = store.job_ids()
    assert f"job {job_id} describes a random sample" in result.stderr
    # the same seed computes nothing anew, and the job's id gives the figures again
    for more in (arguments, ["run", job_id, "--run-folder"]):
        result = CliRunner().invoke(app, [*more, str(_folder(tmp_path / more[1][-9:])), "--json"])
        assert result.exit_code == 0, result.output
        found = Estimate.model_validate_json(result.stdout)
        assert (found.images, found.described, found.seed) == (80, 30, 3)
    # a job that exists has its images: it is not run as if nothing were asked
    for option in (["--dry-run"], ["--where", "match < 0.5"]):
        result = CliRunner().invoke(app, ["run", job_id, *option, "--run-folder", str(_folder(tmp_path / option[0]))])
        assert result.exit_code == exits.USAGE and result.stderr.startswith(f"strata: {option[0]} "), result.output


def test_a_folder_is_no_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert command._known(["images"], (None, None, None)) == "images"
    _folder(tmp_path / "images")
    assert command._known(["images"], (None, None, None)) is None


def _folder(path: Path) -> Path:
    path.mkdir()
    return path
