"""`strata profiles`: the faults of a profile on the terminal, and the table of back ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from models.weights.inventory import PROFILES
from strata.cli import exits
from strata.cli.main import main
from strata.core.profiles import profile_names
from strata.core.registry import installed


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["profiles", *arguments])
    assert isinstance(caught.value.code, int)
    return caught.value.code


def test_a_valid_profile_tells_its_fingerprints(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", "demo") == 0
    assert capsys.readouterr().out.startswith("demo: valid (index ")


def test_faults_are_told_one_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('chunk_sise = 5\n[stages.orc]\nbackend = "rapidocr"\nmodel = "m"\nrevision = ""\n')
    assert run("check", str(path)) == exits.PROFILE_INVALID
    assert capsys.readouterr().out.splitlines() == [
        f"{path}: chunk_sise: unknown key; did you mean 'chunk_size'?",
        f"{path}: stages.orc: unknown stage; did you mean 'ocr'?",
    ]
    assert run("check", str(tmp_path / "none.toml")) == exits.PROFILE_INVALID
    assert capsys.readouterr().out.startswith(f"{tmp_path}/none.toml: cannot be read: ")


def test_an_unknown_name_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", "dmo") == exits.USAGE
    assert (
        capsys.readouterr().err
        == "strata: unknown profile 'dmo'; there are: " + ", ".join(profile_names(PROFILES)) + "\n"
    )


def test_back_ends_are_listed_with_their_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("backends") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(installed().back_ends)
    assert "segmenter  classical     max_masks, smallest, side" in lines
    assert "matcher    blip2         no parameters" in lines


def test_profiles_are_listed_one_a_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert run("list") == 0
    title, *lines = capsys.readouterr().out.splitlines()
    assert title.split() == ["profile", "needs", "download", "for"]
    assert [line.split()[0] for line in lines] == profile_names(PROFILES)
    assert "2.8 GB" in next(line for line in lines if line.startswith("laptop"))
    assert run("list", "--json") == 0
    assert [one["name"] for one in json.loads(capsys.readouterr().out)["profiles"]] == profile_names(PROFILES)


def test_a_profile_is_shown_with_models_licences_sizes_and_layers(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert run("show", "laptop") == 0
    out = capsys.readouterr().out
    florence = "hub:florence-community/Florence-2-base @ 00921df66db7: MIT, 463 MB (captioner, detector)"
    for part in (florence, "warning: ", "vision 1.3 GB / 2.6 GB", "regions        detector", "fingerprints  index "):
        assert part in out
    assert run("show", "everyday") == 0
    out = capsys.readouterr().out
    assert "builtin:grabcut @ 1: Apache-2.0 (segmenter)" in out and "licence not known" not in out
    assert run("show", "laptop", "--json") == 0
    assert json.loads(capsys.readouterr().out)["layers"][0] == "caption"


def test_faults_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[stages.orc]\n")
    for command in ("check", "show"):
        assert run(command, str(path), "--json") == exits.PROFILE_INVALID
        told = json.loads(capsys.readouterr().out)
        assert told["faults"] == ["stages.orc: unknown stage; did you mean 'ocr'?"]
    assert run("check", "demo", "--json") == 0
    assert set(json.loads(capsys.readouterr().out)["fingerprints"]) == {"index", "vision", "llm"}


def test_a_new_profile_is_written_and_can_be_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("new", "mine", "--from", "laptop", "--set", "evidence.region=0.05") == 0
    assert "STRATA_PROFILES_DIR=" in capsys.readouterr().out
    assert run("check", "profiles/mine.toml") == 0
    # a folder of one's own is where the next one goes, also if it is made from one of Strata's
    monkeypatch.setenv("STRATA_PROFILES_DIR", str(tmp_path / "profiles"))
    assert run("new", "other", "--from", "demo", "--set", "chunk_size=8", "--json") == 0
    assert run("new", "third", "--from", "mine") == 0
    assert profile_names(tmp_path / "profiles") == ["mine", "other", "third"]
    # its weights are found without --profiles, and those of Strata's own still are
    for name in ("other", "demo"):
        with pytest.raises(SystemExit) as caught:
            main(["models", "list", name])
        assert not caught.value.code
    assert "bundled:captioner" in capsys.readouterr().out


def test_a_new_profile_with_faults_is_not_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("new", "mine", "--from", "laptop", "--set", "evidence.region=5") == exits.PROFILE_INVALID
    told = capsys.readouterr()
    # the file that was to be written, not the one of the check
    assert told.out == "profiles/mine.toml: evidence.region: should be less than or equal to 1\n"
    assert told.err == "strata: nothing was written\n"
    for table in ("evidence=3", "stages.ocr=5", "stages=[]"):
        assert run("new", "mine", "--from", "everyday", "--set", table) == exits.PROFILE_INVALID
        (line,) = capsys.readouterr().out.splitlines()
        assert line.startswith(f"profiles/mine.toml: {table.partition('=')[0]}: should be a table")
    assert run("new", "mine", "--from", "laptop", "--set", "evidence") == exits.USAGE
    assert run("new", "mine", "--from", "lapotp") == exits.USAGE
    assert not (tmp_path / "profiles").exists()
