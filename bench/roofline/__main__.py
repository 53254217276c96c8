"""`python -m bench.roofline [PROFILE ...] [--card h200]`: the least seconds that a profile's models need for an image.

For each stage and phase (encode, prefill, decode): how often it runs for an image, its operations and bytes, the
seconds at the card's peak, which of both binds, and what was measured (`MEASURED`). `--page docs/roofline.md` writes
the page with all three profiles and its plot.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from bench.roofline.cards import CARDS, Card
from bench.roofline.page import page
from bench.roofline.plot import plot
from bench.roofline.work import Load, Work, works_of
from strata.core import Settings, load_profile

PROFILES = ("paper", "small", "modern")


def table(works: Sequence[Work], card: Card) -> list[str]:
    """The lines of a table in Markdown, with a sum."""
    lines = [
        "| stage | phase | times an image | GFLOP an image | MB an image | ms at the peak | bound by |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in works:
        work = f"{one.items:g} | {one.total_flops / 1e9:,.0f} | {one.total_bytes / 1e6:,.0f}"
        lines.append(f"| {one.stage} | {one.phase} | {work} | {1000 * one.seconds(card):.2f} | {one.bound(card)} |")
    total = sum(one.seconds(card) for one in works)
    flops, read = sum(one.total_flops for one in works), sum(one.total_bytes for one in works)
    least = f"**{1000 * total:.1f}**, {1 / total:.1f} images/s" if total else "0"
    return [*lines, f"| **all** | | | {flops / 1e9:,.0f} | {read / 1e6:,.0f} | {least} | |"]


def main() -> None:
    """Print the tables, or write the page and its plot."""
    parser = argparse.ArgumentParser(prog="python -m bench.roofline", description=__doc__.splitlines()[0])
    parser.add_argument("profiles", nargs="*", default=PROFILES, help="of paper, small, modern or made from them")
    parser.add_argument("--card", choices=CARDS, default="h200")
    parser.add_argument("--page", type=Path, help="write this page, and its plot beside it")
    options = parser.parse_args()
    card = CARDS[options.card]
    works = {name: works_of(load_profile(name, Settings().profiles_dir), Load()) for name in options.profiles}
    tables = {name: table(found, card) for name, found in works.items()}
    if options.page is None:
        for name, lines in tables.items():
            print(f"{name} on one {card.name}\n", *lines, "", sep="\n")
        return
    options.page.write_text(page(tables, works, card), encoding="utf-8")
    options.page.with_suffix(".svg").write_text(plot(works, card), encoding="utf-8")


if __name__ == "__main__":
    main()
