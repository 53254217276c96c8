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
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from samples.scenes import HELD_OUT_SEED, Scene, make_scene
from samples.service import running_service
from samples.shards import ShardOptions, write_shards
from samples.training import vision_tower
from strata.data import Mixture
from strata.errors import StrataError
from strata.snapshots import Selection, Snapshots
from strata.store import PartsOf, Store
from training.ablation import report as pages
from training.ablation.held_out import INSTRUCTION, held_out, score, scores_of
from training.ablation.pretraining import pretrain
from training.ablation.questions import vocabulary
from training.ablation.report import Row
from training.ablation.scoring import Tally, tally
from training.ablation.texts import TEXTS, text_source
from training.config import Config, ModelTable, OptimizerTable
from training.tiny import build_processor, save_start
from training.train import train

DOCS = Path(__file__).resolve().parents[2] / "docs"
FIRST_TRAINED, SHARD_SIZE = 5_000_000, 427  # added to HELD_OUT_SEED, from which write_shards counts
HALF = 213 / 427  # the paper selects 213k of 427k
SELECTIONS = {  # by the snapshot's name
    "all": Selection(),
    "random-half": Selection(share=HALF),
    "balanced-half": Selection(method="balanced", share=HALF),
}


@dataclass(frozen=True)
class Arm:
    """One training run: one of TEXTS, of the images of one of SELECTIONS."""

    name: str
    text: str
    selection: str = "all"


ARMS = (
    Arm("alt texts", "alt_text"),
    Arm("captions", "caption"),
    Arm("descriptions", "description"),
    Arm("descriptions, random half", "description", "random-half"),
    Arm("descriptions, balanced half", "description", "balanced-half"),
    Arm("descriptions without positions", "description without positions"),
)


@dataclass(frozen=True)
class Plan:
    """The settings of all arms.

    steps: of each arm's training. tower_steps, pretrain_steps: of the pre-training of the vision tower and of the rest
    of the model. scenes: held-out scenes.
    """

    work: Path
    steps: int
    batch_size: int
    tower_steps: int
    pretrain_steps: int
    scenes: int
    learning_rate: float = 1e-3


class Ablation:
    """Trains and scores the arms, in the folder `plan.work`."""

    def __init__(self, plan: Plan, store: Store) -> None:
        self.plan, self.store = plan, store

    def mixture(self, text: str, selection: str = "all") -> Mixture:
        """The mixture with one text of a selection's rows as its only task."""
        snapshot = Snapshots(self.store).open(selection)
        source = text_source(self.store, snapshot, text, self.plan.work / "tables")
        return Mixture.of(source, INSTRUCTION, TEXTS[text].layer)

    def prepare(self) -> None:
        """Pre-train the vision tower, unless it exists."""
        if not (self.plan.work / "tower" / "model.safetensors").exists():
            vision_tower.train(self.plan.work / "tower", self.plan.tower_steps)

    def start(self) -> Path:
        """The folder of the pre-trained model that all arms start from; it is made on the first call."""
        folder = self.plan.work / "start"
        if not folder.exists():
            # the vocabulary comes from the texts of all arms, so that no arm has an advantage
            labels = (label for text in TEXTS for _, label in self.labels(text))
            temporary = folder.with_suffix(".tmp")
            shutil.rmtree(temporary, ignore_errors=True)
            processor = build_processor([INSTRUCTION, *vocabulary(), *labels], vision_tower.SIDE)
            save_start(temporary, processor, self.plan.work / "tower", seed=0, width=128)
            # a rename makes the folder appear only when it is complete
            pretrain(temporary, self.plan.pretrain_steps, seed=0)
            temporary.rename(folder)
        return folder

    def labels(self, text: str) -> list[tuple[str, str]]:
        """The key and text of every training image."""
        source = self.mixture(text).shares[0].source
        return [(raw.key, raw.turns[-1]) for raw in source.read(range(len(source)))]

    def score_start(self) -> dict[str, Any]:
        """The scores of the initial model, before any arm's training."""
        path = self.plan.work / "start-scores.json"
        if not path.exists():
            score(self.start(), path, self.plan.scenes, {"arm": "nothing yet: the start", "seed": 0, "images": 0})
        return scores_of(path)

    def run(self, arm: Arm, seed: int) -> dict[str, Any]:
        """Train and score an arm, or read its scores if it is done."""
        folder = self.plan.work / "arms" / f"{arm.name.replace(', ', '-').replace(' ', '-')}-{seed}"
        path = folder / "scores.json"
        if not path.exists():
            # train, then let the model describe the held-out scenes
            mixture = self.mixture(arm.text, arm.selection)
            model = train(self._config(folder, seed), mixture)
            score(model, path, self.plan.scenes, {"arm": arm.name, "seed": seed, "images": len(mixture)})
        return scores_of(path)

    def _config(self, folder: Path, seed: int) -> Config:
        plan = self.plan
        return Config(
            mixture=Path("the ablation's"),
            output=folder,
            model=ModelTable(path=str(self.start()), freeze=("vision_tower",)),
            optimizer=OptimizerTable(
                learning_rate=plan.learning_rate,
                warmup_steps=min(50, plan.steps),
                weight_decay=0.05,
                beta2=0.98,
                batch_size=plan.batch_size,
            ),
            steps=plan.steps,
            seed=seed,
            precision="float32",
        )


def described(work: Path, images: int) -> Store:
    """The store of the described scenes, with a snapshot for each of SELECTIONS. Raises StrataError."""
    # draw the scenes; a rename makes the folder appear only when it is complete
    shards = work / "shards"
    if not shards.exists():
        temporary = work / "shards.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        write_shards(temporary, ShardOptions(images, FIRST_TRAINED, SHARD_SIZE))
        temporary.rename(shards)
    store = Store(str(work / "service" / "data" / "store"))
    snapshots = Snapshots(store)
    if "all" not in snapshots.names():
        # describe them with a service of our own
        with running_service(work / "service", shards, profile="demo") as client:
            job = client.submit([str(path) for path in sorted(shards.glob("*.tar"))], metadata={"from": "ablation"})
            client.wait(job.id)
        snapshots.create("all", PartsOf(store).sources([job.id]), SELECTIONS["all"], [job.id])
    # the others select from the parts of the first
    everything = snapshots.open("all")
    for name in SELECTIONS.keys() - set(snapshots.names()):
        snapshots.create(name, everything.parts, SELECTIONS[name], everything.manifest.sources)
    return store


def report(ablation: Ablation, scores: Sequence[dict[str, Any]], seeds: int) -> str:
    """Write the plot, and return the generated text of docs/ablation.md."""
    # a row per arm, with the tallies of each seed
    scenes = held_out(ablation.plan.scenes)
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
        ablation = Ablation(plan, described(work, arguments.images))
        ablation.prepare()
        arms = [arm for arm in ARMS if arguments.arm in (None, arm.name)]
        scores = [ablation.run(arm, seed) for seed in range(arguments.seeds) for arm in arms]
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
