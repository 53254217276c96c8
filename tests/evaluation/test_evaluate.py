"""`strata evaluate` on a store of its own, with the scenes of the bundled shard as the truth."""

from __future__ import annotations

from pathlib import Path

import pytest

from strata.cli import exits
from strata.evaluation.evaluation import Evaluation, read_evaluation
from strata.snapshots.selection import Selection
from strata.snapshots.snapshots import Snapshots
from strata.store.parts import PartsOf
from strata.store.store import Store
from tests.cli.test_cli import code_of
from tests.described import write_part
from tests.evaluation.conftest import FINGERPRINT, SHARD, record_of, samples


def evaluated(path: Path, *arguments: str) -> Evaluation:
    assert code_of("evaluate", *arguments, "--out", str(path), "--resamples", "100") == 0
    return read_evaluation(path)


@pytest.mark.usefixtures("scene_store")
def test_the_whole_truth_has_whole_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = evaluated(tmp_path / "a.json", "demo")
    told = {name: one.value for name, one in found.texts["description"].figures.items()}
    assert found.images == 64 and found.truth == {"scenes": 64}
    assert found.statuses == {"succeeded": 64, "failed": 1} and found.profile == "demo"
    for name in ("objects_recalled", "attributes_right", "relations_right", "text_recalled", "text_right"):
        assert told[name] == 1, name
    for name in ("objects_invented", "chair_i", "chair_s"):
        assert told[name] == 0, name
    # the alt texts of the demo world name nothing
    assert found.texts["alt_text"].figures["objects_recalled"].value == 0
    # the first region of each scene was dropped: all that is kept has its right box and name
    regions = found.texts["regions"].figures
    assert regions["boxes_right"].value == regions["boxes_named"].value == 1
    assert 0 < (regions["boxes_found"].value or 0) < 1
    # of two claims a record one was not supported; it is not in the description any more
    assert found.texts["composed"].figures["claims_supported"].value == 0.5
    assert told["claims_supported"] == 1
    assert found.reasons == {"unsupported_object": 64} and found.origins == {"composed": 64}
    assert "variant short" in found.texts and found.texts["unchecked"].baseline
    out = capsys.readouterr().out
    assert "objects_recalled" in out and "64 images, profile demo" in out and "None" not in out


@pytest.mark.usefixtures("scene_store")
def test_json_is_the_saved_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = evaluated(tmp_path / "a.json", "demo", "--json", "--images", "20")
    printed = Evaluation.model_validate_json(capsys.readouterr().out)
    assert printed == saved and saved.images == 20
    again = evaluated(tmp_path / "b.json", FINGERPRINT, "--images", "20")
    assert again.keys == saved.keys and again.texts == saved.texts  # the same seed, the same images and resamples
    other = evaluated(tmp_path / "c.json", "demo", "--images", "20", "--seed", "1")
    assert other.keys != saved.keys


def test_a_drop_has_an_exit_code(scene_store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluated(tmp_path / "base.json", "demo")
    worse = [record_of(*sample, invented=" There is a red hat and a camel.") for sample in samples()]
    write_part(scene_store, worse, fingerprint="e" * 16)
    arguments = ("evaluate", "e" * 16, "--resamples", "100")
    assert code_of(*arguments, "--against", str(tmp_path / "base.json")) == exits.QUALITY_DROPPED
    printed = capsys.readouterr()
    assert "description objects_invented" in printed.err and "dropped" in printed.out
    # the base may be a job, a data set or a snapshot too
    assert code_of("evaluate", "demo", "--resamples", "100", "--against", "e" * 16, "--images", "20") == 0


def test_a_snapshot_has_its_rows_alone(scene_store: Store, tmp_path: Path) -> None:
    parts = PartsOf(scene_store).data_set(FINGERPRINT)
    made = Snapshots(scene_store).create("few", parts, Selection(method="random", count=9))
    found = evaluated(tmp_path / "a.json", "few")
    assert found.kind == "snapshot" and found.images == 9 and found.statuses == {"succeeded": 9}
    assert evaluated(tmp_path / "b.json", made.id[:12]).keys == found.keys


def test_an_evaluation_of_other_images_is_refused_before_the_work(
    scene_store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = evaluated(tmp_path / "base.json", "demo", "--images", "20")
    other = base.model_copy(update={"keys": [f"other {key}" for key in base.keys]})
    (tmp_path / "base.json").write_text(other.model_dump_json(), encoding="utf-8")
    monkeypatch.setattr("strata.evaluation.evaluation.Tally.add", lambda *given: pytest.fail("no work was expected"))
    assert code_of("evaluate", "demo", "--against", str(tmp_path / "base.json")) == exits.USAGE
    assert "have no image in common" in capsys.readouterr().err


@pytest.mark.usefixtures("scene_store")
@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("absent",), exits.REQUEST_REFUSED, "no such job, snapshot, profile or fingerprint"),
        (("demo", "--against", "absent.json"), exits.REQUEST_REFUSED, "there is no such file, job, snapshot"),
        (("demo", "--against", str(SHARD)), exits.USAGE, "no saved evaluation"),
        (("demo", "--against", "/tmp"), exits.USAGE, "--against /tmp: a folder"),
        (("demo", "--truth", "absent.json"), exits.USAGE, "'--truth'"),
        (("demo", "--references", "absent.json"), exits.USAGE, "'--references'"),
        (("demo", "--references", __file__, "--graphs", "absent"), exits.USAGE, "'--graphs'"),
        (("demo", "--judge", "api", "--budget-money", "inf"), exits.USAGE, "inf is not a finite number"),
        (("demo", "--out", "/nowhere/a.json"), exits.USAGE, "its folder does not exist"),
        (("demo", "--out", "/tmp"), exits.USAGE, "a folder"),
    ],
)
def test_bad_input_is_one_line_before_the_work(
    arguments: tuple[str, ...],
    code: int,
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("strata.evaluation.rows.choose_rows", lambda *given: pytest.fail("no work was expected"))
    assert code_of("evaluate", *arguments, "--resamples", "100") == code
    lines = [line for line in capsys.readouterr().err.splitlines() if words in line]
    assert len(lines) == 1 and "Traceback" not in lines[0]
