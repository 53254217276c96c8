"""`strata serve` with as many workers as are wanted, whose stage is that of `scripts/stage.py`."""

from __future__ import annotations

import argparse
import functools
import sys

from app import server
from app.supervisor import Child, template_of
from strata.core import GROUPS, load_settings
from strata.logs import begin_log


def main() -> None:
    """Serve until SIGTERM. Further arguments are those of the workers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, required=True)
    given, words = parser.parse_known_args()
    command = [sys.executable, "-m", "bench.peers.strata_worker", *words]
    groups = ",".join(GROUPS)
    settings = load_settings()
    begin_log(settings.log_format, settings.log_level)
    server.workers = lambda *_: [Child(f"{number}", command, groups) for number in range(given.workers)]
    server.template_of = functools.partial(template_of, command=[*command, "--forks"])
    sys.exit(server.serve(settings, with_workers=True))


if __name__ == "__main__":
    main()
