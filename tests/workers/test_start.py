"""What keeps a worker from starting."""

from __future__ import annotations

from pathlib import Path

import pytest

from strata.cli import exits
from strata.cli.main import main


@pytest.mark.parametrize("groups", ["index", "vision,llm"])
@pytest.mark.parametrize(
    ("profile", "code", "told"),
    [
        ("mine", exits.PROFILE_INVALID, "/mine.toml: stages.orc: unknown stage; did you mean 'ocr'?"),
        ("none", exits.USAGE, "unknown profile 'none'; there are: mine"),
    ],
)
def test_the_profile_is_checked_before_any_work(
    groups: str,
    profile: str,
    code: int,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "mine.toml").write_text('[stages.orc]\nbackend = "rapidocr"\nmodel = "m"\nrevision = ""\n')
    monkeypatch.setenv("STRATA_PROFILES_DIR", str(tmp_path))
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")  # nobody is there, and nobody is asked
    with pytest.raises(SystemExit) as caught:
        main(["worker", "--groups", groups, "--profile", profile])
    assert caught.value.code == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("strata worker: ") and line.endswith(told)
