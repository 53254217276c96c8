"""What a report tells of the records that were read: counts, reasons, and which records are shown."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from strata.core import LAYERS, Record, kept
from strata.evaluation.evaluation import Tally
from strata.evaluation.figures import Counts
from strata.evaluation.texts import COMPOSED

# the figures of one image whose mean puts records in order; those of which less is better count as 1 minus their value
_GOOD = ("objects_recalled", "text_recalled", "claims_supported", "sentences_with_evidence", "coverage")
_BAD = ("objects_invented", "repetition")
# the order of the groups of records on the page
GROUPS = ("worst", "best", "random")


@dataclass
class Content:
    """Counts of the records that were read. drops: of each layer, its entries that were dropped by their reason.

    groups: the shown records by GROUPS, with their scores; no record is shown twice. words, things, matches: of each
    description, of each record and of each entry.
    """

    drops: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    kept: Counter[str] = field(default_factory=Counter)
    cuts: Counter[str] = field(default_factory=Counter)
    evidence: Counter[str] = field(default_factory=Counter)
    warnings: Counter[str] = field(default_factory=Counter)
    names: Counter[str] = field(default_factory=Counter)
    words: list[int] = field(default_factory=list)
    things: list[int] = field(default_factory=list)
    matches: list[float] = field(default_factory=list)
    groups: dict[str, list[tuple[str, float]]] = field(default_factory=dict)

    def add(self, record: Record) -> None:
        """Count one record."""
        things = 0
        for layer in LAYERS.values():
            for entry in layer.entries(getattr(record, layer.name)):
                if entry.match is not None:
                    self.matches.append(entry.match)
                if not entry.kept:
                    self.drops[layer.title][entry.reason or "no reason given"] += 1
                    continue
                self.kept[layer.title] += 1
                if layer.names_things and layer.words_of(entry):
                    things += 1
                    self.names[layer.words_of(entry)] += 1
        self.things.append(things)
        self.warnings.update(warning.type for warning in record.warnings)
        if record.description is not None:
            self.words.append(len(record.description.text.split()))
            for sentence in record.description.sentences:
                self.evidence.update(kinds_of(sentence.evidence) or ("none",))
        for checked in record.verification.sentences if record.verification else ():
            if checked.reason is not None:
                self.cuts[checked.reason] += 1

    def choose(self, tally: Tally, each: int, seed: int) -> None:
        """Choose the records that are shown, by the keys of the tally: the worst, the best, and some at random."""
        scored = {key: score_of(counts) for key, counts in zip(tally.keys, tally.rows, strict=True)}
        ranked = sorted((score, key) for key, score in scored.items() if score is not None)
        worst = ranked[:each]
        best = ranked[len(worst) :][::-1][:each]
        used = {key for _, key in (*worst, *best)}
        others = [key for key in scored if key not in used]
        drawn = random.Random(seed).sample(others, min(each, len(others)))
        self.groups = {
            "worst": [(key, score) for score, key in worst],
            "best": [(key, score) for score, key in best],
            "random": [(key, scored[key] or 0.0) for key in drawn],
        }


def kinds_of(evidence: Sequence[str]) -> list[str]:
    """The layers of evidence, each once, in order."""
    return list(dict.fromkeys(name.partition("/")[0] for name in evidence))


def score_of(counts: Mapping[str, Counts]) -> float | None:
    """The mean of the figures of one record's description, 0..1; None if it has none of them.

    Claims are those of the text as it was composed: what the verifier had to cut makes a record worse.
    """
    found = {**counts.get("description", {})}
    if "claims_supported" in counts.get(COMPOSED, {}):
        found["claims_supported"] = counts[COMPOSED]["claims_supported"]
    values = [found[name][0] / found[name][1] for name in _GOOD if name in found and found[name][1]]
    values += [1 - found[name][0] / found[name][1] for name in _BAD if name in found and found[name][1]]
    return sum(values) / len(values) if values else None


def told_things(record: Record) -> list[str]:
    """The kept things of a record, by their phrases."""
    return [
        layer.words_of(one)
        for layer in LAYERS.values()
        if layer.names_things
        for one in kept(getattr(record, layer.name))
    ]
