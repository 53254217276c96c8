"""`bench.peers`: what it counts of a run, on its script and on Strata itself."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench.inputs.tiny_shards import write_shard
from bench.peers.__main__ import available, table
from bench.peers.rows import Bench
from bench.peers.runs import PEERS, Peer, Run, kill

SHARDS, IMAGES = 6, 20
BY_NAME = {peer.name: peer for peer in PEERS}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    for number in range(SHARDS):
        write_shard(folder / f"{number:05d}.tar", number * IMAGES, IMAGES)
    return folder


@pytest.mark.parametrize("name", ["script", "Strata"])
@pytest.mark.slow
def test_a_run_is_counted(name: str, shards: Path, tmp_path: Path) -> None:
    run = Run(BY_NAME[name], tmp_path, shards, 2, 0.0, sys.executable)
    run.complete(measured=True)
    assert run.exits == [0], (tmp_path / "log.txt").read_text()
    keys = run.keys()
    assert len(keys) == keys.total() == len(run.calls()) == SHARDS * IMAGES
    assert 0 < run.first_row <= run.whole and run.memory > 10 and run.rate() > 0


@pytest.mark.slow
def test_what_is_killed_and_started_again_is_counted(shards: Path, tmp_path: Path) -> None:
    run = Run(BY_NAME["script"], tmp_path, shards, 2, 0.01, sys.executable)
    kill(run.until(0.4, SHARDS * IMAGES))
    assert len(run.calls()) >= 0.4 * SHARDS * IMAGES - 1e-6  # 0.4 of 120 is a little more than 48
    run.complete()
    assert run.keys().total() == SHARDS * IMAGES
    assert len(run.calls()) >= SHARDS * IMAGES


def test_the_table_has_the_medians() -> None:
    bench = Bench(Path(), {BY_NAME["script"]: sys.executable})
    for value in (3.0, 1.0, 2.0):
        bench.figures["rows"]["script"].append(value)
    shown = table(bench.figures)
    assert [list(column.cells) for column in shown.columns] == [["rows"], ["2"]]


def test_a_peer_that_fails_has_no_figure_and_the_others_go_on(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = Peer("broken", "none", script="scripts.there_is_none")
    bench = Bench(tmp_path, {broken: sys.executable, BY_NAME["script"]: sys.executable})
    bench.empty_stage(SHARDS * IMAGES, 1)
    assert set(bench.figures["empty stage, images/s"]) == {"script"}
    assert "there_is_none" in capsys.readouterr().err


def test_what_is_computed_twice_after_a_kill_is_counted(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {BY_NAME["script"]: sys.executable})
    bench.killed(200, 2, everything=True)
    assert bench.figures["all killed: rows lost, %"]["script"] == [0]
    assert bench.figures["all killed: computed again, %"]["script"][0] > 0


def test_peers_without_their_packages_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    found = available([sys.executable], ["Strata", "script", "CaptionFlow"])
    assert {peer.name for peer in found} == {"Strata", "script"}
    assert "CaptionFlow is left out" in capsys.readouterr().err
