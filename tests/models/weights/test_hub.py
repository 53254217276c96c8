"""`strata models` against a hub on loopback, in a process of its own where that makes a difference.

It does for a command that is killed, and for HF_HUB_OFFLINE, which huggingface_hub reads when it is imported.
"""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from models.weights.cache import MANIFEST, weights_folder
from models.weights.hashes import NOTE
from models.weights.hub import needed
from models.weights.inventory import list_weights
from strata.core.profiles import StageSettings
from tests.checkout import CHECKOUT
from tests.cli.test_cli import code_of
from tests.servers.hub_server import HubServer, commit_of, running_hub

NAME = "owner/model"
WEIGHTS = random.Random(0).randbytes(25_000_000)  # more than two of the blocks in which huggingface_hub writes
FILES = {
    "config.json": b'{"model_type": "tiny"}',
    "merges.txt": b"a b\n",
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": b"pickle" * 10_000,
    "open_clip_model.safetensors": b"another's" * 10_000,
    "modeling_tiny.py": b"import os",
    "onnx/model.onnx": b"other",
    "README.md": b"words",
}
OURS = (MANIFEST, NOTE)
NEEDED = ["config.json", "merges.txt", "model.safetensors"]


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with running_hub() as server:
        server.repositories[NAME] = dict(FILES)
        yield server


class Command:
    """`strata models` for a profile of one stage."""

    def __init__(self, folder: Path, hub: HubServer) -> None:
        self.folder = folder
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(folder / "hf"),
            "STRATA_MODELS": str(folder / "models"),
            "PYTHONPATH": str(CHECKOUT),
        }
        self.profile()

    def profile(self, revision: str = commit_of(NAME), name: str = NAME) -> None:
        """Write the profile; two stages share the weights."""
        lines = [f'backend = "florence2"\nmodel = "hub:{name}"\nrevision = "{revision}"\n']
        tables = "".join(f"[stages.{stage}]\n{lines[0]}" for stage in ("captioner", "detector"))
        (self.folder / "tiny.toml").write_text(tables)

    def _line(self, *arguments: str) -> list[str]:
        return ["models", arguments[0], "tiny", "--profiles", str(self.folder), *arguments[1:], "--json"]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """The command begun in a process of its own."""
        what = [sys.executable, "-m", "strata", *self._line(*arguments)]
        return subprocess.Popen(
            what, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=CHECKOUT
        )

    def run_apart(self, *arguments: str) -> tuple[int, dict[str, Any], str]:
        """As `run`, in a process of its own."""
        process = self.start(*arguments)
        out, told = process.communicate(timeout=120)
        return process.returncode, _captioner(out, told), told

    def run(self, *arguments: str) -> tuple[int, dict[str, Any], str]:
        """Exit code, what it found for the captioner, and what it told."""
        out, told = io.StringIO(), io.StringIO()
        with patch.dict(os.environ, self.environment, clear=True), redirect_stdout(out), redirect_stderr(told):
            code = code_of(*self._line(*arguments))
        return code, _captioner(out.getvalue(), told.getvalue()), told.getvalue()

    @property
    def weights(self) -> Path:
        """The folder in which the weights shall lie."""
        return self.folder / "models" / f"owner--model@{commit_of(NAME)[:12]}"


def _captioner(out: str, told: str) -> dict[str, Any]:
    """What the command found for the captioner, which is what it found for the detector."""
    assert "Traceback" not in told, told
    captioner, detector = (json.loads(line) for line in out.splitlines())
    assert captioner | {"stage": "detector"} == detector
    found: dict[str, Any] = captioner
    return found


@pytest.fixture
def models(tmp_path: Path, hub: HubServer) -> Command:
    return Command(tmp_path, hub)


