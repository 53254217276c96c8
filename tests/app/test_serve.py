"""`strata serve` as a process: what it refuses, what it starts, and what it leaves behind."""

from __future__ import annotations

import errno
import gc
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil  # type: ignore[import-untyped]
import pytest

from app import server, supervisor
from app.http.serving import HttpServer
from app.supervisor import Child, Supervisor, process_groups
from bench.processes import PYTHONPATH
from strata.cli import exits
from strata.client.client import Client
from strata.core.profiles import load_profile
from strata.core.settings import Settings, load_settings
from strata.forks import START_SECONDS, Template
from strata.queue.embedded import EmbeddedServer
from tests.checkout import CHECKOUT
from tests.cli.test_cli import code_of
from tests.fakes import jpeg
from tests.secrets import SECRET
from tests.service import write_profile
from tests.test_forks import await_busy


def environment(folder: Path, **changes: str) -> dict[str, str]:
    """What a service in a folder of its own is told."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("STRATA_", "REDIS_"))}
    write_profile(folder)
    ours = {
        "STRATA_DATA_DIR": str(folder / "data"),
        "STRATA_PROFILES_DIR": str(folder),
        "STRATA_PROFILE": "fake",
        "PYTHONPATH": PYTHONPATH,
    }
    return {**kept, **ours, **changes}


Refused = Callable[..., tuple[int, str]]


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Refused:
    """Exit code and stderr of a service that must not start, or not go on; in this process, which starts sooner."""

    def run(*arguments: str, **changes: str) -> tuple[int, str]:
        for name, value in environment(tmp_path, **changes).items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(logging.getLogger(), "handlers", [logging.NullHandler()])
        return code_of("serve", *arguments), capfd.readouterr().err

    return run


@contextmanager
def served(
    folder: Path, *arguments: str, program: Sequence[str] = ("-m", "strata"), **changes: str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running service and its URL; program: what Python runs as `strata`."""
    process = subprocess.Popen(
        [sys.executable, *program, "serve", "--port", "0", *arguments],
        env=environment(folder, **changes),
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("Strata listens on http://"), line
        yield process, line.split()[-1]
    finally:
        process.terminate()
        try:
            process.wait(120)
        finally:
            process.kill()
            process.wait()


def test_binding_to_the_world_without_a_key_is_refused(refused: Refused) -> None:
    for arguments in (["--host", "0.0.0.0"], ["--host", "::"], ["--host", ""]):
        code, told = refused(*arguments)
        assert code == exits.UNSAFE_BIND and "STRATA_API_KEY" in told and len(told.splitlines()) == 1
    for empty in ("", " \n"):
        code, told = refused("--host", "0.0.0.0", STRATA_API_KEY=empty)
        assert code == exits.UNSAFE_BIND and "which must not be empty" in told


def test_a_host_that_is_not_known_is_told(refused: Refused) -> None:
    for host in ("nosuch.invalid", "a..b"):
        code, told = refused(STRATA_HOST=host)
        assert code == exits.USAGE and len(told.splitlines()) == 1
        assert told.startswith(f"strata serve: STRATA_HOST or --host: {host!r} cannot be resolved to an address: ")


def test_a_port_in_use_is_told(refused: Refused, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        code, told = refused("--port", str(other.getsockname()[1]))
    assert code == exits.PORT_IN_USE and len(told.splitlines()) == 1
    assert not (tmp_path / "data").exists()  # nothing was started before


def test_a_data_directory_in_use_is_told(refused: Refused, tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path / "data"):
        code, told = refused("--port", "0", "--no-workers")
    assert code == exits.DATA_DIR_IN_USE and len(told.splitlines()) == 1


def test_a_default_profile_with_faults_is_told_before_anything_starts(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('line = 1\n[stages.orc]\nbackend = "rapidocr"\nmodel = "m"\nrevision = ""\n')
    code, told = refused("--port", "0", "--profile", "mine")
    assert code == exits.PROFILE_INVALID
    assert told.splitlines() == [
        f"strata serve: {tmp_path}/mine.toml: line: unknown key; there are: chunk_size, description, domain, "
        "evidence, leave_out, micro_batch, needs, rules, stages, texts, warnings",
        f"strata serve: {tmp_path}/mine.toml: stages.orc: unknown stage; did you mean 'ocr'?",
    ]
    assert not (tmp_path / "data").exists()


def test_other_reasons_not_to_start(refused: Refused) -> None:
    code, told = refused("--port", "0", "--profile", "none")
    assert code == exits.USAGE and "fake" in told
    code, told = refused("--port", "0", REDIS_URL=f"redis://:{SECRET}@127.0.0.1:1/0")
    assert code == exits.REDIS_UNREACHABLE and told.startswith(
        "strata serve: Redis at redis://127.0.0.1:1/0 cannot be reached: "
    )
    assert SECRET not in told and len(told.splitlines()) == 1
    code, told = refused(STRATA_DEBUG="1", REDIS_URL=f"redis://:{SECRET}#@127.0.0.1:1/0")
    assert "Traceback" in told and code == exits.USAGE and SECRET not in told
    code, told = refused(STRATA_DEBUG="", REDIS_URL="", STRATA_STORE="ftpx://")
    assert code == exits.USAGE and len(told.splitlines()) == 1
    code, told = refused(STRATA_STORE="", STRATA_PORT="many")
    assert code == exits.USAGE and "PORT" in told


def test_a_service_serves_recovers_and_leaves_nothing_running(tmp_path: Path) -> None:
    with served(tmp_path, "--no-workers") as (process, url):
        children = psutil.Process(process.pid).children(recursive=True)
        with Client(url) as client:
            job = client.caption(jpeg(), wait=0)
            assert client.job(job.id).kind == "image"  # type: ignore[union-attr]
            (valkey,) = [child for child in children if "valkey" in child.name()]  # beside what decodes
            valkey.kill()
            deadline = time.monotonic() + 120
            while time.monotonic() < deadline:
                if httpx.get(f"{url}/v1/jobs/{job.id}", timeout=60).status_code == 200:  # type: ignore[union-attr]
                    break
                time.sleep(0.1)
            assert client.job(job.id).id == job.id  # type: ignore[union-attr]
        # pyarrow imports pandas for nobody (`strata.store.import_ahead`)
        assert not [one.path for one in psutil.Process(process.pid).memory_maps() if "/pandas/" in one.path]
        children = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        assert process.wait(120) == 0
    assert children and not any(child.is_running() for child in children)


def test_a_request_that_waits_gets_its_job_when_the_service_stops(tmp_path: Path) -> None:
    """Not a 500 with a traceback in the log: the job stays, and its address is in the response."""
    with served(tmp_path, "--no-workers") as (process, url), ThreadPoolExecutor(1) as threads:
        headers = {"Prefer": "wait=100"}
        files = {"file": jpeg()}
        waiting = threads.submit(httpx.post, f"{url}/v1/captions", headers=headers, files=files, timeout=110)
        # the request waits once its job is listed
        while not httpx.get(f"{url}/v1/jobs", timeout=60).json()["jobs"]:
            time.sleep(0.05)
        process.terminate()
        response = waiting.result(60)
        assert response.status_code == 202 and response.headers["Location"].startswith("/v1/jobs/")
        assert process.wait(120) == 0


def test_collections_of_garbage_leave_out_what_the_service_consists_of(
    refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[int] = []

    def run(*_: object, **__: object) -> None:
        looked_at.append(sum(len(gc.get_objects(generation)) for generation in range(3)))

    monkeypatch.setattr(HttpServer, "run", run)
    before = gc.get_threshold()
    code, _ = refused("--port", "0", "--no-workers")
    assert code == exits.FAILURE  # it has not served
    assert looked_at[0] < 20_000 < len(gc.get_objects())
    assert (gc.get_freeze_count(), gc.get_threshold()) == (0, before)


def test_a_missing_weight_ends_the_service_with_its_code(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    dying = f"import sys; print('no weights', file=sys.stderr); sys.exit({exits.WEIGHTS_MISSING})"
    monkeypatch.setattr(server, "workers", lambda *_: fake_workers(dying))
    code, told = refused("--port", "0")
    assert code == exits.WEIGHTS_MISSING, told
    assert "no weights" in told


def test_killing_the_service_ends_its_workers(tmp_path: Path) -> None:
    code = "; ".join(
        [
            "from app import server",
            "from strata.cli.main import main",
            "from tests.app.test_serve import fake_workers",
            "server.workers = lambda *_: fake_workers('import time; time.sleep(60)')",
            "main()",
        ]
    )
    with served(tmp_path, program=["-c", code]) as (process, _):
        # Redis, the templates of decoding processes and of workers, and the workers, which are none of its forks
        number = 3 + len(supervisor.GROUPS)
        deadline = time.monotonic() + 120
        children: list[psutil.Process] = []
        while len(children) < number and time.monotonic() < deadline:
            children = psutil.Process(process.pid).children(recursive=True)
            time.sleep(0.1)
        assert len(children) == number
        process.kill()
        gone, alive = psutil.wait_procs(children, 15)
    assert len(gone) == number and not alive


def fake_workers(code: str) -> list[Child]:
    """Two children, as many as the real ones, that run this code."""
    return [Child(name, [sys.executable, "-I", "-S", "-c", code]) for name in supervisor.GROUPS]


@pytest.mark.parametrize(
    "name", sorted(set(Settings.model_fields) - supervisor.HTTP_SETTINGS - {"redis_url", "data_dir"})
)
def test_a_worker_has_every_setting_of_its_service(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other: dict[str, Any] = {
        "shard_roots": ["/a", "s3://b/c"],
        "moved_roots": {"/a": "/b"},
        "store": str(tmp_path / "elsewhere"),
        "profiles_dir": tmp_path,
        "profile": "fake",
        "caller_share": 0.25,
        "log_format": "json",
        "log_level": "debug",
    }
    default = Settings.model_fields[name].default
    changed = other[name] if name in other else not default if isinstance(default, bool) else (default or 4) + 1
    settings = Settings.model_validate({"data_dir": tmp_path, name: changed})
    for variable, value in supervisor.worker_environment(settings, "redis://127.0.0.1").items():
        monkeypatch.setenv(variable, value)
    assert getattr(load_settings(), name) == getattr(settings, name) == changed


def test_moved_roots_are_options_of_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Settings] = []

    def serve(settings: Settings, *_: object) -> int:
        given.append(settings)
        return 0

    monkeypatch.setattr(server, "serve", serve)
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.NullHandler()])
    assert code_of("serve", "--root", "/a=/b", "--root", "s3://c=/d") == 0
    assert given[0].moved_roots == {"/a": "/b", "s3://c": "/d"}


def test_a_worker_that_dies_starts_again_after_a_growing_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervisor, "CHECK_INTERVAL", 0.02)
    monkeypatch.setattr(supervisor, "FIRST_PAUSE", 0.1)
    file = tmp_path / "starts"
    code = f"open({str(file)!r}, 'a').write('x'); import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    child = Child("mortal", [sys.executable, "-I", "-S", "-c", code])
    with Supervisor([child], dict(os.environ), lambda: None, lambda: None):
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not (file.exists() and len(file.read_text()) >= 4):
            time.sleep(0.05)
    assert len(file.read_text()) >= 4 and child.failures >= 3
    # at once after the first death
    assert f"ended by signal {signal.SIGKILL:d}; it restarts in 0 s" in caplog.text
    assert f"ended by signal {signal.SIGKILL:d}; it restarts in 0.1 s" in caplog.text
    assert f"ended by signal {signal.SIGKILL:d}; it restarts in 0.2 s" in caplog.text


FORKED = """
import os, sys, time
from strata.forks import fork_when_asked
task = fork_when_asked(int(sys.argv[1]))
if task is not None:
    open(task.task["environment"]["FILE"], "a").write(task.task["groups"] + " fork\\n")
    time.sleep(600)
"""


def test_workers_are_forks_of_a_template_and_start_without_it_when_it_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervisor, "CHECK_INTERVAL", 0.02)
    file = tmp_path / "starts"
    alone = f"open({str(file)!r}, 'a').write('alone\\n'); import time; time.sleep(600)"
    child = Child("llm", [sys.executable, "-I", "-S", "-c", alone], "llm")
    template = Template("workers", [sys.executable, "-c", FORKED], os.environ)

    def await_starts(number: int) -> list[str]:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not (file.exists() and len(file.read_text().splitlines()) >= number):
            time.sleep(0.02)
        return file.read_text().splitlines()

    environment = {**os.environ, "FILE": str(file)}
    with Supervisor([child], environment, lambda: None, lambda: None, template):
        assert await_starts(1) == ["llm fork"]
        assert child.process is not None
        child.process.kill()
        assert await_starts(2) == ["llm fork"] * 2
        os.kill(template.pid, signal.SIGKILL)
        assert await_starts(3) == ["llm fork", "llm fork", "alone"]
    assert child.process.poll() is not None
    assert f"the workers are forked (pid {template.pid}) has ended: SIGKILL" in caplog.text


def test_a_service_that_is_stopped_does_not_wait_for_a_template_that_still_imports() -> None:
    child = Child("llm", ["/no_such_program"], "llm")
    template = Template("workers", [sys.executable, "-c", "import time; time.sleep(600)"], os.environ)
    began = time.monotonic()
    with Supervisor([child, child], dict(os.environ), lambda: None, lambda: None, template):
        await_busy(template)
    assert child.process is None and not template.alive
    assert time.monotonic() - began < START_SECONDS


def test_a_worker_for_which_the_machine_has_no_process_starts_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervisor, "CHECK_INTERVAL", 0.02)
    monkeypatch.setattr(supervisor, "FIRST_PAUSE", 0.1)
    start, refused = subprocess.Popen, iter([True, True])

    def started(*given: Any, **options: Any) -> Any:
        if next(refused, False):
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        return start(*given, **options)

    monkeypatch.setattr(subprocess, "Popen", started)
    child = Child("late", [sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"])
    with Supervisor([child], dict(os.environ), lambda: None, lambda: None):
        deadline = time.monotonic() + 120
        while child.process is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    assert caplog.text.count("worker late does not start: [Errno 11]") == 2


def test_a_child_that_does_not_listen_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "STOP_SECONDS", 0.3)
    ignore = "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    code = f"{ignore}; open(sys.argv[1], 'w'); time.sleep(60)"
    file = tmp_path / "up"
    child = Child("deaf", [sys.executable, "-I", "-S", "-c", code, str(file)])
    ended = threading.Event()
    with Supervisor([child], dict(os.environ), lambda: None, ended.set):
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not file.exists():
            time.sleep(0.05)
    assert child.process is not None and child.process.returncode == -signal.SIGKILL
    assert not ended.is_set()


def test_a_response_does_not_wait_for_an_acknowledgement() -> None:
    with server._bind("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_groups_that_name_the_same_weights_run_in_one_process() -> None:
    profiles = CHECKOUT / "models" / "profiles"
    groups = {name: process_groups(load_profile(name, profiles)) for name in ("demo", "modern", "paper", "small")}
    assert groups.pop("small") == ("index,vision,llm",)
    assert set(groups.values()) == {("index,vision", "llm")}


def test_the_supervisor_needs_no_web_framework() -> None:
    """The workers start before the service is imported, which takes a second."""
    code = "import sys, app.server; print(*[name for name in ('fastapi', 'uvicorn', 'duckdb') if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert found.stdout.split() == []
