"""`python -m bench.photographs [PROFILE]`: how true a profile speaks of the labelled photographs of `samples/`.

Runs the profile in this process, compares what it keeps with the labels, and prints a table with both halves of the
set: thresholds may be tuned on the first alone. `--json` writes the figures and every answer, `--sheet` a picture of
all photographs with the answers. Exit code 1 if a bar that is given is missed on the whole set:

    python -m bench.photographs everyday --sheet docs/photographs.jpg --right 0.95 --told 0.7
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from bench.photographs.contact_sheet import draw
from bench.photographs.judging import Verdict, figures, verdict
from models.items import ComposeRequest
from models.pipeline import LlmPipeline, VisionPipeline
from samples.labels import Photograph, photographs
from strata.core import ImageReference, Profile, Record, Settings, load_profile

HALVES = ("tuning", "held-out", "all")


def described(profile: Profile, chosen: Sequence[Photograph]) -> list[Record]:
    """Return the records of photographs, computed in this process, in order."""
    vision, llm = VisionPipeline(profile), LlmPipeline(profile)
    vision.load()
    llm.load()
    records: list[Record] = []
    for start in range(0, len(chosen), profile.micro_batch):
        batch = []
        for photograph in chosen[start : start + profile.micro_batch]:
            with Image.open(photograph.file) as opened:
                image = opened.convert("RGB")
            reference = ImageReference(uri=str(photograph.file), size=photograph.file.stat().st_size)
            row = Record(key=photograph.name, image=reference, width=image.width, height=image.height)
            batch.append((row, image))
        # as in a worker: only rows that have not failed reach the composer
        seen = vision.run(batch)
        told = iter(llm.run([ComposeRequest(record) for record in seen if record.failure is None]))
        records += [record if record.failure else next(told) for record in seen]
        print(f"\r{len(records)} of {len(chosen)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return records


def by_half(verdicts: Sequence[Verdict]) -> dict[str, dict[str, float | int]]:
    """Return the figures of each half of the set, and of all."""
    return {half: figures([each for each in verdicts if half in (each.photograph.half, "all")]) for half in HALVES}


def table(measured: dict[str, dict[str, float | int]]) -> str:
    """Return the figures as lines of a table, one column a half."""
    lines = [f"{'':34}" + "".join(f"{half:>10}" for half in measured)]
    for name in measured["all"]:
        lines.append(f"{name:34}" + "".join(f"{_shown(columns[name]):>10}" for columns in measured.values()))
    return "\n".join(lines)


def _shown(value: float | int) -> str:
    return str(value) if isinstance(value, int) else "none" if math.isnan(value) else f"{value:.3f}"


def answers(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """Return every answer with its verdict, for JSON."""
    return [
        {
            "name": each.photograph.name,
            "half": each.photograph.half,
            "words": each.words,
            "labels": each.photograph.kinds,
            "right": each.right,
            "wrong": each.wrong,
            "read": each.read,
            "misread": each.misread,
            "warned": each.warned,
        }
        for each in verdicts
    ]


def main() -> int:
    """Run the profile, and print and write what was asked for; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("profile", nargs="?", default="everyday")
    parser.add_argument("--json", type=Path, help="file for the figures and every answer")
    parser.add_argument("--sheet", type=Path, help="file for the picture of all photographs with the answers")
    parser.add_argument("--half", choices=HALVES, default="all", help="describe this half alone")
    parser.add_argument("--right", type=float, default=0.0, help="least share of told things that is right")
    parser.add_argument(
        "--told", type=float, default=0.0, help="least share of pictures with kinds of which one is told"
    )
    options = parser.parse_args()
    chosen = [each for each in photographs() if options.half in (each.half, "all")]
    # describe and judge
    profile, started = load_profile(options.profile, Settings().profiles_dir), time.perf_counter()
    records = described(profile, chosen)
    seconds = time.perf_counter() - started
    verdicts = [verdict(photograph, record) for photograph, record in zip(chosen, records, strict=True)]
    measured = by_half(verdicts)
    print(table(measured) + f"\n{seconds / len(chosen):.2f} s a picture, loading included")
    for each in verdicts:
        if each.wrong or each.misread or each.failure:
            print(f"wrong: {each.photograph.name}: {[*each.wrong, *each.misread]} {each.failure}")
    # write what was asked for; NaN is no JSON
    if options.json:
        clean = {half: {k: None if v != v else v for k, v in row.items()} for half, row in measured.items()}
        content = {"profile": options.profile, "figures": clean, "answers": answers(verdicts)}
        options.json.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
    if options.sheet:
        draw(verdicts, options.sheet)
    missed = measured["all"]["share right"] < options.right or measured["all"]["share told"] < options.told
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
