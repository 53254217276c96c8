"""`python -m bench.quality`: the quality of the demo profile on held-out scenes, through the running service.

500 scenes of new seeds, 100 empty ones and 166 with drawings that no model was trained on are submitted as
shards; their records are compared with the truth in the shards' JSON. Only the matcher's AUC calls the
stage directly, because the service only scores pairs that a stage proposed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sklearn.metrics import roc_auc_score

from models.boxes import iou
from models.building import build_stages
from models.crops import crop_box
from models.items import Pair
from samples.scenes import HELD_OUT_SEED, PHRASES, SceneOptions, make_scene
from samples.service import running_service
from samples.shards import ShardOptions, write_shards
from samples.truth import is_recalled, is_true, things_named, vocabulary
from strata.core import Record, Settings, load_profile
from strata.evaluation.mentions import read
from strata.evaluation.shard_truth import of_scene
from strata.evaluation.with_truth import holds

# above HELD_OUT_SEED, where write_shards counts from. No threshold was chosen on these seeds, nor with a look at them
FIRST_SEED = 70_000_000


@dataclass(frozen=True)
class Case:
    """A record, and the truth of its scene from the shard's JSON."""

    record: Record
    truth: dict[str, Any]

    @property
    def things(self) -> set[tuple[str, str | None]]:
        """The things in the image, by name and colour."""
        return {(thing["name"], thing["colour"]) for thing in self.truth["objects"]}

    @property
    def boxes(self) -> list[tuple[str, list[float]]]:
        """The phrase and box of every object and sign."""
        objects = [(thing["phrase"], thing["box"]) for thing in self.truth["objects"]]
        return objects + [("a sign", sign["box"]) for sign in self.truth["signs"]]


def shares(cases: Sequence[Case], texts: Iterable[str]) -> dict[str, float]:
    """Recall of things, and precision of named things, over all cases."""
    recalled = present = named_true = named_all = 0
    for case, text in zip(cases, texts, strict=True):
        named = things_named(text)
        recalled += sum(is_recalled(thing, named) for thing in case.things)
        present += len(case.things)
        named_true += sum(is_true(thing, case.things) for thing in named)
        named_all += len(named)
    return {"recall": recalled / max(1, present), "precision": named_true / max(1, named_all)}


def detector_figures(cases: Sequence[Case]) -> dict[str, float]:
    """Class-agnostic AP50 and recall at IoU 0.5, and the share of matched boxes with the right name and colour."""
    scored: list[tuple[float, bool]] = []
    right = matched = total = 0
    for case in cases:
        # greedy matching: the best scores choose first, each true box is used once
        left = list(case.boxes)
        total += len(left)
        for region in sorted(case.record.regions or (), key=lambda region: -(region.score or 0)):
            # the remaining true box with the largest overlap
            best = max(left, key=lambda entry: iou(region.box, entry[1]), default=None)  # type: ignore[arg-type]
            hit = best is not None and iou(region.box, best[1]) >= 0.5  # type: ignore[arg-type]
            scored.append((region.score or 0.0, hit))
            if best is not None and hit:
                left.remove(best)
                matched += 1
                right += region.phrase == best[0]
    return {
        "AP50": average_precision(scored, total),
        "recall at IoU 0.5": matched / max(1, total),
        "name and colour right": right / max(1, matched),
    }


def average_precision(scored: Sequence[tuple[float, bool]], total: int) -> float:
    """The area under the precision-recall curve with monotonic precision, as in PASCAL VOC 2010 and later."""
    precisions: list[float] = []
    hits = 0
    # precision at each rank
    ordered = sorted(scored, key=lambda entry: -entry[0])
    for rank, (_, hit) in enumerate(ordered, 1):
        hits += hit
        precisions.append(hits / rank)
    area = highest = 0.0
    # from the lowest rank up: the highest precision at this recall or above
    for (_, hit), precision in zip(reversed(ordered), reversed(precisions), strict=True):
        highest = max(highest, precision)
        area += highest * hit
    return area / max(1, total)


def relation_figures(cases: Sequence[Case]) -> dict[str, float]:
    """The share of told relations that are right, and of the descriptions of two and more things that tell one."""
    right: list[bool] = []
    telling: list[bool] = []
    for case in cases:
        truth = of_scene(case.truth)
        told = [holds(relation, truth) for relation in read(_description(case), vocabulary()).relations]
        right += [bool(one) for one in told]
        if len(case.boxes) >= 2:
            telling.append(bool(told))
    return {"relations right": _share(right), "descriptions with a relation": _share(telling)}


def text_recall(cases: Sequence[Case]) -> float:
    """The recall of sign words in kept text lines; only letters are compared."""
    wanted = found = 0
    for case in cases:
        read = {_letters(line.text) for line in case.record.text or () if line.kept}
        wanted += len(case.truth["signs"])
        found += sum(_letters(sign["text"]) in read for sign in case.truth["signs"])
    return found / max(1, wanted)


def _letters(text: str) -> str:
    return "".join(letter for letter in text.upper() if letter.isalnum())


def unseen_named(cases: Sequence[Case]) -> float:
    """The share of objects unknown to all models that a kept region or object names as something known."""
    named = total = 0
    known = set(PHRASES)
    for case in cases:
        # an unknown object counts if a kept entry names something known in its box
        entries = [entry for entry in (*(case.record.regions or ()), *(case.record.objects or ())) if entry.kept]
        for thing in case.truth["objects"]:
            total += 1
            named += any(entry.phrase in known and iou(entry.box, thing["box"]) >= 0.3 for entry in entries)
    return named / max(1, total)


