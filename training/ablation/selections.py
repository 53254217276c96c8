"""The ablation of selections: the same model, trained on three halves of one pool of described scenes.

    python -m training.ablation.selections --work ablation-output/selections

In the pool a few things are common, and two images in five are copies of others, changed as on the web (`pool.py`).
Strata describes it (profile `demo`); each half has the same number of images: drawn at random, balanced as `strata
snapshot create --select balanced` does it, or by `--unique --same cropped --bits 64 --select concepts`, without the
copies and with fewer of those that name what many name. The texts are descriptions without positions. Every half trains
the same model from the same initial weights for the same number of steps, with several orders of the data, and then
describes the same held-out scenes, in which all things are equally common. Writes WORK/selections.md.

What is done is not done again, so that an interrupted run continues: the vision tower, the initial model, each arm with
each seed. `--arm` trains one of the three, also in a process of its own.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from samples.scenes import Scene
from strata.errors import StrataError
from strata.snapshots import Selection, Snapshots, evenness_of
from training.ablation.arms import Ablation, Arm, Plan
from training.ablation.described import ALL, described
from training.ablation.pool import OPTIONS, Pooled, rare_things, read_pool, write_pool
from training.ablation.report import Row, table
from training.ablation.scoring import FIGURES, Tally, tally

TEXT = "description without positions"
ARMS = (
    Arm("random half", TEXT, "random-half"),
    Arm("balanced half", TEXT, "balanced-half"),
    Arm("concepts, no copies", TEXT, "concepts-half"),
)
FIGURES_HERE = {name: FIGURES[name] for name in FIGURES if name != "positions right"}


def selections_of(images: int) -> dict[str, Selection]:
    """The selections by the snapshot's name, each of half of the images."""
    half = images // 2
    concepts = Selection(method="concepts", count=half, unique=True, same="cropped", bits=64)
    return {
        ALL: Selection(),
        "random-half": Selection(count=half),
        "balanced-half": Selection(method="balanced", count=half),
        "concepts-half": concepts,
    }


def of_rare(scene: Scene, rare: frozenset[str]) -> Scene:
    """A scene with its rare things alone as the truth."""
    return replace(scene, objects=tuple(thing for thing in scene.objects if thing.name in rare))


def results(ablation: Ablation, scores: Sequence[Mapping[str, Any]], pool: Mapping[str, Pooled]) -> str:
    """The tables: what each selection has taken, and what the models trained on it say."""
    scenes, rare = ablation.held_out(), rare_things(list(pool.values()))
    rows, rare_rows = [], []
    for arm in dict.fromkeys(one["arm"] for one in scores):
        mine = [one for one in scores if one["arm"] == arm]
        rows.append(Row(arm, mine[0]["images"], [_tallies(scenes, one["texts"]) for one in mine]))
        of_arm = [_tallies([of_rare(scene, rare) for scene in scenes], one["texts"]) for one in mine]
        rare_rows.append(Row(arm, mine[0]["images"], of_arm))
    recalled = {"rare objects recalled": FIGURES["objects recalled"]}
    return "\n\n".join((taken(ablation, pool, rare), table(rows, FIGURES_HERE), table(rare_rows, recalled)))


def _tallies(scenes: Sequence[Scene], texts: Sequence[str]) -> list[Tally]:
    return list(map(tally, scenes, texts))


def taken(ablation: Ablation, pool: Mapping[str, Pooled], rare: frozenset[str]) -> str:
    """A table of what each snapshot has: images, different scenes, and how even its things are."""
    whole = Counter(name for image in pool.values() for name in image.things)
    lines = [["snapshot", "images", "different scenes", "things, as even as", "images with a rare thing"], ["---"] * 5]
    for name in (ALL, *(arm.selection for arm in ARMS)):
        snapshot = Snapshots(ablation.store).open(name)
        images = [pool[key] for key in snapshot.with_keys(snapshot.rows()).column("key").to_pylist()]
        counts = Counter(thing for image in images for thing in image.things)
        even = evenness_of({thing: (whole[thing], counts[thing]) for thing in whole})[1]
        with_rare = sum(not rare.isdisjoint(image.things) for image in images)
        numbers = (len(images), len({image.scene for image in images}), f"{even:.1f} of {len(whole)}", with_rare)
        lines.append([name, *map(str, numbers)])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main() -> None:
    """Run the ablation from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("ablation-output/selections"))
    parser.add_argument("--images", type=int, default=900, help="images of the pool (%(default)s)")
    parser.add_argument("--steps", type=int, default=400, help="of each training (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--tower-steps", type=int, default=1500)
    parser.add_argument("--pretrain-steps", type=int, default=2000)
    parser.add_argument("--scenes", type=int, default=200, help="held-out scenes (%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each arm, with other orders (%(default)s)")
    parser.add_argument("--arm", choices=[arm.name for arm in ARMS], help="this one alone, and no table")
    arguments = parser.parse_args()
    # one thread: two give so small a model nothing; denormal numbers would slow a CPU down
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    names = ("steps", "batch_size", "tower_steps", "pretrain_steps", "scenes")
    work = arguments.work.resolve()
    plan = Plan(work, **{name: getattr(arguments, name) for name in names}, drawn=OPTIONS)
    try:
        store = described(work, lambda folder: write_pool(folder, arguments.images), selections_of(arguments.images))
        ablation = Ablation(plan, store)
        print("images are described", flush=True)
        ablation.prepare()
        arms = [arm for arm in ARMS if arguments.arm in (None, arm.name)]
        scores = ablation.run_all(arms, arguments.seeds)
    except StrataError as error:
        raise SystemExit(f"ablation: {error}") from None
    if arguments.arm is None:
        text = results(ablation, [ablation.score_start(), *scores], read_pool(work / "shards"))
        (work / "selections.md").write_text(f"{text}\n", encoding="utf-8")
        print(text)


if __name__ == "__main__":
    main()
