"""What worker programs of tests are forked from: `python -m tests.workers.programs.template MODULE SOCKET`."""

from __future__ import annotations

import importlib
import os
import sys

from strata.forks import fork_when_asked
from strata.store import import_ahead


def main() -> None:
    """Import the module, and call its `main` in each fork."""
    name, descriptor = sys.argv[1:]
    import_ahead()
    module = importlib.import_module(name)
    task = fork_when_asked(int(descriptor))
    if task is None:
        return
    (log,) = task.descriptors
    for stream in (1, 2):
        os.dup2(log, stream)
    os.environ.clear()
    os.environ.update(task.task["environment"])
    sys.argv = [name, *task.task["arguments"]]
    module.main()


if __name__ == "__main__":
    main()
