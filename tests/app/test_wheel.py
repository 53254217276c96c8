"""The wheel in an environment of its own, outside the checkout: it serves, works, captions and trains.

The environment borrows the installed dependencies: a .pth line puts their folder on the path, and Python does not read
the .pth files of a folder added in this way, so the editable install of the checkout stays out of sight.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import venv
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import strata
from tests.checkout import CHECKOUT

MOST_BYTES = 40_000_000
IMAGES = 6
START_SECONDS = 600.0
OURS = {"app", "models", "samples", "tests", "training", "weights", "workers", "bench"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the checkout without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


class Installed:
    """The wheel in a fresh virtual environment. folder: where its commands run, which holds decoys of our names."""

    def __init__(self, root: Path, wheel: Path) -> None:
        venv.create(root / "venv", with_pip=False, symlinks=True)
        self.bin, self.folder = root / "venv" / "bin", root / "anywhere"
        self.packages = next((root / "venv" / "lib").glob("python*/site-packages"))
        pip = [sys.executable, "-m", "pip", "--python", str(self.bin / "python"), "install", "-qq"]
        subprocess.run([*pip, "--no-index", "--no-deps", "--disable-pip-version-check", str(wheel)], check=True)
        (self.packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
        for name in ("app", "models", "workers", "samples"):
            (self.folder / name).mkdir(parents=True)
            (self.folder / name / "__init__.py").write_text("raise SystemExit('a package of somebody else')\n")
        leave_out = ("PYTHON", "STRATA_", "REDIS_URL")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(leave_out)}
        kept |= {name: os.environ[name] for name in ("STRATA_MODELS",) if name in os.environ}
        self.environment = {**kept, "PATH": f"{self.bin}{os.pathsep}{kept['PATH']}"}

    def run(self, *command: str, code: int = 0, variables: Mapping[str, str] | None = None) -> str:
        """What a command prints on stdout; on stderr if it must fail."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env={**self.environment, **(variables or {})},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stderr if code else done.stdout


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(tmp_path_factory.mktemp("installed"), wheel)


@pytest.fixture
def url(installed: Installed) -> Iterator[str]:
    """The address of `strata serve`, ready with the demo profile and an embedded server."""
    process = subprocess.Popen(
        ["strata", "serve", "--port", "0", "--profile", "demo"],
        cwd=installed.folder,
        env=installed.environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    deadline = threading.Timer(START_SECONDS, process.kill)  # else a service that never gets ready is waited for
    deadline.start()
    try:
        address = ""
        for line in process.stdout:
            if line.startswith("Strata listens on "):
                address = line.split()[-1]
            if line.startswith("Strata is ready on "):
                break
        deadline.cancel()
        assert address and process.poll() is None
        yield address
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
    finally:
        deadline.cancel()
        process.kill()
        process.wait()


def test_the_wheel_is_small_and_installs_one_package(wheel: Path) -> None:
    assert wheel.stat().st_size < MOST_BYTES
    assert wheel.name.startswith(f"strata-{strata.__version__}-")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"strata", f"strata-{strata.__version__}.dist-info"}
    for needed in (
        "py.typed",
        "_service/models/profiles/demo.toml",
        "_service/models/prove/pictures/cat.jpg",
        "_service/app/static/index.html",
        "_service/app/static/studio/main.js",
        "_service/app/static/studio/pages/jobs.js",
        "_service/app/static/studio/vendor/preact.js",
        "_service/app/static/studio/vendor/preact.LICENSE",
    ):
        assert f"strata/{needed}" in names
    assert not [name for name in names if "/tests/" in name or "/bench/" in name or "__pycache__" in name]


def test_it_is_imported_from_the_environment(installed: Installed) -> None:
    assert OURS.isdisjoint(path.name for path in installed.packages.iterdir())
    found = installed.run("python", "-c", "import strata; print(strata.__file__)").strip()
    assert Path(found).is_relative_to(installed.packages)
    missing = "from importlib.util import find_spec as f; print([n for n in ('training', 'tests', 'bench') if f(n)])"
    assert installed.run("python", "-P", "-c", missing).strip() == "[]"
    assert installed.run("strata", "--version") == f"strata {strata.__version__}\n"


def test_a_job_runs_to_its_end(installed: Installed, url: str) -> None:
    at = {"STRATA_URL": url}
    # `python -m` puts the working folder first on the path, where a package `samples` of somebody else lies
    installed.run("python", "-m", "strata", "samples", "--count", str(IMAGES), "--out", "shards", "--seed", "7")
    job = installed.run("strata", "submit", "shards/00000.tar", variables=at).strip()
    told = installed.run("strata", "status", job, "--follow", variables=at)
    assert f"completed: {IMAGES}/{IMAGES} images" in told and f"succeeded {IMAGES}," in told
    rows = [json.loads(line) for line in installed.run("strata", "results", job, variables=at).splitlines()]
    assert sorted(row["key"] for row in rows) == [f"{i:09d}" for i in range(IMAGES)]
    assert all(row["status"] == "succeeded" and row["description"]["text"] for row in rows)
    shutil.copy(CHECKOUT / "samples" / "images" / "one.jpg", installed.folder / "photo.jpg")
    captioned = json.loads(installed.run("strata", "caption", "photo.jpg", "--json", "--overlay", "out", variables=at))
    assert captioned["status"] == "succeeded" and captioned["caption"]["text"]
    assert (installed.folder / "out" / "photo.jpg.overlay.png").read_bytes().startswith(b"\x89PNG")


def test_a_worker_starts_from_the_wheel(installed: Installed) -> None:
    """As far as Redis, for a worker is the same program that `serve` starts."""
    told = installed.run("strata", "worker", "--groups", "vision", code=6)
    assert told.startswith("strata worker: a worker needs REDIS_URL") and told.count("\n") == 1
    told = installed.run(
        "strata", "worker", "--groups", "nothing", code=2, variables={"REDIS_URL": "redis://127.0.0.1:1"}
    )
    assert told.startswith("strata worker: unknown groups nothing") and told.count("\n") == 1
    states = installed.run("strata", "models", "check", "demo", "--json")
    assert {json.loads(line)["state"] for line in states.splitlines()} <= {"ready", "none"}


def test_training_tells_what_is_wrong_with_a_configuration(installed: Installed) -> None:
    assert "CONFIG" in installed.run("strata", "train", "--help")
    assert installed.run("strata", "train", "no.toml", code=2).startswith("strata: no.toml: No such file")
    config = installed.folder / "config.toml"
    bundled = installed.packages / "strata" / "_service" / "training" / "configs" / "monkey.toml"
    config.write_text(bundled.read_text().replace("epochs = 1", "epochs = 1\nstep = 4"))
    told = installed.run("strata", "train", "config.toml", code=2)
    assert told.startswith("strata: config.toml: step: ") and told.count("\n") == 1
    config.write_text(bundled.read_text())
    told = installed.run("strata", "train", "config.toml", code=2)
    assert "monkey.toml: No such file" in told and told.count("\n") == 1
