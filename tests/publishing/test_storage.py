"""`strata push` and `pull` with folders, S3 (moto) and memory; pushes that end in between at any file."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from s3fs import S3FileSystem

from strata.cli import exits
from strata.publishing.checksums import NOTES, SUMS, files_of, sums_of, sums_text
from strata.publishing.contents import contents_of
from strata.publishing.pulling import pull
from strata.publishing.storage import Storage
from tests.cli.test_cli import code_of
from tests.secrets import SECRET
from tests.servers.buckets import end_session, fresh_sessions, s3_server


def written(folder: Path, files: dict[str, bytes]) -> Path:
    """A folder with files and their checksums."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / SUMS).write_text(sums_text(sums_of(folder, files_of(folder))), encoding="utf-8")
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in [*files_of(folder), SUMS]}


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """A folder as an export's."""
    source = random.Random(0)
    data = {f"data/{number:05d}.parquet": source.randbytes(1000 + number) for number in range(6)}
    return written(tmp_path / "out", {**data, "README.md": b"# Card", "_names.jsonl": b"{}"})


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """An S3-compatible server's URL."""
    with s3_server() as url:
        yield url


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3FileSystem]:
    """An empty bucket, which the environment names, as for users."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with fresh_sessions():
        client = S3FileSystem(skip_instance_cache=True, use_listings_cache=False)
        client.mkdir("shared")
        yield client
        end_session(client)
        requests.post(f"{server}/moto-api/reset", timeout=10).raise_for_status()


def test_a_bucket(bucket: S3FileSystem, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = "s3://shared/sets/cars"
    assert code_of("push", place, str(exported)) == 0
    assert f"{place}: 9 files" in capsys.readouterr().out
    there = {path.removeprefix("shared/sets/cars/") for path in bucket.find("shared/sets/cars")}
    assert there == set(content(exported))  # and no notes
    assert code_of("push", place, str(exported), "--json") == 0
    assert '"sent": 0' in capsys.readouterr().out
    assert code_of("pull", place, str(tmp_path / "back")) == 0
    assert content(tmp_path / "back") == content(exported)
    assert code_of("pull", "s3://shared/none", str(tmp_path / "none")) == exits.REQUEST_REFUSED
    assert code_of("push", place, str(exported), "--public") == exits.USAGE


def test_a_push_to_a_bucket_goes_on(bucket: S3FileSystem, exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, contents = "s3://shared/sets/cars", contents_of(exported)
    monkeypatch.setattr("strata.publishing.contents.FILES_AT_ONCE", 2)
    storage = Storage(place)
    with monkeypatch.context() as patch:
        _end_after(patch, storage, 7)  # a note, two files and their note, two files
        with pytest.raises(Killed):
            storage.push(contents)
    assert not bucket.exists(f"shared/sets/cars/{SUMS}")
    pushed = Storage(place).push(contents)
    assert (pushed.files, pushed.sent) == (9, 7)
    there = {path.removeprefix("shared/sets/cars/"): bucket.cat_file(path) for path in bucket.find("shared/sets/cars")}
    assert there == content(exported)


class Killed(BaseException):
    """The end of a process."""


@pytest.mark.parametrize("scheme", ["file", "memory"])
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_push_goes_on_wherever_it_ended(
    tmp_path_factory: pytest.TempPathFactory, scheme: str, data: st.DataObject
) -> None:
    """Two exports are pushed to one place; pushes end before any write. In the end there is the last one, whole."""
    root = tmp_path_factory.mktemp("push")
    place = f"{scheme}://{root}/place"
    sets = [
        written(root / "first", {"README.md": b"1", "data/0": b"a" * 9, "data/1": b"b" * 9, "old": b"x"}),
        written(root / "second", {"README.md": b"2", "data/0": b"c" * 9, "data/1": b"b" * 9}),
    ]
    for _ in range(data.draw(st.integers(0, 4))):
        chosen = contents_of(data.draw(st.sampled_from(sets)))
        storage = Storage(place)
        left = data.draw(st.integers(0, 12))
        with pytest.MonkeyPatch.context() as patch:
            _end_after(patch, storage, left)
            try:
                storage.push(chosen)
            except Killed:
                # what lies there is a whole export or none
                text = Storage(place).sums()
                assert text in (None, *(contents_of(one).text for one in sets))
    Storage(place).push(contents_of(sets[1]))
    files = Storage(place).files
    there = {name: files.get(files.path(name)) for name in files.find()}
    assert there == content(sets[1])
    pull(Storage(place), root / "back")
    assert content(root / "back") == content(sets[1])


def _end_after(patch: pytest.MonkeyPatch, storage: Storage, writes: int) -> None:
    """Let the process end at a write or a removal, after so many of them."""
    left = [writes]

    def counted(act: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            if left[0] <= 0:
                raise Killed
            left[0] -= 1
            return act(*arguments, **options)

        return call

    patch.setattr(storage.files, "put", counted(storage.files.put))
    patch.setattr(storage.files, "remove", counted(storage.files.remove))
    patch.setattr(storage, "_send", counted(storage._send))


def test_what_was_sent_is_not_sent_again(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strata.publishing.contents.FILES_AT_ONCE", 2)
    storage = Storage(str(tmp_path / "place"))
    send, sent = storage._send, list[str]()

    def sending(contents: Any, name: str, advance: Any) -> None:
        if len(sent) == 5:
            raise Killed
        sent.append(name)
        send(contents, name, advance)

    monkeypatch.setattr(storage, "_send", sending)
    monkeypatch.setattr("strata.publishing.storage.THREADS", 1)
    contents = contents_of(exported)
    with pytest.raises(Killed):
        storage.push(contents)
    assert storage.sums() is None and (tmp_path / "place" / NOTES).is_dir()
    pushed = Storage(str(tmp_path / "place")).push(contents)
    assert (pushed.files, pushed.sent) == (9, 5)  # two batches of two were noted
    assert {path.name for path in (tmp_path / "place").iterdir()} == {"README.md", "_names.jsonl", "data", SUMS}


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_other_files_are_not_mixed_with_an_export(
    exported: Path, tmp_path: Path, more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "place").mkdir()
    (tmp_path / "place" / "thesis.tex").write_text("mine")
    assert code_of("push", str(tmp_path / "place"), str(exported), *more) == exits.REQUEST_REFUSED
    assert "has other files" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "place").iterdir()] == ["thesis.tex"]


def test_a_dry_run_tells_what_a_push_would_do(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "place"

    def planned(*more: str) -> dict[str, Any]:
        assert code_of("push", str(place), str(exported), "--dry-run", "--json", *more) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    sent = planned()
    assert list(sent["files"]) == [*files_of(exported), SUMS] and sent["there"] == 0
    assert not place.exists()
    assert code_of("push", str(place), str(exported)) == 0
    capsys.readouterr()
    assert planned() == {"place": str(place), "files": {}, "bytes": 0, "there": 9, "removed": []}
    # an edited card is sent, and a dry run does not note its checksum
    (exported / "README.md").write_text("# Mine", encoding="utf-8")
    sums = (exported / SUMS).read_bytes()
    assert "README.md" in planned()["files"] and (exported / SUMS).read_bytes() == sums
    (exported / "data" / "00005.parquet").unlink()
    (exported / SUMS).write_text(sums_text(sums_of(exported, files_of(exported))), encoding="utf-8")
    assert planned()["removed"] == ["data/00005.parquet"] and (place / "data" / "00005.parquet").exists()
    (exported / "data" / "00004.parquet").write_bytes(b"changed")
    assert code_of("push", str(place), str(exported), "--dry-run") == exits.REQUEST_REFUSED
    assert "is not what it was when it was exported" in capsys.readouterr().err


def test_notes_that_lead_elsewhere_remove_nothing(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    notes = tmp_path / "place" / NOTES / ("0" * 64)
    notes.mkdir(parents=True)
    (notes / "000000").write_text('["../victim", 3, "a/../../victim"]')
    (notes / "000001").write_text("no JSON")
    Storage(str(tmp_path / "place")).push(contents_of(exported))
    assert (tmp_path / "victim").read_text() == "mine"
    assert contents_of(tmp_path / "place").unlisted == []


@pytest.mark.parametrize("place", ["nowhere://x/y", "s3://shared/x"])
def test_what_cannot_be_reached_is_one_line(
    exported: Path, place: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    with fresh_sessions():
        assert code_of("push", place, str(exported)) == exits.USAGE
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and SECRET not in error


def test_a_pull_follows_no_link(exported: Path, tmp_path: Path) -> None:
    """What lies in the folder of an earlier pull: links, a file where a folder must be, a folder where a file must."""
    place, partial = tmp_path / "place", tmp_path / ".back.partial"
    Storage(str(place)).push(contents_of(exported))
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "00001.parquet").write_text("mine")
    partial.mkdir()
    (partial / "data").symlink_to(victim)
    (partial / "_names.jsonl").symlink_to(tmp_path / "written")
    (partial / "README.md").mkdir()
    (partial / "gone").symlink_to(tmp_path / "nowhere")
    pull(Storage(str(place)), tmp_path / "back")
    assert content(tmp_path / "back") == content(exported)
    assert not any(path.is_symlink() for path in (tmp_path / "back").rglob("*"))
    assert [path.name for path in victim.iterdir()] == ["00001.parquet"] and (
        victim / "00001.parquet"
    ).read_text() == "mine"
    assert not (tmp_path / "written").exists()
    # the folder itself
    (tmp_path / ".again.partial").symlink_to(victim)
    pull(Storage(str(place)), tmp_path / "again")
    assert content(tmp_path / "again") == content(exported) and len(list(victim.iterdir())) == 1


@pytest.mark.parametrize("name", ["../victim", "/victim", "README.MD"])
def test_a_pull_writes_nothing_elsewhere(exported: Path, tmp_path: Path, name: str) -> None:
    place = Path(shutil.copytree(exported, tmp_path / "place"))
    with (place / SUMS).open("a", encoding="utf-8") as file:
        file.write(f"{'0' * 64}  {name}\n")
    assert code_of("pull", str(place), str(tmp_path / "back")) == exits.REQUEST_REFUSED
    assert not (tmp_path / "back").exists() and not (tmp_path / "victim").exists()


def test_a_card_may_be_edited(exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = str(tmp_path / "place")
    (exported / "README.md").write_text("# Card, with what only I know\n", encoding="utf-8")
    assert code_of("push", place, str(exported)) == 0
    assert "README.md was edited" in capsys.readouterr().err
    assert content(tmp_path / "place") == content(exported)
    assert code_of("push", place, str(exported)) == 0
    assert "edited" not in capsys.readouterr().err
    # but nothing else may
    (exported / "README.md").write_text("# Again", encoding="utf-8")
    (exported / "_names.jsonl").write_text("", encoding="utf-8")
    assert code_of("push", place, str(exported)) == exits.REQUEST_REFUSED
    assert "_names.jsonl is not what it was" in capsys.readouterr().err


def test_a_changed_file_in_a_bucket_is_found(exported: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(exported, tmp_path / "place"))
    (place / "README.md").write_bytes(b"# Other")
    assert code_of("pull", str(place), str(tmp_path / "back")) == exits.REQUEST_REFUSED
    assert not (tmp_path / "back").exists()
