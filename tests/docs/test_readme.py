"""README's commands and Python examples are run as they stand, in one shell session against a running service.

The service is real but for its models: tests.fakes computes in their place. Blocks after a comment
`<!-- not run: … -->` need a GPU or a download; their commands are parsed by the real command line.
"""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import datasets
import pytest
import uvicorn

from strata.core.profiles import Profile
from strata.core.settings import Settings
from strata.data import MixtureFile
from strata.describing import shared
from strata.environment import OTHERS
from strata.queue.embedded import EmbeddedServer
from strata.queue.queue import Queue
from strata.snapshots import read_selection_file
from tests.cli.test_cli import code_of
from tests.docs.blocks import Block, blocks_of, check_names, check_strata, inline_commands, words_of
from tests.fakes import FakeLlm, FakeVision
from tests.service import running_service
from training.config import Config
from workers.describing import pipelines

ROOT = Path(__file__).parent.parent.parent
README = ROOT / "README.md"
PYTHON = ROOT / "docs" / "python.md"
# of the two others one is history, and tests/bench/test_page.py checks the other
PAGES = [README, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]
PAGES += [page for page in sorted((ROOT / "docs").rglob("*.md")) if page.stem not in ("decisions", "benchmarks")]
ADDRESS = "http://127.0.0.1:8080"
SAMPLES = "samples/shards/00000.tar"  # the shard that README and the tutorial submit
IMAGES = 64  # in it
PORT_IN_USE = 4  # exit code


