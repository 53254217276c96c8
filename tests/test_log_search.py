"""The search for secrets in the logs of a session finds them wherever they may be, each time."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

from tests.checkout import CHECKOUT
from tests.secrets import SECRET

LEAKS = {
    "a log record": "import logging; logging.getLogger('strata').warning('key %s', SECRET)",
    "a record below warning": "import logging; logging.getLogger('app').info('key %s', SECRET)",
    "the traceback of a record": """
    import logging
    try:
        raise ValueError(SECRET)
    except ValueError:
        logging.getLogger('workers').exception('failed')
    """,
    "stdout": "print(SECRET)",
    "stderr of a child": "run([sys.executable, '-c', f'import sys; print({SECRET!r}, file=sys.stderr)'])",
    "captured output of a child": "run([sys.executable, '-c', f'print({SECRET!r})'], capture_output=True)",
    "a file of a child": """
    with (tmp_path / 'any').open('wb') as file:
        run([sys.executable, '-c', f'print({SECRET!r})'], stdout=file)
    """,
    "a log in the temporary folder": "(tmp_path / 'server.log').write_text(SECRET)",
    "a job file": "(tmp_path / 'request.json').write_text(SECRET)",
    "what a test reads": "print(SECRET); capsys.readouterr()",
}
HARMLESS = {
    "nothing": "pass",
    "in a variable": "assert SECRET",
    "exempt": "print(SECRET)",
}
LETTERS = "abcdefghijklmnopqrstuvwxyz"
HEAD = "import sys\nfrom subprocess import run\nimport pytest\nfrom tests.secrets import SECRET\n\n\n"

pytestmark = pytest.mark.prints_secret


def session(*bodies: str, mark: str = "", processes: int = 0) -> tuple[int, str]:
    """Exit code and output of a session with a test for each body, of the names of `LETTERS`.

    processes: of pytest-xdist.
    """
    text = HEAD
    for letter, body in zip(LETTERS, bodies, strict=False):
        inner = textwrap.indent(textwrap.dedent(body), "    ")
        text += f"{mark}\ndef test_leak_{letter}(tmp_path, capsys):\n{inner}\n\n\n"
    # outside of the temporary folder of this session, which is searched itself
    with tempfile.TemporaryDirectory(prefix="log-search-") as folder:
        file = Path(folder) / "test_inner.py"
        file.write_text(text, encoding="utf-8")
        options = [
            "-n",
            str(processes),
            "-p",
            "tests.log_search",
            "-p",
            "no:cacheprovider",
            "-c",
            os.devnull,
            f"--rootdir={folder}",
        ]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options, f"--basetemp={folder}/temporary", str(file)],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=120,
            check=False,
        )
        return done.returncode, done.stdout


@pytest.mark.parametrize("body", LEAKS.values(), ids=LEAKS.keys())
def test_a_secret_is_found(body: str) -> None:
    code, output = session(body)
    assert code == pytest.ExitCode.TESTS_FAILED, output
    assert "secrets in logs" in output and SECRET in output


def test_each_secret_is_found_in_a_session_of_two_processes() -> None:
    code, output = session(*LEAKS.values(), processes=2)
    assert code == pytest.ExitCode.TESTS_FAILED, output
    told = output.partition("secrets in logs")[2].partition("short test summary")[0].splitlines()
    for letter, leak in zip(LETTERS, LEAKS, strict=False):
        assert any(f"test_leak_{letter}" in line and SECRET in line for line in told), (leak, output)


@pytest.mark.parametrize("body", HARMLESS.values(), ids=HARMLESS.keys())
def test_what_is_harmless_passes(body: str) -> None:
    code, output = session(body, mark="@pytest.mark.prints_secret" if "print" in body else "")
    assert code == 0 and "secrets in logs" not in output, output
