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
HEAD = "import sys\nfrom subprocess import run\nimport pytest\nfrom tests.secrets import SECRET\n\n\n"

pytestmark = pytest.mark.prints_secret


def session(body: str, mark: str = "", processes: int = 0) -> tuple[int, str]:
    """Exit code and output of a session with one test that has this body. processes: of pytest-xdist."""
    text = f"{HEAD}{mark}\ndef test_one(tmp_path, capsys):\n{textwrap.indent(textwrap.dedent(body), '    ')}\n"
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


@pytest.mark.parametrize("processes", [0, 2])
@pytest.mark.parametrize("body", LEAKS.values(), ids=LEAKS.keys())
def test_a_secret_is_found(body: str, processes: int) -> None:
    code, output = session(body, processes=processes)
    assert code == pytest.ExitCode.TESTS_FAILED, output
    assert "secrets in logs" in output and SECRET in output


@pytest.mark.parametrize("body", HARMLESS.values(), ids=HARMLESS.keys())
def test_what_is_harmless_passes(body: str) -> None:
    code, output = session(body, "@pytest.mark.prints_secret" if "print" in body else "")
    assert code == 0 and "secrets in logs" not in output, output
