"""`python -m bench.curation duplicates|neighbours|scores`: what of images is found, and what that takes.

`duplicates` plants changed copies among scenes, and pictures of a benchmark; `neighbours` plants embeddings; `scores`
holds sharpness, faces, not-safe pictures and personal data against labelled pictures.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from bench.curation import duplicates, neighbours, scores
from strata.core import load_profile, load_settings


def main() -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("duplicates", "neighbours", "scores"))
    parser.add_argument("--scenes", type=int, default=2000)
    parser.add_argument("--each", type=int, default=200, help="copies of each kind")
    parser.add_argument("--alike", type=float, nargs="*", default=[0.999], help="least cosines")
    parser.add_argument("--bits", type=int, nargs="+", default=[31, 48, 64], help="by which hashes differ at most")
    parser.add_argument("--profile", help="by default demo, for scores everyday")
    parser.add_argument("--vectors", type=int, default=300_000)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--cosine", type=float, default=0.96, help="of the planted embeddings with their originals")
    parser.add_argument("--only", nargs="+", choices=list(scores.MEASURES), default=[], help="of the scores")
    parser.add_argument("--signs", type=int, default=25, help="of each kind of personal data")
    parser.add_argument("--json", type=Path, help="a file that gets the figures as JSON")
    options = parser.parse_args()
    figures: Any
    profile = load_profile(
        options.profile or ("everyday" if options.what == "scores" else "demo"), load_settings().profiles_dir
    )
    if options.what == "neighbours":
        figures = {"neighbours": neighbours.measure(options.vectors, options.width, 0.01, options.cosine)}
    elif options.what == "scores":
        figures = scores.measure(profile, options.only, options.signs, 0)
    else:
        figures = duplicates.measure(profile, options.scenes, options.each, options.alike, options.bits)
    for name, found in figures.items():
        print(name)
        for figure, value in found.items():
            print(f"  {figure}: {value:,.4g}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
