"""The plot of docs/roofline.md: a bar for each profile, whose parts are the phases of its stages."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from bench.roofline.cards import Card
from bench.roofline.work import Work

WIDTH, LEFT, BAR, GAP, TOP = 960, 90, 34, 26, 44  # pixels
COLOURS = {
    "captioner": "#4269d0",
    "detector": "#efb118",
    "segmenter": "#ff725c",
    "matcher": "#6cc5b0",
    "second_matcher": "#3ca951",
    "composer": "#a463f2",
}


def plot(works: Mapping[str, Sequence[Work]], card: Card) -> str:
    """An SVG. Where the memory binds, the part is hatched."""
    longest = max(sum(one.seconds(card) for one in found) for found in works.values())
    scale = (WIDTH - LEFT - 110) / longest
    height = TOP + len(works) * (BAR + GAP) + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        'font-size="13">',
        '<defs><pattern id="memory" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
        '<rect width="2" height="6" fill="#fff" fill-opacity="0.5"/></pattern></defs>',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        *_legend(),
    ]
    for row, (name, found) in enumerate(works.items()):
        y, x = TOP + row * (BAR + GAP), float(LEFT)
        parts.append(f'<text x="{LEFT - 8}" y="{y + 22}" text-anchor="end">{html.escape(name)}</text>')
        for one in found:
            width = one.seconds(card) * scale
            title = html.escape(f"{one.stage}, {one.phase}: {1000 * one.seconds(card):.2f} ms, {one.bound(card)}")
            box = f'x="{x:.1f}" y="{y}" width="{width:.1f}" height="{BAR}"'
            parts.append(f'<rect {box} fill="{COLOURS[one.stage]}"><title>{title}</title></rect>')
            if one.bound(card) == "memory":
                parts.append(f'<rect {box} fill="url(#memory)"/>')
            x += width
        total = sum(one.seconds(card) for one in found)
        parts.append(f'<text x="{x + 6:.1f}" y="{y + 22}">{1000 * total:.1f} ms</text>')
    end = f"least milliseconds an image on one {card.name}; hatched: bound by the memory"
    parts += [f'<text x="{LEFT}" y="{height - 12}">{end}</text>', "</svg>"]
    return "\n".join(parts) + "\n"


def _legend() -> list[str]:
    parts = []
    for place, (stage, colour) in enumerate(COLOURS.items()):
        x = LEFT + place * 140
        parts.append(f'<rect x="{x}" y="12" width="14" height="14" fill="{colour}"/>')
        parts.append(f'<text x="{x + 20}" y="24">{stage}</text>')
    return parts
