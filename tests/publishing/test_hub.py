"""`strata push` and `pull` against a hub on loopback."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import DatasetCard

from strata.cli import exits
from strata.data.exports import Form
from strata.publishing.checksums import SUMS, files_of, sums_of, sums_text
from strata.publishing.hub import HubDataset
from tests.checkout import CHECKOUT
from tests.cli.test_cli import code_of
from tests.secrets import SECRET
from tests.servers.hub_server import SIGNATURE, DataSet, HubServer, running_hub

NAME = "ada/cars"
PLACE = f"hub:{NAME}"
LARGE_FILES = 5


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    """A hub that wants a token, which is in the environment; files go by Git LFS, since it has no Xet."""
    with running_hub() as server:
        server.token = SECRET
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", SECRET)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        yield server


@pytest.fixture
def exported(exports: Callable[[Form], Path], tmp_path: Path) -> Path:
    """An export in Parquet."""
    return Path(shutil.copytree(exports("parquet"), tmp_path / "out"))


def large_export(folder: Path) -> Path:
    """A folder with the papers of an export and some large files."""
    (folder / "data").mkdir(parents=True)
    source = random.Random(0)
    for number in range(LARGE_FILES):
        (folder / "data" / f"{number:05d}.parquet").write_bytes(source.randbytes(50_000))
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Large\n", encoding="utf-8")
    write_sums(folder)
    return folder


def write_sums(folder: Path) -> None:
    (folder / SUMS).write_text(sums_text(sums_of(folder, files_of(folder))), encoding="utf-8")


def content(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in [*files_of(folder), SUMS]}


def test_a_push_is_one_commit_and_private(
    hub: HubServer, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert code_of("push", PLACE, str(exported)) == 0
    dataset = hub.datasets[NAME]
    assert dataset.private and len(dataset.messages) == 1 and dataset.files == content(exported)
    assert DatasetCard(dataset.files["README.md"].decode()).data.to_dict()["size_categories"] == ["n<1K"]
    said = capsys.readouterr()
    assert said.out.startswith(f"{hub.url}/datasets/{NAME}: 6 files") and SECRET not in said.out + said.err
    # again: nothing is sent, and there is no further commit
    assert code_of("push", PLACE, str(exported)) == 0
    assert len(dataset.messages) == 1 and ": 0 files, 0.0 MB, 6 were there" in capsys.readouterr().out
    # and back
    assert code_of("pull", PLACE, str(tmp_path / "back")) == 0
    assert content(tmp_path / "back") == content(exported)
    assert f"{PLACE}@{dataset.commit}" in capsys.readouterr().out


def test_another_export_replaces_the_first(hub: HubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = large_export(tmp_path / "first")
    assert code_of("push", PLACE, str(first)) == 0
    hub.datasets[NAME].files["NOTES.md"] = b"by hand"
    second = Path(shutil.copytree(first, tmp_path / "second"))
    (second / "data" / "00004.parquet").unlink()
    (second / "README.md").write_text("---\nlicense: mit\n---\n# Second\n", encoding="utf-8")
    write_sums(second)
    assert code_of("push", PLACE, str(second)) == 0
    assert hub.datasets[NAME].files == {**content(second), "NOTES.md": b"by hand"}
    assert capsys.readouterr().out.endswith(", 1 file of an earlier export removed\n")
    # what the hub has is not sent again
    assert len(hub.sent) == len(set(hub.sent)) == LARGE_FILES


def test_a_push_that_is_killed_goes_on(hub: HubServer, tmp_path: Path) -> None:
    out = large_export(tmp_path / "out")
    hub.stall_after = 2
    command = [sys.executable, "-m", "strata", "push", PLACE, str(out)]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    with subprocess.Popen(command, env=environment, cwd=tmp_path) as killed:
        assert hub.stalled.wait(60)
        killed.send_signal(signal.SIGKILL)
    # nothing can be seen of it
    assert hub.datasets[NAME].messages == [] and hub.datasets[NAME].files == {}
    sent = list(hub.sent)
    hub.stall_after = None
    hub.go_on.set()
    assert code_of("push", PLACE, str(out)) == 0
    assert hub.datasets[NAME].files == content(out) and len(hub.datasets[NAME].messages) == 1
    assert hub.sent[: len(sent)] == sent and len(hub.sent) == len(set(hub.sent)) == LARGE_FILES


def test_a_public_data_set_needs_a_word(hub: HubServer, exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hub.datasets[NAME] = DataSet(private=False)
    assert code_of("push", PLACE, str(exported)) == exits.USAGE
    assert "is public: add --public" in capsys.readouterr().err and hub.datasets[NAME].files == {}
    assert code_of("push", PLACE, str(exported), "--public") == 0
    assert code_of("push", "hub:ada/new", str(exported), "--public") == 0
    assert not hub.datasets["ada/new"].private and hub.datasets[NAME].files


def test_a_private_data_set_does_not_become_public(
    hub: HubServer, exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.datasets[NAME] = DataSet(private=True)
    assert code_of("push", PLACE, str(exported), "--public") == exits.USAGE
    assert "is private: leave out --public" in capsys.readouterr().err and hub.datasets[NAME].files == {}


def test_a_hub_without_xet_is_told(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HF_HUB_DISABLE_XET")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", False)
    assert code_of("push", PLACE, str(large_export(tmp_path / "out"))) == exits.USAGE
    (line,) = capsys.readouterr().err.splitlines()
    assert "set HF_HUB_DISABLE_XET=1" in line and SECRET not in line


class _Page(BaseHTTPRequestHandler):
    """What a proxy or a portal answers in the place of a hub."""

    def do_POST(self) -> None:
        body = b"<html>log in</html>"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.mark.usefixtures("hub")
def test_what_is_no_hub_is_told(
    exported: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Page) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("HF_ENDPOINT", url)
        assert code_of("push", PLACE, str(exported)) == exits.API_UNREACHABLE
        server.shutdown()
    assert capsys.readouterr().err.splitlines() == [f"strata: {url} answers something else than JSON: is it a hub?"]


@pytest.mark.parametrize("refused", [2, 1000])
def test_attempts_that_are_repeated_are_told(
    hub: HubServer, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, refused: int
) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time", SimpleNamespace(sleep=lambda seconds: None))
    monkeypatch.setattr("strata.publishing.hub._SECONDS", 3600.0)
    hub.refused = refused
    code = code_of("push", PLACE, str(large_export(tmp_path / "out")))
    said = capfd.readouterr().err.splitlines()
    assert code == (exits.API_UNREACHABLE if refused > 2 else 0)
    retries = [line for line in said if "retrying" in line]
    begin = f"strata: HTTP Error 500 to PUT {hub.url}/contents/"
    assert retries and all(line.startswith(begin) for line in retries), said
    # each attempt once, whatever number of files meets the same, then the last word; no address with its signature
    assert len(retries) == len({line.partition(": retrying")[2] for line in retries}) <= 5
    assert said[len(retries) :] == [] or (len(said) == len(retries) + 1 and f"{hub.url} answers 500" in said[-1])
    assert SIGNATURE not in "".join(said)


def test_a_full_disk_is_no_fault_of_the_hub(
    hub: HubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert code_of("push", PLACE, str(large_export(tmp_path / "out"))) == 0

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
    capsys.readouterr()
    assert code_of("pull", PLACE, str(tmp_path / "back")) == exits.USAGE
    assert capsys.readouterr().err == f"strata: {tmp_path / 'back'}: No space left on device\n"


def test_a_dry_run_lists_what_would_be_sent(hub: HubServer, exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("push", PLACE, str(exported), "--dry-run") == 0
    said = capsys.readouterr().out
    size = (exported / "data" / "00000.parquet").stat().st_size
    assert f"{size:,}  data/00000.parquet\n" in said and "6 files" in said and "  SHA256SUMS\n" in said
    assert not hub.datasets


def test_a_dry_run_asks_what_the_hub_has(hub: HubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = large_export(tmp_path / "first")
    assert code_of("push", PLACE, str(first)) == 0
    before = dict(hub.datasets[NAME].files)
    capsys.readouterr()
    assert code_of("push", PLACE, str(first), "--dry-run") == 0
    total = LARGE_FILES + 2
    assert capsys.readouterr().out == f"0 files, 0.0 MB would be sent to {PLACE}, {total} are there\n"
    second = Path(shutil.copytree(first, tmp_path / "second"))
    (second / "data" / "00004.parquet").unlink()
    write_sums(second)
    assert code_of("push", PLACE, str(second), "--dry-run") == 0
    assert "data/00004.parquet of an earlier export would be removed\n" in capsys.readouterr().out
    assert code_of("push", PLACE, str(second), "--dry-run", "--public") == exits.USAGE
    assert "is private: leave out --public" in capsys.readouterr().err
    assert hub.datasets[NAME].files == before and len(hub.datasets[NAME].messages) == 1


def test_only_what_the_checksums_list_is_sent(
    hub: HubServer, exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (exported / "token.txt").write_text("mine")
    assert code_of("push", PLACE, str(exported)) == 0
    assert "token.txt" not in hub.datasets[NAME].files and "token.txt is not in SHA256SUMS" in capsys.readouterr().err


@pytest.mark.parametrize("how", ["changed", "missing", "no export"])
def test_a_damaged_export_is_not_sent(
    hub: HubServer, exported: Path, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = exported / "data" / "00000.parquet"
    if how == "changed":
        data.write_bytes(data.read_bytes()[:-1] + b"x")
    elif how == "missing":
        data.unlink()
    else:
        (exported / SUMS).unlink()
    assert code_of("push", PLACE, str(exported)) == exits.REQUEST_REFUSED
    assert len(capsys.readouterr().err.splitlines()) == 1 and not hub.datasets


@pytest.mark.parametrize(
    ("token", "place", "said"),
    [
        ("wrong", PLACE, "the hub refuses (401): HF_TOKEN needs the right to write"),
        (SECRET, "hub:cars", "is not hub:OWNER/NAME"),
        (SECRET, f"{PLACE}@main", "a push names no revision"),
        (SECRET, "hub:ada/a..b", "cannot be a name on the hub"),
        (SECRET, "hub:ada/-b", "cannot be a name on the hub"),
    ],
)
def test_what_the_hub_refuses_is_one_line(
    hub: HubServer,
    exported: Path,
    token: str,
    place: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    assert code_of("push", place, str(exported)) in (exits.USAGE, exits.REQUEST_REFUSED)
    error = capsys.readouterr().err
    assert said in error and len(error.splitlines()) == 1 and SECRET not in error


def test_a_head_that_the_hub_does_not_read_is_refused(
    hub: HubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = large_export(tmp_path / "out")
    (out / "README.md").write_text("---\ntags: one\n---\n", encoding="utf-8")
    write_sums(out)
    assert code_of("push", PLACE, str(out)) == exits.REQUEST_REFUSED
    assert "Invalid metadata in README.md" in capsys.readouterr().err and hub.datasets[NAME].files == {}


def test_a_commit_in_between_is_told(
    hub: HubServer, exported: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    send = HubDataset._send

    def send_while_another_writes(self: HubDataset, *arguments: object) -> list[object]:
        hub.datasets[NAME].files["other"] = b"x"
        return send(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(HubDataset, "_send", send_while_another_writes)
    assert code_of("push", PLACE, str(exported)) == exits.REQUEST_REFUSED
    assert "has changed since the push began" in capsys.readouterr().err
    assert hub.datasets[NAME].files == {"other": b"x"}


def test_a_pull_checks_each_file_and_goes_on(
    hub: HubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = large_export(tmp_path / "out")
    assert code_of("push", PLACE, str(out)) == 0
    hub.spoilt.add("data/00003.parquet")
    assert code_of("pull", PLACE, str(tmp_path / "back")) == exits.REQUEST_REFUSED
    assert "data/00003.parquet does not have the checksum" in capsys.readouterr().err
    assert not (tmp_path / "back").exists()
    hub.spoilt.clear()
    hub.asked.clear()
    # the beginning of a file that an earlier pull has left
    part = tmp_path / ".back.partial" / "data" / "00003.parquet"
    part.write_bytes((out / "data" / "00003.parquet").read_bytes()[:20_000])
    assert code_of("pull", PLACE, str(tmp_path / "back")) == 0
    assert content(tmp_path / "back") == content(out)
    assert dict(hub.downloads())["00003.parquet"] == "bytes=20000-"
    assert code_of("pull", PLACE, str(tmp_path / "back")) == exits.USAGE
    assert code_of("pull", "hub:ada/none", str(tmp_path / "none")) == exits.REQUEST_REFUSED
    hub.datasets["ada/foreign"] = DataSet(True, {"a.txt": b"a"})
    assert code_of("pull", "hub:ada/foreign", str(tmp_path / "foreign")) == exits.REQUEST_REFUSED
    assert "has no SHA256SUMS" in capsys.readouterr().err


LIMITS = [
    ("MOST_FILES", 3, "more than the hub takes in a commit (3): export as webdataset, parquet or messages"),
    ("MOST_IN_FOLDER", 2, "data has 5 files, more than the hub takes in a folder (2)"),
    ("LARGEST_FILE", 20_000, "and the hub takes"),
]


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
@pytest.mark.parametrize(("limit", "number", "said"), LIMITS)
def test_what_the_hub_would_refuse_is_told_before_anything_is_read(
    hub: HubServer,
    tmp_path: Path,
    limit: str,
    number: int,
    said: str,
    more: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = large_export(tmp_path / "out")
    monkeypatch.setattr(f"strata.publishing.hub.{limit}", number)
    monkeypatch.setattr("strata.publishing.contents.sums_of", None)  # which reads all files
    assert code_of("push", PLACE, str(out), *more) == exits.USAGE
    assert said in capsys.readouterr().err and not hub.asked


def test_what_the_hub_advises_against_is_told(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = large_export(tmp_path / "out")
    monkeypatch.setattr("strata.publishing.hub.LARGE_FILE", 20_000)
    monkeypatch.setattr("strata.publishing.hub.FREE_PRIVATE", 100_000)
    assert code_of("push", PLACE, str(out), "--dry-run") == 0
    assert len(capsys.readouterr().err.splitlines()) == 3
    assert code_of("push", PLACE, str(out), "--dry-run", "--public") == 0
    line, made = capsys.readouterr().err.splitlines()
    assert "the hub asks for files of at most" in line and made.endswith("a push would make it, public")


def test_an_empty_list_of_checksums_is_no_export(
    hub: HubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / SUMS).write_text("")
    assert code_of("push", PLACE, str(tmp_path)) == exits.REQUEST_REFUSED
    assert "lists no file" in capsys.readouterr().err and not hub.asked
