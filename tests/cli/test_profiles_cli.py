"""`strata profiles`: the faults of a profile on the terminal, and the table of back ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from strata.cli import exits
from strata.cli.main import main
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
    assert capsys.readouterr().err == "strata: unknown profile 'dmo'; there are: demo, laptop, modern, paper\n"


def test_back_ends_are_listed_with_their_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("backends") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(installed().back_ends)
    assert "segmenter  classical     max_masks, smallest, side" in lines
    assert "matcher    blip2         no parameters" in lines
