"""How the process of the command line ends."""

from __future__ import annotations

import subprocess
import sys

import pytest

ENDED = """
import atexit, sys, threading, time
from strata.cli import main as command_line

def main():
    if {arrow}:
        import pyarrow
    atexit.register(lambda: print("an exit function ran"))
    threading.Thread(target=lambda: (time.sleep(0.2), print("a thread ended"))).start()
    print("text without a line end", end=" ")
    {ending}

command_line.main = main
command_line.process()
"""


@pytest.mark.parametrize("arrow", [True, False])
@pytest.mark.parametrize(
    ("ending", "code", "said"),
    [
        ("raise SystemExit(0)", 0, ""),
        ("raise SystemExit(7)", 7, ""),
        ("raise SystemExit(None)", 0, ""),
        ("raise SystemExit('one line')", 1, "one line"),
        ("pass", 0, ""),
        ("raise ValueError('of a program')", 1, "ValueError: of a program"),
    ],
)
def test_the_end_is_the_same_with_arrow_and_without(ending: str, code: int, said: str, arrow: bool) -> None:
    script = ENDED.format(arrow=arrow, ending=ending)
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == code, ended.stderr
    assert ended.stderr.strip().endswith(said) and bool(ended.stderr) == bool(said)
    assert ended.stdout == "text without a line end a thread ended\nan exit function ran\n"
