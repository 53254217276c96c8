"""`strata serve` with as many workers as are wanted, whose stage is that of `scripts/stage.py`."""

from __future__ import annotations

import argparse
import sys

from strata.cli.processes import worker_template


def main() -> None:
    """Serve until SIGTERM. Further arguments are those of the workers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, required=True)
    given, words = parser.parse_known_args()
    command = [sys.executable, "-m", "bench.peers.strata_worker", *words]
    with worker_template([*command, "--forks"]) as template:
        # imported while the template imports, as `strata serve` does
        from app.server import serve
        from app.supervisor import Child
        from strata.core import GROUPS, load_settings
        from strata.logs import begin_log

        settings = load_settings()
        begin_log(settings.log_format, settings.log_level)
        workers = [Child(f"{number}", command, ",".join(GROUPS)) for number in range(given.workers)]
        code = serve(settings, with_workers=True, template=template, children=workers)
    sys.exit(code)


if __name__ == "__main__":
    main()