def test_sizes_are_told_ahead_and_only_what_is_needed_comes(models: Command, hub: HubServer) -> None:
    size = sum(len(FILES[name]) for name in NEEDED)
    code, found, told = models.run("list")
    assert (code, found["state"], found["missing_bytes"]) == (0, "missing", size)
    assert "to fetch: 25.0 MB" in told
    assert hub.downloads() == []

    code, found, told = models.run("fetch")
    assert (code, found["state"]) == (0, "ready")
    assert "to fetch: 25.0 MB; free in" in told
    assert [name for name, _ in hub.downloads()] == NEEDED
    assert {path.name: path.read_bytes() for path in models.weights.iterdir() if path.name not in OURS} == {
        name: FILES[name] for name in NEEDED
    }
    manifest = json.loads((models.weights / "strata.json").read_text())
    assert (manifest["revision"], manifest["source"]) == (commit_of(NAME), hub.url)
    assert sorted(manifest["files"]) == NEEDED


def test_what_is_here_needs_no_hub(models: Command, hub: HubServer) -> None:
    assert models.run("fetch")[0] == 0
    models.environment |= {"HF_ENDPOINT": "http://127.0.0.1:9"}
    asked = len(hub.asked)
    for what in ("fetch", "list", "check"):
        assert models.run(what)[:2][0] == 0
    assert len(hub.asked) == asked
    shutil.rmtree(models.weights)
    models.environment |= {"HF_HUB_OFFLINE": "1"}
    code, found, _ = models.run_apart("fetch")
    assert (code, found["detail"]) == (3, f"{NAME} is not on this machine, and HF_HUB_OFFLINE is set")


def test_without_a_hub_the_known_sizes_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STRATA_MODELS", str(tmp_path))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert not list_weights("small", None, None, as_json=True)
    out, told = capsys.readouterr()
    found = {one["stage"]: one for one in map(json.loads, out.splitlines())}
    assert found["matcher"]["missing_bytes"] == 1_501_000_000
    assert "http://127.0.0.1:9 cannot be reached (" in found["matcher"]["detail"]
    # the composer is the captioner's Qwen, which counts once
    assert "to fetch: about 6.4 GB" in told


def test_a_killed_fetch_goes_on_where_it_stopped(models: Command, hub: HubServer) -> None:
    hub.stall_at = 15_000_000
    process = models.start("fetch")
    part = models.weights.with_name(f"{models.weights.name}.partial") / "model.safetensors.part"
    deadline = time.monotonic() + 120
    while not part.is_file() or part.stat().st_size < 10_000_000:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert not models.weights.exists()
    here = part.stat().st_size
    hub.stall_at, hub.asked = None, []
    code, found, told = models.run("fetch")
    assert (code, found["state"]) == (0, "ready")
    assert f"to fetch: {(25_000_000 - here) / 1e6:.1f} MB" in told
    assert hub.downloads() == [("model.safetensors", f"bytes={here}-")]
    assert (models.weights / "model.safetensors").read_bytes() == WEIGHTS


def test_a_broken_connection_is_taken_up_again(models: Command, hub: HubServer) -> None:
    hub.break_at = 12_000_000
    assert models.run("fetch")[0] == 0
    spans = [span for name, span in hub.downloads() if name == "model.safetensors"]
    assert spans[0] is None and spans[1] is not None
    assert (models.weights / "model.safetensors").read_bytes() == WEIGHTS


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_broken_bytes_are_not_kept(name: str, models: Command, hub: HubServer) -> None:
    hub.spoilt = {name}
    code, found, _ = models.run("fetch")
    assert (code, found["state"]) == (3, "missing")
    assert f"{name} of hub:{NAME} from {hub.url} has another size or hash" in found["detail"]
    assert not models.weights.exists()
    hub.spoilt = set()
    assert models.run("fetch")[0] == 0


def test_a_fault_on_disk_is_found_and_only_that_file_comes_again(models: Command, hub: HubServer) -> None:
    assert models.run("fetch")[0] == 0
    file = models.weights / "model.safetensors"
    file.write_bytes(WEIGHTS[:-1] + b"\x00")
    assert models.run("list")[1]["state"] == "ready"  # by its size
    code, found, _ = models.run("check")
    assert (code, found["state"]) == (3, "corrupt")
    assert str(file) in found["detail"]
    hub.asked = []
    assert models.run("fetch")[0] == 0
    assert hub.downloads() == [("model.safetensors", None)]
    assert file.read_bytes() == WEIGHTS


