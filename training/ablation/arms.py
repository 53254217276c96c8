"""The arms of an ablation: trained from the same initial weights, and scored on the same held-out scenes."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from samples.scenes import Scene, SceneOptions
from samples.training import vision_tower
from strata.data import Mixture
from strata.snapshots import Snapshots
from strata.store import Store
from training.ablation.held_out import INSTRUCTION, held_out, score, scores_of
from training.ablation.pretraining import pretrain
from training.ablation.questions import vocabulary
from training.ablation.texts import TEXTS, text_source
from training.config import Config, ModelTable, OptimizerTable
from training.tiny import build_processor, save_start
from training.train import train


@dataclass(frozen=True)
class Arm:
    """One training run: one of TEXTS, of the images of a snapshot, by its name."""

    name: str
    text: str
    selection: str = "all"


@dataclass(frozen=True)
class Plan:
    """The settings of all arms.

    steps: of each arm's training. tower_steps, pretrain_steps: of the pre-training of the vision tower and of the rest
    of the model. scenes: held-out scenes; drawn: how they are drawn.
    """

    work: Path
    steps: int
    batch_size: int
    tower_steps: int
    pretrain_steps: int
    scenes: int
    learning_rate: float = 1e-3
    drawn: SceneOptions = field(default_factory=SceneOptions)


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
            score(self.start(), path, self.held_out(), {"arm": "nothing yet: the start", "seed": 0, "images": 0})
        return scores_of(path)

    def held_out(self) -> list[Scene]:
        """The scenes that all arms describe."""
        return held_out(self.plan.scenes, self.plan.drawn)

    def run_all(self, arms: Sequence[Arm], seeds: int) -> list[dict[str, Any]]:
        """Train and score arms, with all seeds; tell after each how long it took. What is done is not done again."""
        runs = [(seed, arm) for seed in range(seeds) for arm in arms]
        scores = []
        for number, (seed, arm) in enumerate(runs, 1):
            began = time.monotonic()
            scores.append(self.run(arm, seed))
            spent = time.monotonic() - began
            print(f"{number} of {len(runs)}: {arm.name}, seed {seed}: {spent:.0f} s", flush=True)
        return scores

    def run(self, arm: Arm, seed: int) -> dict[str, Any]:
        """Train and score an arm, or read its scores if it is done."""
        folder = self.plan.work / "arms" / f"{arm.name.replace(', ', '-').replace(' ', '-')}-{seed}"
        path = folder / "scores.json"
        if not path.exists():
            # train, then let the model describe the held-out scenes
            mixture = self.mixture(arm.text, arm.selection)
            model = train(self._config(folder, seed), mixture)
            score(model, path, self.held_out(), {"arm": arm.name, "seed": seed, "images": len(mixture)})
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
