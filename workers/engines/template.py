"""The template of the service's workers: it has imported what all of them need, and forks them (`strata.forks`)."""

from __future__ import annotations

import importlib
import os
from contextlib import suppress
from pathlib import Path

from strata.forks import fork_when_asked
from strata.store import import_ahead

# without torch, which not every worker needs
_NEEDED = ("workers.process", "workers.engines.groups", "models.pipeline")
_NAME_BYTES = 15  # of a process in `ps` and `top`


def forked_worker(descriptor: int) -> str | None:
    """Returns in each fork, which has its environment then, with its groups; in the template with None, at the end."""
    import_ahead()
    for name in _NEEDED:
        importlib.import_module(name)
    task = fork_when_asked(descriptor)
    if task is None:
        return None
    groups: str = task.task["groups"]
    os.environ.clear()
    os.environ.update(task.task["environment"])
    # its command line stays that of the template; Linux alone has names of processes
    with suppress(OSError):
        Path("/proc/self/comm").write_text(groups[:_NAME_BYTES], encoding="ascii")
    return groups
