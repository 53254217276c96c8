"""Strata in the C locale: text files are UTF-8, and so is what a command prints, whatever the locale says."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from strata.cli import exits
from tests.checkout import CHECKOUT

PACKAGES = ("strata", "app", "workers", "models", "samples", "training", "bench")
C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def calls_without_encoding(source: str) -> Iterator[int]:
    """The lines of calls that read or write text in the locale's encoding. Ruff finds them only if it sees a type."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        keywords = {keyword.arg for keyword in node.keywords}
        # pathlib's methods take the encoding first; a resource's read_text too
        reads = name == "write_text" or (name == "read_text" and not node.args)
        mode = node.args[0].value if len(node.args) == 1 and isinstance(node.args[0], ast.Constant) else None
        opens = name == "open" and mode in ("r", "w", "a", "x", "r+", "a+", "w+")
        runs = name in ("run", "Popen", "check_output") and keywords & {"text", "universal_newlines"}
        if (reads or opens or runs) and "encoding" not in keywords:
            yield node.lineno


def test_the_search_finds_calls() -> None:
    source = "p.read_text()\np.read_text('utf-8')\np.open('w')\np.open('wb')\nrun(a, text=True)\np.write_text(a)"
    assert sorted(calls_without_encoding(source)) == [1, 3, 5, 6]


def test_no_package_reads_or_writes_text_in_the_encoding_of_the_locale() -> None:
    files = [path for package in PACKAGES for path in (CHECKOUT / package).rglob("*.py")]
    found = [f"{path}:{line}" for path in files for line in calls_without_encoding(path.read_text(encoding="utf-8"))]
    assert len(files) > 100 and found == []


def run(*arguments: str, **environment: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command in the C locale."""
    done = subprocess.run(
        [sys.executable, "-m", "strata", *arguments],
        env={**os.environ, **C_LOCALE, **environment},
        cwd=CHECKOUT,
        capture_output=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.parametrize("profile", ["demo", "paper", "modern"])
def test_a_profile_is_checked(profile: str) -> None:
    code, out, err = run("profiles", "check", profile)
    assert (code, err) == (0, "") and out.startswith(f"{profile}: valid ")


def test_text_and_paths_beyond_ascii_are_read_and_printed(tmp_path: Path) -> None:
    folder = tmp_path / "größe"
    folder.mkdir()
    text = '# größe\n[stages.orc]\nbackend = "größe"\nmodel = "m"\nrevision = ""\n'
    (folder / "mine.toml").write_text(text, encoding="utf-8")
    code, out, err = run("profiles", "check", "mine", STRATA_PROFILES_DIR=str(folder))
    assert code == exits.PROFILE_INVALID and "Traceback" not in err
    assert f"{folder}/mine.toml: stages.orc: unknown stage" in out
