"""Fit what each observation adds to the weight of a name in the demo: `python -m samples.name_weights`.

A logistic regression over the names that detector and captioner give to the things of drawn scenes: half of the scenes
have known drawings, half have drawings that no model was trained with. Prints the table `[evidence.weights]` of the
profile, and what each least weight would keep. Takes about 5 minutes on one core.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression

from models.boxes import iou
from models.evidence.weight import named, observed, weighed
from models.pipeline import VisionPipeline
from samples.scenes import HELD_OUT_SEED, PHRASES, SceneOptions, make_scene
from samples.shards import encode_sample
from samples.training.matcher_crops import distractor_pool
from strata.core import THINGS, Box, ImageReference, NameWeights, Record, Settings, load_profile

KNOWN_SEED, UNKNOWN_SEED = HELD_OUT_SEED + 40_000_000, HELD_OUT_SEED + 41_000_000
BATCH = 16
SAME_THING = 0.3  # IoU from which a name is that of a drawing, as in bench.quality
BY_WEIGHT = ("low_evidence", "contradicted")  # the reasons that `weighed` gives


class Case(NamedTuple):
    """A record whose names are not weighed yet, and the phrase and box of every drawing; known: to the models."""

    record: Record
    things: Sequence[tuple[str, Box]]
    known: bool


class Figures(NamedTuple):
    """Shares: of the known things that keep their name, of the kept names that are false, of unknown things named."""

    recalled: float
    invented: float
    unknown: float


def unweighed(record: Record) -> Record:
    """The record with what was dropped by its weight kept again."""
    layers = {
        layer.name: [
            entry.model_copy(update={"kept": True, "reason": None}) if entry.reason in BY_WEIGHT else entry
            for entry in getattr(record, layer.name)
        ]
        for layer in THINGS
    }
    return record.model_copy(update=layers)


def cases(scenes: int, *, known: bool) -> Iterator[Case]:
    """Run the demo's vision models on so many scenes, as JPEG like in shards."""
    profile = load_profile("demo", Settings().profiles_dir)
    # names are weighed by captions as they were written, before anything is cut from them
    evidence = profile.evidence.model_copy(update={"caption_claims": None})
    pipeline = VisionPipeline(profile.model_copy(update={"evidence": evidence}))
    pipeline.load()
    options = SceneOptions(min_objects=1)
    if not known:
        options = SceneOptions(1, 3, signs=False, sprites=distractor_pool(held_out=True))
    first = KNOWN_SEED if known else UNKNOWN_SEED
    for begin in range(first, first + scenes, BATCH):
        batch, things = [], []
        for seed in range(begin, min(begin + BATCH, first + scenes)):
            scene = make_scene(seed, options)
            data, meta = encode_sample(scene, str(seed), seed)
            image = Image.open(io.BytesIO(data)).convert("RGB")
            batch.append((Record(key=str(seed), image=ImageReference(uri=meta["url"], size=len(data))), image))
            things.append([(thing.phrase, thing.box) for thing in scene.objects])
        for record, of_scene in zip(pipeline.run(batch), things, strict=True):
            yield Case(unweighed(record), of_scene, known)


def fit(found: Sequence[Case]) -> NameWeights:
    """The factors of a logistic regression over every name that a model gave to a place."""
    rows, truths = [], []
    for case in found:
        entries = list(named(case.record))
        # a name that several entries give to one place is one row
        places: list[tuple[str, Box]] = []
        for one in entries:
            seen = any(one.phrase == name and iou(one.entry.box, box) >= SAME_THING for name, box in places)
            if seen or one.phrase not in PHRASES or one.phrase == "a sign":
                continue
            places.append((one.phrase, one.entry.box))
            rows.append(observed(one, entries, case.record))
            truths.append(case.known and _is_there(one.phrase, one.entry.box, case))
    names = list(NameWeights.model_fields)
    line = LogisticRegression(C=1.0, max_iter=2000).fit([[float(row[name]) for name in names] for row in rows], truths)
    return NameWeights(**{name: round(float(value), 2) for name, value in zip(names, line.coef_[0], strict=True)})


def _is_there(phrase: str, box: Box, case: Case) -> bool:
    return any(phrase == name and iou(box, other) >= SAME_THING for name, other in case.things)


def figures(found: Sequence[Case], weights: NameWeights, least: float) -> Figures:
    """What a least weight keeps of the cases."""
    right = told = things = named_unknown = unknown = 0
    for case in found:
        record = weighed(case.record, least, weights)
        kept = [one for one in named(record) if one.entry.kept and one.phrase in PHRASES and one.phrase != "a sign"]
        if case.known:
            phrases, there = {one.phrase for one in kept}, {phrase for phrase, _ in case.things}
            right, told, things = right + len(phrases & there), told + len(phrases), things + len(there)
        else:
            boxes = [one.entry.box for one in kept]
            named_unknown += sum(any(iou(own, box) >= SAME_THING for own in boxes) for _, box in case.things)
            unknown += len(case.things)
    return Figures(right / max(1, things), (told - right) / max(1, told), named_unknown / max(1, unknown))


def main() -> None:
    """Print the weights, and the figures of each least weight on the scenes that they were fitted on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=300, help="of known, and of unknown drawings")
    scenes = parser.parse_args().scenes
    torch.set_num_threads(1)
    found = [*cases(scenes, known=True), *cases(scenes, known=False)]
    weights = fit(found)
    print("[evidence.weights]")
    for name, value in weights.model_dump().items():
        print(f"{name} = {value}")
    for step in range(-4, 21):
        told = figures(found, weights, step / 4)._asdict()
        print(f"weight {step / 4:5.2f}: " + "  ".join(f"{name} {value:.4f}" for name, value in told.items()))


if __name__ == "__main__":
    main()
