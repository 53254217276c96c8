"""A small run of `make faults`: one fault of each kind that needs no second try of its own."""

from __future__ import annotations

import subprocess
import sys

from bench.processes import CHECKOUT

LONGEST = 3600.0  # seconds: it ends by itself, and has taken 413 beside other load
# the kinds that are over quickly; `make faults` causes all
KINDS = "sticky_cuda,out_of_memory,server_half,redis_readonly,part_truncated,part_flipped,worker_killed,hang_locked"


def test_no_row_is_lost_doubled_or_false() -> None:
    command = [sys.executable, "-m", "bench.faults.run", "--images", "264", "--kinds", KINDS]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, encoding="utf-8", timeout=LONGEST)
    assert done.stdout.splitlines()[-1] == "lost 0 doubled 0 false 0 of 264, faults 9 of 9 kinds", done.stdout
    assert done.returncode == 0, done.stdout
