"""`python -m strata`: the command line."""

from __future__ import annotations

from strata.cli.main import process

if __name__ == "__main__":
    process()
