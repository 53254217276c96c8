"""The result of a calibration: its profile, and a picture of which share of the pairs reaches each threshold."""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from pydantic import BaseModel

from models.evidence.calibration import Judged, crops_of, scores_of
from models.evidence.thresholds import Origin, Scores, Threshold, note_of, threshold_of

__all__ = ["Calibration", "Judged", "Origin", "crops_of", "draw", "scores_of", "threshold_of", "written"]

WIDTH, HEIGHT, MARGIN = 640, 360, 56  # pixels of one panel
TICKS = (1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999)
STEPS = 400
WRONG, OWN, LIMIT, FAINT = "#c0392b", "#2471a3", "#222222", "#cccccc"


class Calibration(BaseModel):
    """profile: the file of the new profile; curve: the picture; thresholds: by layer."""

    profile: Path
    curve: Path
    source: Origin
    thresholds: dict[str, Threshold]

    def told(self) -> str:
        """The result for a person."""
        note = note_of(self.source, self.thresholds).replace("# ", "")
        return f"{note}{self.profile}: written; its curve: {self.curve}"


def written(
    path: Path, origin: Origin, thresholds: Mapping[str, Threshold], scores: Mapping[str, Scores]
) -> Calibration:
    """Write the source of the thresholds at the head of a new profile, and the curve beside it. Raises OSError."""
    note, curve = note_of(origin, thresholds), path.with_suffix(".png")
    path.write_text(note + path.read_text(encoding="utf-8"), encoding="utf-8")
    draw(scores, thresholds, curve)
    return Calibration(profile=path, curve=curve, source=origin, thresholds=dict(thresholds))


def draw(scores: Mapping[str, Scores], thresholds: Mapping[str, Threshold], path: Path) -> None:
    """Write a PNG with a panel for each layer. The axis of thresholds has the scale of log odds. Raises OSError."""
    picture = Image.new("RGB", (WIDTH, HEIGHT * len(scores)), "white")
    for place, (layer, found) in enumerate(scores.items()):
        panel = Image.new("RGB", (WIDTH, HEIGHT), "white")
        _draw_panel(ImageDraw.Draw(panel), layer, found, thresholds[layer])
        picture.paste(panel, (0, HEIGHT * place))
    picture.save(path)


def _draw_panel(draw: ImageDraw.ImageDraw, layer: str, scores: Scores, found: Threshold) -> None:
    font = ImageFont.load_default(13)
    # the axes
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        draw.line((_x(0.0), _y(share), _x(1.0), _y(share)), FAINT)
        draw.text((8, _y(share) - 8), f"{share:.0%}", LIMIT, font)
    for tick in TICKS:
        draw.line((_x(tick), _y(0), _x(tick), _y(0) + 5), LIMIT)
        draw.text((_x(tick) - 12, _y(0) + 8), f"{tick:g}", LIMIT, font)
    # the curves, and the threshold
    for values, colour in ((scores.mismatched, WRONG), (scores.own, OWN)):
        draw.line(_curve(values), colour, 2)
    draw.line((_x(found.threshold), _y(0), _x(found.threshold), _y(1)), LIMIT)
    # what they are
    draw.text((MARGIN, 6), f"{layer}s: share of the pairs that reach a threshold", LIMIT, font)
    draw.text((MARGIN, 24), f"mismatched ({found.pairs})", WRONG, font)
    draw.text((MARGIN + 160, 24), f"own phrases ({found.own_pairs})", OWN, font)
    draw.text((MARGIN + 330, 24), f"threshold {found.threshold:g}: {found.passing:.1%} pass", LIMIT, font)


def _curve(scores: Sequence[float]) -> list[tuple[float, float]]:
    ordered = sorted(scores)
    low, high = _log_odds(TICKS[0]), _log_odds(TICKS[-1])
    points = []
    for step in range(STEPS + 1):
        threshold = 1 / (1 + math.exp(-(low + (high - low) * step / STEPS)))
        reached = len(ordered) - bisect.bisect_left(ordered, threshold)
        points.append((_x(threshold), _y(reached / max(1, len(ordered)))))
    return points


def _log_odds(probability: float) -> float:
    return math.log(probability / (1 - probability))


def _x(probability: float) -> float:
    low, high = _log_odds(TICKS[0]), _log_odds(TICKS[-1])
    place = _log_odds(min(max(probability, TICKS[0]), TICKS[-1]))
    return MARGIN + (WIDTH - MARGIN - 24) * (place - low) / (high - low)


def _y(share: float) -> float:
    return HEIGHT - 40 - (HEIGHT - 100) * share
