"""The search for secrets in the logs of a session finds them wherever they may be, each time."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.checkout import CHECKOUT
from tests.secrets import SECRET

# by the name of a test of the session: its body
LEAKS = {
    "record": "import logging; logging.getLogger('strata').warning('key %s', SECRET)",
    "record_below_warning": "import logging; logging.getLogger('app').info('key %s', SECRET)",
    "traceback_of_a_record": """
    import logging
    try:
        raise ValueError(SECRET)
    except ValueError:
        logging.getLogger('workers').exception('failed')
    """,
    "stdout": "print(SECRET)",
    "stderr_of_a_child": "run([sys.executable, '-c', f'import sys; print({SECRET!r}, file=sys.stderr)'])",
    "captured_output_of_a_child": "run([sys.executable, '-c', f'print({SECRET!r})'], capture_output=True)",
    "file_of_a_child": """
    with (tmp_path / 'any').open('wb') as file:
        run([sys.executable, '-c', f'print({SECRET!r})'], stdout=file)
    """,
    "what_a_test_reads": "print(SECRET); capsys.readouterr()",
}
# found when the session ends: its files are named by the tests whose folders they lie in
FILES = {
    "log": "(tmp_path / 'server.log').write_text(SECRET)",
    "job_file": "(tmp_path / 'request.json').write_text(SECRET)",
}
HARMLESS = {
    "nothing": "pass",
    "variable": "assert SECRET",
    "exempt": "print(SECRET)",
}
HEAD = "import sys\nfrom subprocess import run\nimport pytest\nfrom tests.secrets import SECRET\n"
EXEMPT = "@pytest.mark.prints_secret"

pytestmark = pytest.mark.prints_secret


def session(bodies: Mapping[str, str], processes: int = 0) -> tuple[int, str]:
    """Exit code and output of a session whose tests have these names and bodies. processes: of pytest-xdist."""
    text = HEAD
    for name, body in bodies.items():
        mark = EXEMPT if name == "exempt" else ""
        text += f"\n\n{mark}\ndef test_{name}(tmp_path, capsys):\n{textwrap.indent(textwrap.dedent(body), '    ')}\n"
    # outside of the temporary folder of this session, which is searched itself
    with tempfile.TemporaryDirectory(prefix="log-search-") as folder:
        file = Path(folder) / "test_inner.py"
        file.write_text(text, encoding="utf-8")
        options = [
            "-n",
            str(processes),
            "-p",
            "xdist",
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
            # of the plug-ins that are installed only xdist is wanted, and others take long to import
            env={**os.environ, "PYTHONPATH": str(CHECKOUT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=120,
            check=False,
        )
        return done.returncode, done.stdout


@pytest.mark.parametrize("processes", [0, 2])
def test_a_secret_is_found_and_its_test_fails(processes: int) -> None:
    code, output = session(LEAKS, processes)
    told = output.partition("secrets in logs")[2].splitlines()
    assert code == pytest.ExitCode.TESTS_FAILED, output
    for name in LEAKS:
        test = f"test_inner.py::test_{name}"
        assert any(line.startswith(f"{test}: ") and SECRET in line for line in told), (name, output)
        # a file is searched when its test has passed: then the end of the test is what fails
        assert any(line.split(" - ")[0] in (f"FAILED {test}", f"ERROR {test}") for line in told), (name, output)


@pytest.mark.parametrize("processes", [0, 2])
def test_a_secret_in_a_file_is_found_and_the_session_fails(processes: int) -> None:
    code, output = session(FILES, processes)
    told = output.partition("secrets in logs")[2].splitlines()
    assert code == pytest.ExitCode.TESTS_FAILED, output
    for name in FILES:
        found = [line for line in told if line.startswith("a file of the session: ") and f"/test_{name}0/" in line]
        assert found and SECRET in found[0], (name, output)


def test_what_is_harmless_passes() -> None:
    code, output = session(HARMLESS)
    assert code == 0 and "secrets in logs" not in output and "3 passed" in output, output
