"""The ablation: the same small model, from the same initial weights, trained on alt texts, captions or descriptions.

    python -m training.ablation --work ablation-output

Steps: Strata describes scenes of the demo world (profile `demo`); snapshots are made of all of them, of a random half
and of a balanced half (the paper's 427k and 213k); a vision tower and then the initial model are pre-trained; each arm
trains for the same number of steps; and each describes the same held-out scenes, whose truth is known. Writes
docs/ablation.md up to its first second-level heading (the rest is kept), and docs/ablation.png. Results of finished
steps are reused, so that an interrupted run continues, and arms can be trained in separate processes (`--arm`).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from samples.scenes import HELD_OUT_SEED, Scene, make_scene
from samples.shards import ShardOptions, write_shards
from strata.errors import StrataError
from strata.snapshots import Selection
from training.ablation import report as pages
from training.ablation.arms import Ablation, Arm, Plan
from training.ablation.described import described
from training.ablation.report import Row
from training.ablation.scoring import Tally, tally
from training.ablation.texts import TEXTS

DOCS = Path(__file__).resolve().parents[2] / "docs"
FIRST_TRAINED, SHARD_SIZE = 5_000_000, 427  # added to HELD_OUT_SEED, from which write_shards counts
HALF = 213 / 427  # the paper selects 213k of 427k
SELECTIONS = {  # by the snapshot's name
    "all": Selection(),
    "random-half": Selection(share=HALF),
    "balanced-half": Selection(method="balanced", share=HALF),
}


ARMS = (
    Arm("alt texts", "alt_text"),
    Arm("captions", "caption"),
    Arm("descriptions", "description"),
    Arm("descriptions, random half", "description", "random-half"),
    Arm("descriptions, balanced half", "description", "balanced-half"),
    Arm("descriptions without positions", "description without positions"),
)


def report(ablation: Ablation, scores: Sequence[dict[str, Any]], seeds: int) -> str:
    """Write the plot, and return the generated text of docs/ablation.md."""
    # a row per arm, with the tallies of each seed
    scenes = ablation.held_out()
    rows = []
    for name in dict.fromkeys(one["arm"] for one in scores):
        mine = [one for one in scores if one["arm"] == name]
        told = [list(map(tally, scenes, one["texts"])) for one in mine]
        rows.append(Row(name, mine[0]["images"], told))
    # a row per kind of text for the training texts themselves, scored on the training scenes
    said = {text: dict(ablation.labels(text)) for text in TEXTS}
    tallies: dict[str, list[Tally]] = {text: [] for text in TEXTS}
    for key in sorted(set().union(*said.values())):
        scene = training_scene(key)
        for text in TEXTS:
            if key in said[text]:
                tallies[text].append(tally(scene, said[text][key]))
    labels = [Row(f"labels: {text}", len(tallies[text]), [tallies[text]]) for text in TEXTS]
    pages.plot(rows, DOCS / "ablation.png")
    return pages.document(rows, labels, asdict(ablation.plan) | {"seeds": seeds})


def training_scene(key: str) -> Scene:
    """The scene of a training image by its key: five digits of the shard, then its index in the shard."""
    return make_scene(HELD_OUT_SEED + FIRST_TRAINED + int(key[:5]) * SHARD_SIZE + int(key[5:]))


def main() -> None:
    """Run the ablation from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("ablation-output"))
    parser.add_argument("--images", type=int, default=854, help="scenes to describe (%(default)s)")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--tower-steps", type=int, default=1900)
    parser.add_argument("--pretrain-steps", type=int, default=2500)
    parser.add_argument("--scenes", type=int, default=200, help="held-out scenes (%(default)s)")
    parser.add_argument(
        "--seeds", type=int, default=3, help="trainings of each arm from the one start, with other orders (%(default)s)"
    )
    parser.add_argument("--arm", choices=[arm.name for arm in ARMS], help="this one alone, and no report")
    arguments = parser.parse_args()
    # one thread: two give so small a model nothing; denormal numbers would slow a CPU down
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    work = arguments.work.resolve()
    names = ("steps", "batch_size", "tower_steps", "pretrain_steps", "scenes")
    plan = Plan(work, **{name: getattr(arguments, name) for name in names})
    try:
        # 1. data, 2. vision tower, 3. arms (the initial model is made by the first)
        options = ShardOptions(arguments.images, FIRST_TRAINED, SHARD_SIZE)
        ablation = Ablation(plan, described(work, lambda folder: write_shards(folder, options), SELECTIONS))
        ablation.prepare()
        arms = [arm for arm in ARMS if arguments.arm in (None, arm.name)]
        scores = ablation.run_all(arms, arguments.seeds)
    except StrataError as error:
        raise SystemExit(f"ablation: {error}") from None
    # replace the generated part of the page, keep the text after its first second-level heading
    if arguments.arm is None:
        text, page = report(ablation, [ablation.score_start(), *scores], arguments.seeds), DOCS / "ablation.md"
        _, heading, written = page.read_text(encoding="utf-8").partition("\n## ") if page.exists() else ("", "", "")
        page.write_text(text + heading + written, encoding="utf-8")
        print(text)


if __name__ == "__main__":
    main()
