"""`python -m bench.verifier`: what the verifier cuts of descriptions by the demo profile, and what it costs.

New drawn scenes go through the pipelines of the profile, with their real weights. Falsehoods are planted into texts
about these scenes, and read against the real records. Alarms are counted on records that hold the scenes' truth, of
which there can be many. A composer that writes freely is SmolLM2 without its grammar.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TypeVar

from bench.planting import KINDS, planted, record_of, scene_of, true_text
from models.items import ComposeRequest
from models.pipeline import LlmPipeline, VisionPipeline
from models.verifier.binding import binding_of
from models.verifier.entities import Facts, facts_of
from models.verifier.verifying import Reading, remaining
from models.weights.inventory import PROFILES
from samples.scenes import Scene
from samples.truth import is_true, things_named
from strata.core import ImageReference, Profile, Record, load_profile

Item = TypeVar("Item")
BATCH = 8  # records of a batch whose texts are moved
FIRST = 10_000  # number of the first scene: those of the tests come before


def seen(profile: Profile, scenes: Sequence[Scene]) -> list[Record]:
    """The records of scenes with the layers of the profile's real stages."""
    pipeline = VisionPipeline(profile)
    pipeline.load()
    batch = [
        (Record(key=str(i), image=ImageReference(uri="scene", size=0), width=w, height=h), scene.image)
        for i, scene in enumerate(scenes)
        for w, h in [scene.image.size]
    ]
    return [record for part in _parts(batch, profile.micro_batch) for record in pipeline.run(part)]


def written(profile: Profile, records: Sequence[Record]) -> list[Record]:
    """The records with verified descriptions."""
    pipeline = LlmPipeline(profile)
    pipeline.load()
    requests = [ComposeRequest(record) for record in records]
    return [record for part in _parts(requests, profile.micro_batch) for record in pipeline.run(part)]


def _parts(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    return (items[at : at + size] for at in range(0, len(items), size))


def planted_figures(scenes: Sequence[Scene], records: Sequence[Record]) -> dict[str, float]:
    """The share of planted falsehoods that is cut, by kind, and of true sentences, against real records."""
    dice, figures = random.Random(5), dict[str, float]()
    known = [facts_of(record, trust_caption=False) for record in records]
    for kind in KINDS:
        told = [
            (made, facts) for scene, facts in zip(scenes, known, strict=True) if (made := planted(scene, kind, dice))
        ]
        cut = sum(not made.remains(remaining(Reading(facts).read(made.text))) for made, facts in told)
        figures[f"planted, {kind}: texts"], figures[f"planted, {kind}: cut"] = len(told), cut / max(1, len(told))
    # a true sentence about a thing that no stage has found is cut too
    true = [
        one
        for scene, facts in zip(scenes, known, strict=True)
        for one in Reading(facts).read(true_text(scene, dice)).sentences
    ]
    reasons = Counter(one.reason for one in true if one.kept != one.text)
    figures |= {"true sentences": len(true), "true sentences cut": reasons.total() / max(1, len(true))}
    return figures | {f"true sentences cut, {reason}": count for reason, count in reasons.items()}


def alarm_figures(scenes: int, trials: int, parts: int) -> dict[str, float]:
    """Batches with moved texts that are found, and alarms in batches that are right; on records of the truth."""
    dice = random.Random(6)
    shown = [scene_of(FIRST + 1_000 + number) for number in range(scenes)]
    known = [facts_of(record_of(scene), trust_caption=False) for scene in shown]
    texts = [true_text(scene, dice) for scene in shown]

    def alarm(told: Sequence[int], of: Sequence[int]) -> bool:
        facts: list[Facts] = [known[i] for i in of]
        return binding_of([texts[i] for i in told], facts).swapped

    batches = [dice.sample(range(scenes), BATCH) for _ in range(max(trials, parts))]
    moved = [[one[1:] + one[:1], one[4:] + one[:4], one[::-1]][at % 3] for at, one in enumerate(batches[:trials])]
    found = sum(alarm(wrong, right) for wrong, right in zip(moved, batches, strict=False))
    return {
        "moved batches": trials,
        "moved batches found": found,
        "right batches": parts,
        "right batches with an alarm": sum(alarm(one, one) for one in batches[:parts]),
    }


def time_figures(records: Sequence[Record]) -> dict[str, float]:
    """Seconds a record of composer, verifier and alarm, and the share of the last two in the composer's."""
    composer, verifier = (sum(one.seconds.get(stage, 0.0) for one in records) for stage in ("composer", "verifier"))
    texts = [one.verification.text if one.verification else "" for one in records]
    started = time.perf_counter()
    binding_of(texts, [facts_of(one, trust_caption=False) for one in records])
    alarm = time.perf_counter() - started
    count = max(1, len(records))
    return {
        "composer, s": composer / count,
        "verifier, s": verifier / count,
        "alarm, s": alarm / count,
        "verifier and alarm, of the composer's time": (verifier + alarm) / max(1e-9, composer),
    }


def invented(scenes: Sequence[Scene], records: Sequence[Record], name: str) -> dict[str, float]:
    """The share of named things that are not in the picture, before and after the verifier."""
    figures = {f"{name}: texts": float(len(records))}
    for when in ("before", "after"):
        false = named = 0
        for scene, record in zip(scenes, records, strict=True):
            composed = record.verification.text if record.verification else ""
            left = record.description.text if record.description else ""
            things = things_named(composed if when == "before" else left)
            present = {(thing.name, thing.colour) for thing in scene.objects}
            named, false = named + len(things), false + sum(not is_true(thing, present) for thing in things)
        figures |= {f"{name}, {when}: things": named, f"{name}, {when}: invented": false / max(1, named)}
    return figures


def freely(profile: Profile) -> Profile:
    """The profile with a composer that may write any word."""
    composer = profile.stages["composer"]
    changed = composer.model_copy(update={"parameters": {**composer.parameters, "grounded": False}})
    return profile.model_copy(update={"stages": {**profile.stages, "composer": changed}})


def main() -> None:
    """Print the figures as a table, or as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=60)
    parser.add_argument("--first", type=int, default=FIRST, help="number of the first scene: others are new ones")
    parser.add_argument("--free", type=int, default=10)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--parts", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    profile = load_profile("demo", PROFILES)
    scenes = [scene_of(options.first + number) for number in range(options.scenes)]
    records = seen(profile, scenes)
    figures = planted_figures(scenes, records)
    _print(figures, options.json)
    described = written(profile, records)
    _print(time_figures(described) | invented(scenes, described, "by the grammar"), options.json)
    few = scenes[: options.free]
    _print(invented(few, written(freely(profile), records[: options.free]), "freely"), options.json)
    _print(alarm_figures(64, options.trials, options.parts), options.json)


def _print(figures: dict[str, float], as_json: bool) -> None:
    if as_json:
        print(json.dumps(figures), flush=True)
        return
    for name, value in figures.items():
        print(f"| {name} | {value:.4g} |", flush=True)


if __name__ == "__main__":
    main()
