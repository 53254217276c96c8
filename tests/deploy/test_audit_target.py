"""`.ci/audit` with a pip-audit that finds nothing, finds something, or cannot ask."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkout import CHECKOUT

CLEAN = '{"dependencies": [{"name": "a", "version": "1", "vulns": []}, {"name": "b", "skip_reason": "editable"}]}'
UNKNOWN = '{"dependencies": [{"name": "a", "skip_reason": "not found"}]}'
BAD = """{"dependencies": [{"name": "a", "version": "1", "vulns":
 [{"id": "CVE-1", "fix_versions": ["2", "3"]}, {"id": "CVE-2", "fix_versions": []}]}]}"""
AWAY = "urllib3.exceptions.NameResolutionError: no such host"


@pytest.mark.parametrize(
    ("written", "said", "code", "told"),
    [
        (
            CLEAN,
            "No known vulnerabilities found",
            0,
            ["b: not known: editable", "audit: 2 packages, 0 with advisories, 1 not known"],
        ),
        (UNKNOWN, "No known vulnerabilities found", 2, ["knows none of 1 packages", "not found"]),
        (BAD, "Found 2", 1, ["a 1: CVE-1, mended in 2, 3", "a 1: CVE-2, mended in no version", "1 with advisories"]),
        ("", f"Traceback\n{AWAY}", 2, [f"could not be asked, so nothing is known: {AWAY}"]),
        ("", "", 2, ["pip-audit said nothing"]),
    ],
)
def test_what_is_told(tmp_path: Path, written: str, said: str, code: int, told: list[str]) -> None:
    tool = tmp_path / "pip-audit"
    lines = [
        f"#!{sys.executable}",
        "import pathlib, sys",
        "arguments = sys.argv[1:]",
        "assert arguments[arguments.index('--path') + 1] == '/packages'",
        f"report = {written!r}",
        "report and pathlib.Path(arguments[arguments.index('--output') + 1]).write_text(report, encoding='utf-8')",
        f"sys.stderr.write({said!r})",
        "sys.exit(0 if report and 'CVE' not in report else 1)",
    ]
    tool.write_text("\n".join(lines), encoding="utf-8")
    tool.chmod(0o755)
    command = [sys.executable, str(CHECKOUT / ".ci" / "audit"), str(tool), "/packages"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120, check=False)
    assert done.returncode == code
    assert all(line in done.stdout + done.stderr for line in told), done