def matcher_auc(seeds: range) -> float:
    """The AUC of true (crop, phrase) pairs against the same crops with false phrases."""
    matcher = build_stages(load_profile("demo", Settings().profiles_dir), "vision")["matcher"]
    matcher.load()
    pairs: list[Pair] = []
    for seed in seeds:
        scene = make_scene(HELD_OUT_SEED + seed)
        # one true and one false phrase for each crop
        for i, thing in enumerate((*scene.objects, *scene.signs)):
            crop = crop_box(scene.image, thing.box)
            others = [phrase for phrase in PHRASES if phrase != thing.phrase]
            pairs += [Pair(crop, thing.phrase), Pair(crop, others[(seed * 31 + i * 17) % len(others)])]
    scores = matcher.run(pairs)
    return float(roc_auc_score([1, 0] * (len(pairs) // 2), scores))


def read_truth(folder: Path) -> dict[str, dict[str, Any]]:
    """The `scene` entry of every JSON in a folder's shards, by key."""
    truths: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".json"):
                    truths[member.name[:-5]] = json.load(tar.extractfile(member))["scene"]  # type: ignore[arg-type]
    return truths


def measure(counts: dict[str, int], work: Path) -> dict[str, float]:
    """Run the shards through a service and compute every figure."""
    options = {
        "full": SceneOptions(min_objects=1),
        "empty": SceneOptions(max_objects=0, signs=False),
        "unseen": SceneOptions(min_objects=1, max_objects=3, signs=False, sprites="unseen"),
    }
    cases: dict[str, list[Case]] = {}
    # each kind has seeds of its own
    for i, name in enumerate(options):
        write_shards(work / name, ShardOptions(counts[name], FIRST_SEED + i * 100_000, scenes=options[name]))
    with running_service(work / "service", work, profile="demo") as client:
        for name in options:
            job = client.submit([str(path) for path in sorted((work / name).glob("*.tar"))])
            end = client.wait(job.id)
            print(f"{name}: {end.status.value}, {end.request_counts.model_dump()}", file=sys.stderr)
            # a record's key finds its truth
            truths = read_truth(work / name)
            cases[name] = [Case(record, truths[record.key]) for record in client.results(job.id)]
    return figures_of(cases) | {
        "matcher AUC": matcher_auc(range(FIRST_SEED + 300_000, FIRST_SEED + 300_000 + counts["full"]))
    }


def figures_of(cases: dict[str, list[Case]]) -> dict[str, float]:
    """Compute the figures from the records of full, empty and unseen scenes."""
    full, empty = cases["full"], cases["empty"]
    # captions are measured apart for scenes with few and with many objects
    few = [case for case in full if 1 <= len(case.truth["objects"]) <= 4]
    many = [case for case in full if len(case.truth["objects"]) > 4]
    captions_few, captions_many = (shares(group, [_caption(case) for case in group]) for group in (few, many))
    descriptions = shares(full, (_description(case) for case in full))
    detector = {f"detector {name}": value for name, value in detector_figures(full).items()}
    return {
        **detector,
        "caption recall, 1 to 4 objects": captions_few["recall"],
        "caption precision, 1 to 4 objects": captions_few["precision"],
        "caption recall, 5 and 6 objects": captions_many["recall"],
        "caption precision, 5 and 6 objects": captions_many["precision"],
        "empty scenes with nothing in the caption": _share(not things_named(_caption(case)) for case in empty),
        "empty scenes with nothing in the description": _share(not things_named(_description(case)) for case in empty),
        "unseen objects named with confidence": unseen_named(cases["unseen"]),
        "sign text recall": text_recall(full),
        "description recall": descriptions["recall"],
        "description invented": 1 - descriptions["precision"],
        "description invented before verification": 1 - shares(full, map(_composed, full))["precision"],
        **{f"description: {name}": value for name, value in relation_figures(full).items()},
        "sentences with evidence": _share(
            bool(sentence.evidence)
            for case in full
            if case.record.description
            for sentence in case.record.description.sentences
        ),
    }


def _caption(case: Case) -> str:
    return case.record.caption.text if case.record.caption else ""


def _description(case: Case) -> str:
    return case.record.description.text if case.record.description else ""


def _composed(case: Case) -> str:
    """The description as the composer wrote it, before the verifier cut anything."""
    return case.record.verification.text if case.record.verification else _description(case)


def _share(truths: Iterable[bool]) -> float:
    counted = Counter(truths)
    return counted[True] / max(1, counted.total())


def main() -> None:
    """Print the figures as a table, or as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=500)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    counts = {"full": options.scenes, "empty": max(1, options.scenes // 5), "unseen": max(1, options.scenes // 3)}
    with tempfile.TemporaryDirectory() as work:
        figures = measure(counts, Path(work))
    if options.json:
        print(json.dumps(figures, indent=1))
        return
    print("{full} scenes with objects, {empty} empty, {unseen} of unseen drawings".format(**counts))
    for name, value in figures.items():
        print(f"| {name} | {value:.4f} |")


if __name__ == "__main__":
    main()
