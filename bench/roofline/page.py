"""The page docs/roofline.md: the tables, what was measured beside the limit, and how it is counted."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace

from bench.roofline.cards import CARDS, Card
from bench.roofline.work import Load, Work

# milliseconds an image of `paper` on an H200, of each stage alone in one process at the batch that was the fastest:
# docs/benchmarks.md, 2026-11-26: 209 an image; 31.9; 10.9 for the whole image and 20 crops of 2.4; 31 pairs of 1.3
MEASURED = {"segmenter": 209.0, "detector": 31.9, "captioner": 10.9 + 20 * 2.4, "matcher": 31 * 1.3}
MEASURED_WITH_COMPILED_DECODER = 120.0  # the segmenter, two processes
LARGER = (1, 4, 16)
MEASURED_RATE = 3.32  # images/s of `paper`, two processes on one H200


def page(tables: Mapping[str, Sequence[str]], works: Mapping[str, Sequence[Work]], card: Card) -> str:
    """The text of the page."""
    load = Load()
    parts = [
        "# The limit on paper",
        f"What the models of a profile need for one image at the least, on one {card.name}: a roofline. It tells which "
        "stage binds, and how far what was measured is from it. Nothing on this page but the section *Measured* was "
        "measured. `python -m bench.roofline --page docs/roofline.md` writes it; `--card` and a profile's name print "
        "others.",
        "![Milliseconds an image, by stage](roofline.svg)",
    ]
    for name, lines in tables.items():
        parts += [f"## `{name}`", "\n".join(lines), _binding(works[name], card)]
    if "paper" in works:
        parts += ["## Measured", _measured(works["paper"], card)]
    cards = "\n".join(
        f"| {one.name} | {one.flops / 1e12:.0f} | {one.bandwidth / 1e12:.2f} | {one.source} |" for one in CARDS.values()
    )
    parts += [
        "## How it is counted",
        "- The models are built from their published configurations on torch's meta device, which has no numbers; "
        "their parameters are compared with the bytes of the published checkpoints. Encoders are counted by torch's "
        "`FlopCounterMode`, decoders by their linear layers and a formula for attention; a test compares both with the "
        "counter on small models.\n"
        "- Two operations for each product and sum of matrix products, convolutions and attention. Bytes: each weight "
        "once a batch in bfloat16, with the profile's `batch_size`, and the keys and values of earlier tokens. "
        "Activations are not counted, nor are pixels, copies, norms and suppression.\n"
        "- A phase takes its operations at the peak or its bytes at the memory's rate, whichever is longer; phases are "
        "added up. OCR runs on the CPU at the same time. `paper` composes on a server: its rows are a second card's.\n"
        f"- An image has {load.regions} regions, the profile's most objects, {load.region_tokens} tokens of the "
        f"detector, {load.crop_tokens} of a phrase, 16 of a caption by BLIP-2 and the profile's limit by others, "
        f"{load.notes_tokens} of a composer's prompt and {load.text_tokens} of a description (`Load` in "
        "bench/roofline/work.py).",
        f"| card | TFLOP/s, dense bfloat16 | TB/s | source |\n|---|---|---|---|\n{cards}",
    ]
    return "\n\n".join(map(_wrapped, parts)) + "\n"


def _wrapped(part: str) -> str:
    """A paragraph, or items of a list, in lines of at most 120 characters; tables and images as they are."""
    if part.startswith(("|", "!", "#")):
        return part
    return "\n".join(
        textwrap.fill(line, 120, subsequent_indent="  " if line.startswith("- ") else "", break_on_hyphens=False)
        for line in part.splitlines()
    )


def by_stage(works: Sequence[Work], card: Card) -> dict[str, float]:
    """Milliseconds an image of each stage."""
    found: dict[str, float] = {}
    for one in works:
        found[one.stage] = found.get(one.stage, 0.0) + 1000 * one.seconds(card)
    return found


def _binding(works: Sequence[Work], card: Card) -> str:
    times = by_stage(works, card)
    total = sum(times.values())
    order = sorted(times.items(), key=lambda one: -one[1])
    shares = ", ".join(f"{name} {ms:.1f} ms ({ms / total:.0%})" for name, ms in order)
    larger = ", ".join(f"{times}: {rate(works, card, times):.1f}" for times in LARGER)
    return f"By stage: {shares}. Images/s with batches this many times as large as the profile's: {larger}."


def rate(works: Sequence[Work], card: Card, larger: int = 1) -> float:
    """Images/s at the limit, with batches `larger` times as large as the profile's."""
    return 1 / sum(replace(one, batch=one.batch * larger).seconds(card) for one in works)


def _measured(works: Sequence[Work], card: Card) -> str:
    times = by_stage(works, card)
    lines = ["| stage of `paper` | limit, ms | measured alone, ms | limit / measured |", "|---|---|---|---|"]
    for stage, ms in MEASURED.items():
        lines.append(f"| {stage} | {times[stage]:.1f} | {ms:.1f} | {times[stage] / ms:.0%} |")
    vision = sum(ms for stage, ms in times.items() if stage in MEASURED)
    lines.append(
        f"| all, {MEASURED_RATE} images/s | {vision:.1f} | {1000 / MEASURED_RATE:.0f} | "
        f"{vision * MEASURED_RATE / 1000:.0%} |"
    )
    told = (
        "Measured on 2026-11-26 on one H200, each stage alone in one process at its fastest batch "
        "([Benchmarks](benchmarks.md)). With the compiled decoder two processes made an image's masks in "
        f"{MEASURED_WITH_COMPILED_DECODER:.0f} ms. The segmenter and the detector are the furthest from their limits: "
        "SAM's decoder ran for one image at a time on copies of its features, and Florence-2 decodes 160 steps that "
        "Python launches."
    )
    return "\n".join(lines) + "\n\n" + _wrapped(told)
