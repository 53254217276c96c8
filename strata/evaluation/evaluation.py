"""Evaluations: the figures of every text of a job's or snapshot's records, with intervals, as one file.

Read `texts.py` (what is measured), then `with_truth.py` and `without_truth.py` (how), then this module.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from strata.core import Record
from strata.errors import InvalidInput, fault_line
from strata.evaluation.figures import FIGURES, Better, Counts
from strata.evaluation.intervals import CONFIDENCE, RESAMPLES, bounds, certain, ratios
from strata.evaluation.texts import COMPOSED, UNCHECKED, texts_of
from strata.evaluation.truth import TruthSet
from strata.evaluation.with_truth import against_truth
from strata.evaluation.without_truth import Support, of_record, words_of

FORMAT: Literal["strata-evaluation-1"] = "strata-evaluation-1"
BASELINES: Mapping[str, str] = {
    "alt_text": "the text that came with the image",
    "caption": "a plain caption",
    UNCHECKED: "the composition without matcher and verifier",
}


class Figure(BaseModel):
    """One figure of one text. value: null if no image has its denominator. low, high: the bootstrap interval.

    images: those with a denominator above 0. total: the sum of the denominators, such as the number of claims.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    value: float | None
    low: float | None = None
    high: float | None = None
    images: int = 0
    total: float = 0
    better: Better = "neither"
    meaning: str = ""


class Measured(BaseModel):
    """The figures of one text. vocabulary: its distinct words in all images; baseline: what it is as one, else null.

    counts: for each figure the numerator and the denominator of each image of `Evaluation.keys`, so that another
    evaluation can be compared with this one image by image.
    """

    figures: dict[str, Figure]
    vocabulary: int
    baseline: str | None = None
    counts: dict[str, tuple[list[float], list[float]]] = Field(default_factory=dict)


class Evaluation(BaseModel):
    """The file of an evaluation. images: those that were measured; statuses: of all rows of the source.

    truth: where the truth comes from, and of how many images it is known. reasons: why the verifier cut sentences.
    spent: what a judge cost: tokens, requests and money.
    """

    format: Literal["strata-evaluation-1"] = FORMAT
    source: str
    kind: str
    created_at: datetime
    profile: str | None = None
    fingerprints: list[str] = []
    images: int
    statuses: dict[str, int]
    seed: int
    resamples: int = RESAMPLES
    confidence: float = CONFIDENCE
    truth: dict[str, int] = {}
    origins: dict[str, int] = {}
    reasons: dict[str, int] = {}
    spent: dict[str, float] = {}
    texts: dict[str, Measured]
    keys: list[str]


@dataclass
class Tally:
    """Collects the counts of images. keys: the place of each image so far."""

    keys: dict[str, int] = field(default_factory=dict)
    rows: list[dict[str, Counts]] = field(default_factory=list)
    words: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    origins: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    reasons: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    truths: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, record: Record, support: Support, truths: Sequence[TruthSet] = ()) -> None:
        """Measure all texts of a record."""
        key = record.key if record.key not in self.keys else f"{record.key} {record.image.uri} {record.image.offset}"
        self.keys[key] = len(self.rows)
        known = [one for one in truths if record.key in one.truths]
        for one in known:
            self.truths[one.origin] += 1
        found: dict[str, Counts] = {}
        for text in texts_of(record):
            counts = of_record(text, record, support) if text.text else {}
            for one in known:
                truth = one.truths[record.key].scaled(record.width, record.height)
                _add(counts, against_truth(text, truth, one.vocabulary))
            found[text.name] = counts | {"texts": (bool(text.text or text.lines), 1)}
            self.words[text.name].update(words_of(text.text))
        self.rows.append(found)
        self._verified(record)

    def _verified(self, record: Record) -> None:
        if record.verification is not None:
            self.origins[record.verification.origin] += 1
            for sentence in record.verification.sentences:
                if sentence.reason is not None:
                    self.reasons[sentence.reason] += 1

    def add_counts(self, key: str, counts: Mapping[str, Counts]) -> None:
        """Add further counts of the texts of an image that was added before."""
        for text, more in counts.items():
            self.rows[self.keys[key]].setdefault(text, {}).update(more)

    def texts(self) -> list[str]:
        """The names of all texts: the layers in order, then the others, those of variants last."""
        names = dict.fromkeys(name for row in self.rows for name in row)
        others = [name for name in names if name in (COMPOSED, UNCHECKED) or name.startswith("variant ")]
        return [name for name in names if name not in others] + sorted(others, key=_order)

    def measured(self, seed: int, resamples: int) -> dict[str, Measured]:
        """The figures of all texts with their intervals, all on the same resamples of the images."""
        columns = [(text, name) for text in self.texts() for name in FIGURES]
        columns = [(text, name) for text, name in columns if any(name in row.get(text, ()) for row in self.rows)]
        counts = np.array(
            [[row.get(text, {}).get(name, (0.0, 0.0)) for text, name in columns] for row in self.rows], float
        ).reshape(len(self.rows), len(columns), 2)
        low, high = bounds(ratios(counts[..., 0], counts[..., 1], resamples, seed), (1 - CONFIDENCE) / 2)
        found = {
            text: Measured(figures={}, vocabulary=len(self.words[text]), baseline=BASELINES.get(text))
            for text in self.texts()
        }
        for place, (text, name) in enumerate(columns):
            mine = counts[:, place]
            found[text].figures[name] = _figure(name, mine, low[place], high[place])
            found[text].counts[name] = mine[:, 0].tolist(), mine[:, 1].tolist()
        return found


def _add(counts: Counts, more: Counts) -> None:
    """Add the counts of another truth of the same image."""
    for name, (told, total) in more.items():
        before = counts.get(name, (0, 0))
        counts[name] = before[0] + told, before[1] + total


def _order(name: str) -> tuple[bool, bool, str]:
    return name.startswith("variant "), name == UNCHECKED, name


def _figure(name: str, counts: np.typing.NDArray[np.float64], low: float, high: float) -> Figure:
    told, total = counts.sum(axis=0)
    spec, images = FIGURES[name], int((counts[:, 1] > 0).sum())
    value = float(told / total) if total else None
    if spec.share and value in (0, 1):
        far = certain(images, (1 - CONFIDENCE) / 2)
        low, high = (1 - far, 1.0) if value else (0.0, far)
    return Figure(
        value=value,
        low=None if value is None else float(low),
        high=None if value is None else float(high),
        images=images,
        total=float(total),
        better=spec.better,
        meaning=spec.meaning,
    )


def finished(tally: Tally, seed: int, resamples: int = RESAMPLES, **about: Any) -> Evaluation:
    """The evaluation of what was tallied. about: source, kind, profile, fingerprints, statuses."""
    return Evaluation(
        created_at=datetime.now(UTC),
        images=len(tally.rows),
        seed=seed,
        resamples=resamples,
        truth=dict(tally.truths),
        origins=dict(tally.origins),
        reasons=dict(sorted(tally.reasons.items(), key=lambda one: -one[1])),
        texts=tally.measured(seed, resamples) if tally.rows else {},
        keys=list(tally.keys),
        **about,
    )


def measure(records: Iterable[Record], support: Support, truths: Sequence[TruthSet] = ()) -> Tally:
    """Tally records, for callers that have them already."""
    tally = Tally()
    for record in records:
        tally.add(record, support, truths)
    return tally


def read_evaluation(path: Path) -> Evaluation:
    """An evaluation that was saved. Raises InvalidInput for another file, and OSError."""
    try:
        return Evaluation.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InvalidInput(f"{path} is no saved evaluation: {where} {fault_line(first)}"[:300]) from None