def test_what_the_hub_refuses_is_told_in_a_line(models: Command, hub: HubServer) -> None:
    hub.gated = True
    code, found, _ = models.run("fetch")
    assert (code, found["detail"]) == (3, f"{NAME} is gated: accept its terms on the hub and set HF_TOKEN")
    models.profile(revision="0" * 40)
    assert models.run("fetch")[1]["detail"] == f"{NAME} has no revision '{'0' * 40}'"
    models.profile(name="owner/other")
    assert models.run("fetch")[1]["detail"] == "owner/other does not exist, or is private: set HF_TOKEN"
    models.profile()
    del hub.repositories[NAME]["model.safetensors"]
    assert "no weights as safetensors; pickles are not loaded" in models.run("fetch")[1]["detail"]
    models.environment["HF_ENDPOINT"] = "http://127.0.0.1:9"
    assert f"{NAME} cannot be downloaded: " in models.run("fetch")[1]["detail"]


def test_a_branch_is_no_revision(models: Command, hub: HubServer) -> None:
    models.profile(revision="main")
    code, found, _ = models.run("fetch")
    assert code == 3
    assert "revision 'main' is no commit" in found["detail"]
    assert f'put revision = "{commit_of(NAME)}" into the profile' in found["detail"]
    assert hub.downloads() == []
    with pytest.raises(ValueError, match="is not pinned"):
        weights_folder(StageSettings(backend="tiny", model=f"hub:{NAME}", revision="main"))


def test_too_small_a_disk_is_told_before_the_first_byte(
    models: Command, hub: HubServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("STRATA_MODELS", str(models.folder / "models"))
    usage = shutil.disk_usage(models.folder)._replace(free=24_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert code_of("models", "fetch", "tiny", "--profiles", str(models.folder)) == 3
    assert "1.0 MB too little disk space" in capsys.readouterr().err
    assert hub.downloads() == []


def _brought(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in ("config.json", "merges.txt", "model.safetensors", "pytorch_model.bin"):
        (folder / name).write_bytes(FILES[name])
    return folder


@pytest.mark.parametrize("inside", ["", "hub"])
def test_a_hub_cache_brought_along(inside: str, models: Command, hub: HubServer) -> None:
    root = models.folder / "brought"
    snapshot = _brought(root / inside / "models--owner--model" / "snapshots" / commit_of(NAME))
    code, found, _ = models.run("fetch", "--from", str(root))
    assert (code, found["state"]) == (0, "ready")
    assert f"from {snapshot}" in found["detail"] and "trust" not in found["detail"]
    assert (models.weights / "model.safetensors").read_bytes() == WEIGHTS
    assert not (models.weights / "pytorch_model.bin").exists()
    assert hub.asked == []


def test_a_folder_brought_along_is_taken_at_its_word_or_at_ours(models: Command) -> None:
    root = models.folder / "brought"
    folder = _brought(root / NAME)
    code, found, _ = models.run("fetch", "--from", str(root))
    assert code == 0
    assert f"revision {commit_of(NAME)[:12]} not verified" in found["detail"]
    shutil.rmtree(models.weights)
    left = folder / ".cache" / "huggingface" / "download"
    left.mkdir(parents=True)
    (left / "config.json.metadata").write_text(f"{'1' * 40}\netag\n0.0\n")
    code, found, _ = models.run("fetch", "--from", str(root))
    assert (code, found["state"]) == (3, "missing")
    assert f"{folder} is revision {'1' * 40}" in found["detail"]
    assert "holds neither" in models.run("fetch", "--from", str(models.folder / "empty"))[1]["detail"]


def test_whole_weights_are_taken_before_numbered_ones_and_each_back_end_its_own() -> None:
    numbered = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"]
    extra = ["model.fp16.safetensors", "open_clip_model.safetensors", "sub/model.safetensors"]
    assert needed([*numbered, *extra], "florence2") == numbered
    assert needed([*numbered, *extra, "model.safetensors"], "x") == ["model.safetensors", numbered[2]]
    assert needed([*numbered, *extra], "open_clip") == ["model.safetensors.index.json", "open_clip_model.safetensors"]
