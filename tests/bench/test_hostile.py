"""A small run of `make hostile`, without the attacks that take long."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from bench.processes import CHECKOUT

ATTACKS = "tars,workers,ids,browser,parts"


@pytest.mark.slow
def test_nothing_hangs_ends_or_is_lost() -> None:
    command = [sys.executable, "-m", "bench.hostile.run", "--scale", "0.015", "--profiles", "fake", "--only", ATTACKS]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, encoding="utf-8")
    *_, wrong, last = done.stdout.splitlines()
    assert wrong == "wrong 0 of 15 tars, 6 flipped bits, 15 ids", done.stdout
    assert last.startswith("hangs 0 crashes 0 undocumented 5xx 0 of 15 tars, 15 images,"), done.stdout
    assert re.search(r"peak API \d+ MiB above idle, worker \d+ MiB$", last) and done.returncode == 0, done.stdout
