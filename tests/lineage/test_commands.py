"""Events of commands: snapshots, exports and runs; who is asked, and what happens if nobody takes them."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from bench.processes import BENCH_PROFILES
from strata.cli import exits
from strata.lineage import receivers
from strata.snapshots import Snapshot
from strata.store import Store
from tests.cli.test_cli import code_of
from tests.fakes import jpeg, write_shard
from tests.lineage.conftest import Event, Received, check, names
from tests.pinned import pin, write_shards
from tests.secrets import SECRET

AWAY = "http://127.0.0.1:9"
PARENT = "0192ab00-0000-7000-8000-000000000001"


@pytest.fixture
def snapshot(store: Store, tmp_path: Path) -> Snapshot:
    """Four images in a shard."""
    return pin(store, write_shards(tmp_path / "shards", 1, 4))


def export(store: Store, out: Path, *more: str) -> int:
    return code_of("export", "pinned", "--format", "llava", "--out", str(out), "--store", store.uri, *more)


def lines_of(file: Path) -> list[Event]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_a_snapshot_its_parts_and_an_export(
    store: Store, snapshot: Snapshot, tmp_path: Path, received: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, place = tmp_path / "events.jsonl", ["--store", store.uri]
    with monkeypatch.context() as patch:
        patch.setenv("OPENLINEAGE_URL", received.url)
        assert code_of("snapshot", "create", "two", "--from", "f" * 16, "--count", "2", *place) == 0
    for name in [name for name in os.environ if name.startswith("OPENLINEAGE__")]:
        monkeypatch.delenv(name)  # which the client has set
    assert code_of("snapshot", "split", "pinned", "--validation", "0.5", *place, "--openlineage", str(file)) == 0
    assert export(store, tmp_path / "out", "--openlineage", received.url) == 0
    events = [*received.events[:2], *lines_of(file), *received.events[2:]]
    for event in events:
        check(event)
    assert [event["eventType"] for event in events] == ["START", "COMPLETE"] * 3
    assert [event["job"]["name"] for event in events[::2]] == ["snapshot.two", "split.pinned", "export.pinned.out"]
    assert all(
        first["run"]["runId"] == last["run"]["runId"] for first, last in zip(events[::2], events[1::2], strict=True)
    )
    created, parted, exported = events[1::2]
    rows, pinned = ("file", f"{store.uri}/parts/llm/{'f' * 16}"), ("file", f"{store.uri}/snapshots/pinned")
    assert (names(created["inputs"]), names(created["outputs"])) == ([rows], [("file", f"{store.uri}/snapshots/two")])
    assert created["inputs"][0]["inputFacets"]["inputStatistics"]["rowCount"] == 4
    assert created["outputs"][0]["outputFacets"]["outputStatistics"]["rowCount"] == 2
    assert names(parted["inputs"]) == [pinned]
    assert [name.rpartition("/")[2] for _, name in names(parted["outputs"])] == ["pinned-train", "pinned-validation"]
    # an export continues the snapshot, column by column
    (data,) = exported["outputs"]
    assert (names(exported["inputs"]), names([data])) == ([pinned], [("file", str(tmp_path / "out"))])
    assert data["facets"]["version"]["datasetVersion"] == snapshot.id
    assert [one["name"] for one in data["facets"]["schema"]["fields"]] == ["id", "image", "conversations"]
    (origin,) = data["facets"]["columnLineage"]["fields"]["conversations"]["inputFields"]
    assert (origin["name"], origin["field"]) == (pinned[1], "description")


@pytest.mark.parametrize("form", ["parquet", "messages", "mds"])
def test_the_columns_of_tables(store: Store, snapshot: Snapshot, tmp_path: Path, form: str) -> None:
    file = tmp_path / "events.jsonl"
    place = ["--format", form, "--out", str(tmp_path / "out"), "--store", store.uri]
    assert code_of("export", "pinned", *place, "--layer", "regions", "--openlineage", str(file)) == 0
    event = lines_of(file)[1]
    check(event)
    facets = event["outputs"][0]["facets"]
    assert facets["schema"]["fields"][0]["name"] == "key"
    assert set(facets["columnLineage"]["fields"]) == {one["name"] for one in facets["schema"]["fields"]}
    assert facets["columnLineage"]["fields"]["messages" if form == "messages" else "boxes"]["inputFields"][0][
        "field"
    ] == ("regions")


def test_a_failure_is_told_without_secrets(
    store: Store, snapshot: Snapshot, tmp_path: Path, received: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> None:
        raise OSError(f"no answer of s3://key:{SECRET}@bucket/a?sig={SECRET}")

    monkeypatch.setattr("strata.publishing.export", broken)
    assert export(store, tmp_path / "out", "--openlineage", received.url) != 0
    started, failed = received.events
    check(failed)
    assert (started["eventType"], failed["eventType"]) == ("START", "FAIL")
    assert "no answer of s3://bucket/a" in failed["run"]["facets"]["errorMessage"]["message"]
    assert SECRET not in json.dumps(failed)


def test_the_environment_asks(
    store: Store, snapshot: Snapshot, tmp_path: Path, received: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert export(store, tmp_path / "none") == 0
    monkeypatch.setenv("OPENLINEAGE_URL", received.url)
    monkeypatch.setenv("OPENLINEAGE_API_KEY", SECRET)
    monkeypatch.setenv("OPENLINEAGE_NAMESPACE", "vision")
    monkeypatch.setenv("OPENLINEAGE_PARENT_ID", f"airflow/dag.task/{PARENT}")
    assert export(store, tmp_path / "out") == 0
    assert [event["eventType"] for event in received.events] == ["START", "COMPLETE"]
    assert received.keys == [f"Bearer {SECRET}"] * 2
    for event in received.events:
        check(event)
        assert event["job"]["namespace"] == "vision"
        assert event["run"]["facets"]["parent"]["run"]["runId"] == PARENT
    monkeypatch.setenv("OPENLINEAGE_DISABLED", "true")
    assert export(store, tmp_path / "disabled") == 0
    assert len(received.events) == 2


def test_a_file_of_the_client_asks(store: Store, snapshot: Snapshot, tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"
    config = {
        "transport": {"type": "file", "log_file_path": str(events), "append": True},
        "tags": {"run": {"team": "a"}},
    }
    (tmp_path / "openlineage.yml").write_text(json.dumps(config), encoding="utf-8")
    assert export(store, tmp_path / "out") == 0
    told = lines_of(events)
    assert len(told) == 2
    assert {"key": "team", "value": "a", "source": "USER"} in told[1]["run"]["facets"]["tags"]["tags"]


@pytest.mark.parametrize("how", ["option", "environment", "configuration"])
def test_a_receiver_that_is_away_stops_nothing(
    how: str,
    store: Store,
    snapshot: Snapshot,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    more: list[str] = []
    if how == "option":
        more = ["--openlineage", AWAY]
    elif how == "environment":
        # by the client's own settings it tries longer than a command waits
        monkeypatch.setattr(receivers, "CLOSE_SECONDS", 0.05)
        monkeypatch.setenv("OPENLINEAGE_URL", AWAY)
    else:
        monkeypatch.setenv("OPENLINEAGE__TRANSPORT__TYPE", "nothing.of.this.name")
    assert export(store, tmp_path / "out", *more) == 0
    said = capsys.readouterr()
    assert said.out.startswith(str(tmp_path / "out"))
    (line,) = said.err.splitlines()  # once, though two events were not taken
    assert line.startswith("strata: OpenLineage: ")
    # what waits in the thread ends with the process
    monkeypatch.setattr(receivers, "CLOSE_SECONDS", 5.0)


@pytest.mark.parametrize("place", ["", "ftp://host/x", "http://", "no/such/folder/events.jsonl", "."])
def test_a_place_that_cannot_be_used_is_refused_first(
    place: str, store: Store, snapshot: Snapshot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(store, tmp_path / "out", "--openlineage", place) == exits.USAGE
    assert "--openlineage" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_without_the_client(
    store: Store,
    snapshot: Snapshot,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "openlineage.client", None)
    assert export(store, tmp_path / "first", "--openlineage", "events.jsonl") == exits.USAGE
    assert "pip install 'strata[lineage]'" in capsys.readouterr().err
    monkeypatch.setenv("OPENLINEAGE_URL", AWAY)
    assert export(store, tmp_path / "second") == 0
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_run_without_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, shard = tmp_path / "events.jsonl", write_shard(tmp_path / "00000.tar", [jpeg() for _ in range(3)])
    monkeypatch.setattr("strata.cli.running.command._end_on_signals", lambda job: None)
    monkeypatch.setenv("STRATA_PROFILES_DIR", str(BENCH_PROFILES))
    (tmp_path / "notes").mkdir()
    place = ["--store", str(tmp_path / "store"), "--run-folder", str(tmp_path / "notes")]
    assert code_of("run", shard, "--profile", "fake", *place, "--openlineage", str(file)) == 0
    started, ended = lines_of(file)
    for event in (started, ended):
        check(event)
    assert (started["eventType"], ended["eventType"]) == ("START", "COMPLETE")
    assert started["run"]["runId"] == ended["run"]["runId"] and ended["job"]["name"] == "describe.fake"
    assert names(ended["inputs"]) == [("file", str(tmp_path))]
    assert ended["inputs"][0]["inputFacets"]["inputStatistics"] == ended["inputs"][0]["inputFacets"][
        "inputStatistics"
    ] | {
        "rowCount": 3,
        "fileCount": 1,
    }
    assert ended["outputs"][0]["outputFacets"]["outputStatistics"]["rowCount"] == 3
