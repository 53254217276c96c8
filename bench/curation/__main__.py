"""`python -m bench.curation duplicates|photographs|thresholds|neighbours|scores`: what of images is found, how fast.

`duplicates` plants changed copies among drawn scenes, and pictures of a benchmark; `photographs` plants them among the
labelled photographs; `neighbours` plants vectors among random ones. `thresholds --world 1` shows what thresholds rest
on, by other scenes than those of the figures. `scores --profile everyday` holds sharpness, faces, not-safe pictures,
personal data and watermarks against pictures whose truth is known.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from pathlib import Path

from bench.curation import duplicates, neighbours, scores, thresholds
from bench.curation.copies import Photographs, Scenes
from bench.curation.duplicates import Asked, Figures
from models.weights.cache import fetched_for
from samples.copies import KINDS
from strata.core import load_profile, load_settings
from strata.errors import StrataError


def main() -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("duplicates", "photographs", "thresholds", "neighbours", "scores"))
    parser.add_argument("--scenes", type=int, default=2000)
    parser.add_argument("--each", type=int, default=200, help="copies of each kind")
    parser.add_argument("--benchmark", type=int, default=100, help="copies of each kind in the benchmark; 0: none")
    parser.add_argument("--world", type=int, default=0, help="which scenes")
    parser.add_argument("--rounds", type=int, default=5, help="of photographs: copies of others each time")
    parser.add_argument("--alike", type=float, nargs="*", default=[], help="least cosines of embeddings")
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--vectors", type=int, default=300_000)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--cosine", type=float, default=0.96, help="of the planted vectors with their originals")
    parser.add_argument("--only", nargs="+", choices=list(scores.MEASURES), default=[], help="of the scores")
    parser.add_argument("--signs", type=int, default=25, help="of each kind of personal data")
    parser.add_argument("--folder", type=Path, help="where pictures and vectors are, and stay; none: nowhere")
    parser.add_argument("--json", type=Path, help="a file that gets the figures as JSON")
    options = parser.parse_args()
    logging.basicConfig(format="%(message)s")
    for package in ("strata", "bench"):
        logging.getLogger(package).setLevel(logging.INFO)
    try:
        with tempfile.TemporaryDirectory(prefix="curation-") as folder:
            figures = _measured(options, options.folder or Path(folder))
    except StrataError as error:
        sys.exit(f"{parser.prog}: {error}")
    for name, found in figures.items():
        print(name)
        for figure, value in found.items():
            print(f"  {figure}: {value:,.4g}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")


def _measured(options: argparse.Namespace, folder: Path) -> dict[str, Figures]:
    if options.what == "neighbours":
        return {"neighbours": neighbours.measure(folder, options.vectors, options.width, 0.01, options.cosine)}
    profile = load_profile(options.profile, load_settings().profiles_dir)
    if options.what == "scores":
        with fetched_for(profile.name):
            return scores.measure(profile, options.only, options.signs, 0)
    asked = Asked(Scenes(options.world), options.scenes, options.each)
    if options.what == "thresholds":
        return thresholds.measure(folder, profile, asked)
    if options.what == "duplicates":
        return duplicates.measure(folder, profile, asked, options.alike, options.benchmark)
    pictures = Photographs()
    each = len(pictures.files) // len(KINDS)
    rounds = [
        duplicates.measure(
            folder / f"{number}", profile, Asked(pictures, len(pictures.files), each, number), options.alike
        )
        for number in range(options.rounds)
    ]
    return duplicates.mean_of(rounds)


if __name__ == "__main__":
    main()
