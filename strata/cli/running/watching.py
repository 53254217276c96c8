"""The process that starts a run again when an image or a broken model ends it."""

from __future__ import annotations

import functools
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from strata.cli import exits
from strata.components import strata_command

MAX_RESTARTS = 20  # of a process that dies again and again, while no chunk gets its part


def begun_job(folder: Path | None) -> str | None:
    """The id of the job that an earlier process of this run has begun; None if there was none."""
    file = folder / "job" if folder else None
    return file.read_text(encoding="utf-8") if file is not None and file.exists() else None


def _pass_on(child: subprocess.Popen[bytes], number: int, _: Any) -> None:
    child.send_signal(number)


def watched() -> int:
    """Run this command in a child process, and again while it is ended by an image or a broken model.

    The next process finds the notes of the one before, and computes what was in flight image by image, as workers do:
    an image that ends two of them becomes a failed row.
    """
    with tempfile.TemporaryDirectory(prefix="strata-run-") as name:
        folder, restarts, written = Path(name), 0, ""
        while True:
            child = subprocess.Popen([*strata_command(*sys.argv[1:]), "--run-folder", name])
            # Ctrl-C reaches the child too, which ends in order; a signal to this process alone is passed on
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, functools.partial(_pass_on, child))
            code = child.wait()
            if code >= 0 and code != exits.PROCESS_BROKEN:
                return code
            now = (folder / "written").read_text(encoding="utf-8") if (folder / "written").exists() else ""
            restarts = restarts + 1 if now == written else 1
            written, begun = now, begun_job(folder)
            cause = f"was ended by signal {-code}" if code < 0 else "has found itself broken"
            if begun is None or restarts > MAX_RESTARTS:
                again = f"; go on with `strata run {begun}`" if begun else ""
                print(f"strata: the process of the run {cause}{again}", file=sys.stderr)
                return exits.PROCESS_BROKEN
            line = "a new one goes on, and computes what was in hand image by image"
            print(f"strata: the process of the run {cause}; {line}", file=sys.stderr, flush=True)