@dataclass
class Place:
    """A folder as README assumes it, and the address of the service."""

    folder: Path
    url: str
    environment: dict[str, str]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The service over HTTP, started in a folder with the checkout's images and shards, and `strata` on the PATH."""
    folder = tmp_path_factory.mktemp("readme")
    for name in ("images", "photographs", "shards"):
        shutil.copytree(ROOT / "samples" / name, folder / "samples" / name)
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "activate").touch()
    commands = folder / "bin"
    commands.mkdir()
    (commands / "strata").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m strata "$@"\n')
    (commands / "strata").chmod(0o755)
    data = folder / ".strata"
    with (
        EmbeddedServer(tmp_path_factory.mktemp("valkey")) as valkey,
        running_service(Queue(valkey.url), folder, data_dir=data, shard_roots=[str(folder)]) as service,
    ):
        # the profile of the drawn scenes, computed by the same fakes
        shutil.copy(folder / "profiles" / "fake.toml", folder / "profiles" / "demo.toml")
        config = uvicorn.Config(service.client.app, port=0, log_level="error", lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        environment = {
            "PATH": f"{commands}:/usr/local/bin:/usr/bin:/bin",
            "PYTHONPATH": str(ROOT),
            "HOME": str(folder),
            "STRATA_URL": url,
            "STRATA_STORE": str(data / "store"),
            "STRATA_PORT": str(port),
        }
        try:
            yield Place(folder, url, environment)
        finally:
            server.should_exit = True
            thread.join()


def test_console_blocks(place: Place) -> None:
    script: list[str] = []
    for block in blocks_of(README, "console"):
        for command in block.commands:
            words = words_of(command)
            if block.reason is not None:
                _check_only(words)
            elif words[0] == "make":
                _check_make(words)
            elif words[:2] == ["strata", "serve"]:
                _check_serve(words, place)
            else:
                assert words[0] in ("strata", "curl", "source"), f"README runs {words[0]}, which this test cannot check"
                if words[0] != "curl" or shutil.which("curl"):
                    script.append(command.replace(ADDRESS, place.url))
    assert len(script) >= 10
    done = _run(["bash", "-euxo", "pipefail", "-c", "\n".join(script)], place)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = (place.folder / "rows.jsonl").read_text().splitlines()
    assert len(rows) == IMAGES
    assert list((place.folder / "llava").iterdir())


def _check_only(words: list[str]) -> None:
    if words[0] == "strata":
        check_strata(words)
    else:
        assert words[0] in ("source", "pip"), words


def _check_make(words: list[str]) -> None:
    done = subprocess.run([*words, "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _check_serve(words: list[str], place: Place) -> None:
    """A service for which everything is right but its port, which is in use: its arguments were accepted."""
    done = _run(words, place)
    assert done.returncode == PORT_IN_USE, done.stderr


def _run(command: list[str], place: Place) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=place.folder, env=place.environment, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture
def in_process(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """`describe` computes with the same fakes as the service, in the folder of the service."""
    monkeypatch.chdir(place.folder)
    monkeypatch.setattr(pipelines, "VisionPipeline", FakeVision)
    monkeypatch.setattr(pipelines, "LlmPipeline", FakeLlm)
    monkeypatch.setenv("STRATA_PROFILES_DIR", str(place.folder / "profiles"))
    monkeypatch.setenv("STRATA_PROFILE", "fake")
    shared().close()  # one of another test has other settings


@pytest.mark.usefixtures("in_process")
def test_python_blocks(place: Place) -> None:
    blocks = blocks_of(README, "python")
    printed = [_output(block, place.url) for block in blocks]
    assert len(printed) == 3
    assert " by " in printed[0]
    caption, counts, *records = printed[1].splitlines()
    assert "by" in caption and f"succeeded={IMAGES}" in counts
    assert len(records) == IMAGES
    rows = int(printed[2].split()[0])
    assert rows >= IMAGES


@pytest.mark.usefixtures("in_process")
def test_python_blocks_of_the_page_on_python(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(place.folder / "cache"))
    printed = [_output(block, place.url).splitlines() for block in blocks_of(PYTHON, "python")]
    one, several, each, hugging_face, blocking, awaiting, uploads = printed
    assert " by " in one[0]
    assert [line.split()[1] for line in several[:3]] == ["succeeded", "failed", "failed"] and several[3] == "2"
    assert len(each) == len(list((place.folder / "samples" / "images").iterdir()))
    assert len(hugging_face) == 2 and all(" by " in line for line in hugging_face)
    assert f"succeeded={IMAGES}" in blocking[1]
    assert sum(line.endswith("succeeded") for line in awaiting) == IMAGES
    assert f"succeeded={len(each)}" in uploads[0] and uploads[0].endswith("{}")


def _output(block: Block, url: str) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(block.text.replace(ADDRESS, url), "README.md", "exec"), {})
    return printed.getvalue()


def test_every_setting_is_in_the_table() -> None:
    table = README.read_text().partition("## Settings")[2].partition("\n## ")[0]
    named = set(re.findall(r"`((?:STRATA|REDIS)_\w+)`", table))
    known = {"REDIS_URL" if name == "redis_url" else f"STRATA_{name.upper()}" for name in Settings.model_fields}
    assert named == known | set(OTHERS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://")) and "reference/" not in target:  # generated pages
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_every_page_are_accepted(page: Path) -> None:
    for block in blocks_of(page, "console"):
        for command in block.commands:
            words = words_of(command)
            if words[:1] == ["strata"]:
                check_strata(words)
            elif words[:1] == ["make"]:
                _check_make(words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_within_sentences_exist(page: Path) -> None:
    for command in inline_commands(page):
        check_names(command)


def test_a_command_or_option_that_does_not_exist_is_found() -> None:
    check_names("strata models fetch PROFILE --from DIR")
    for wrong in ("strata fetch", "strata models fech", "strata clean --force", "strata keys list --tenant x"):
        with pytest.raises(AssertionError):
            check_names(wrong)


@pytest.mark.parametrize(
    ("page", "snapshot"), [("tutorial/first-image.md", "scenes"), ("how-to/snapshot-and-train.md", "cc3m-213k")]
)
def test_python_blocks_of_pages(
    place: Place, page: str, snapshot: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They read a snapshot; the page's commands make it, here from one shard."""
    monkeypatch.chdir(place.folder)
    for name in ("STRATA_URL", "STRATA_STORE"):
        monkeypatch.setenv(name, place.environment[name])
    assert code_of("submit", SAMPLES) == 0
    job = capsys.readouterr().out.strip()
    assert code_of("status", job, "--follow") == 0
    assert code_of("snapshot", "create", snapshot, "--from", job) == 0
    monkeypatch.setenv("XDG_CACHE_HOME", str(place.folder / "cache"))
    printed = "".join(_output(block, place.url) for block in blocks_of(ROOT / "docs" / page, "python"))
    assert re.search(r"'role': 'assistant', 'content': '\d+ by \d+'", printed), printed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_profiles_and_trainings_in_pages_are_valid(page: Path, tmp_path: Path) -> None:
    for block in blocks_of(page, "toml"):
        data = tomllib.loads(block.text)
        if page.name == "train.md":
            optimizer = {"learning_rate": 1, "batch_size": 1}
            needed = {"mixture": "m", "output": "o", "model": {"path": "p"}, "optimizer": optimizer, "steps": 1}
            Config.model_validate({**needed, **data})
        elif page.name == "mixture.md":
            MixtureFile.model_validate({"name": "m", **data})
        elif block.text.startswith("# half.toml"):
            (tmp_path / "half.toml").write_text(block.text, encoding="utf-8")
            assert read_selection_file(tmp_path / "half.toml")["share"] == 0.5
        else:
            Profile.model_validate({"name": "example", "stages": {}, **data})
