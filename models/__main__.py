"""`python -m models fetch|list|check PROFILE`: a profile's weights.

Exit codes: 0 fine, 2 usage, 3 missing or corrupt.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from models.base import WeightsMissing
from models.weights import Found, check, fetch
from strata.profiles import ProfileError, load_profile

PROFILES = Path(__file__).parent / "profiles"
WEIGHTS_FAULTY = 3


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="strata models", description="A profile's weights.")
    parser.add_argument("command", choices=("fetch", "list", "check"))
    parser.add_argument("profile")
    parser.add_argument("--profiles", type=Path, default=PROFILES, help="folder with the profiles")
    parser.add_argument("--json", action="store_true", help="one JSON object a stage, a line each")
    options = parser.parse_args(arguments)
    try:
        stages = load_profile(options.profile, options.profiles).stages
    except ProfileError as error:
        print(f"strata models: {error}", file=sys.stderr)
        return 2
    console = Console(stderr=True)
    good = True
    for name, settings in stages.items():
        try:
            with console.status(f"{name}: {settings.model}"):
                if options.command == "fetch":
                    found = fetch(settings, lambda line: console.print(line, highlight=False))
                else:
                    found = check(settings)
        except (WeightsMissing, ValueError) as error:
            found = Found(settings.model, "missing", str(error))
        good = good and found.state in ("ready", "none")
        _tell(name, found, as_json=options.json)
    # a list is an answer whatever it says; the other two promise whole weights
    return 0 if good or options.command == "list" else WEIGHTS_FAULTY


def _tell(stage: str, found: Found, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"stage": stage, **asdict(found)}))
    else:
        size = f"{found.size / 1e6:.0f} MB" if found.size else ""
        print(f"{stage:<10} {found.state:<8} {size:>8}  {found.model}  {found.detail}")


if __name__ == "__main__":
    sys.exit(main())
