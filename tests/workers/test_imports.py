"""What a worker process imports: a library that its profile does not need costs seconds and memory at each start."""

from __future__ import annotations

import subprocess
import sys

HEAVY = (
    "fastapi",
    "matplotlib",
    "open_clip",
    "pandas",
    "scipy",
    "sympy",
    "timm",
    "torch",
    "torchvision",
    "transformers",
)
# a worker is a fork of a template; the service has gone already, so that the template ends when it has imported all
CODE = """
import socket, sys
from models.building import build_stages
from models.weights.inventory import PROFILES
from strata.core import load_profile
from workers.engines.template import forked_worker
ours, theirs = socket.socketpair()
ours.close()
assert forked_worker(theirs.fileno()) is None
build_stages(load_profile("everyday", PROFILES), sys.argv[1])
print(*[name for name in sys.argv[2:] if name in sys.modules])
"""


def imported(group: str) -> set[str]:
    """The heavy libraries that a worker of a group imports with the profile `everyday`."""
    command = [sys.executable, "-c", CODE, group, *HEAVY]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=300, check=True)
    return set(done.stdout.split())


def test_a_worker_imports_only_what_its_profile_needs() -> None:
    assert imported("vision") == {"torch"}
    assert imported("llm") == set()
