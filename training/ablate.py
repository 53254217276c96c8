"""The ablation: the same small model, from the same start, trained on alt texts, captions and descriptions.

    python -m training.ablate --work ablation-output

Scenes of the demo world are described by Strata itself (profile `demo`), a snapshot of all and one of half are taken
(the paper's 427 and 213), a vision tower is pre-trained, and each arm trains the same number of steps. Every arm then
describes the same held-out scenes, whose truth is known. Writes docs/ablation.md and docs/ablation.png. What is there
already is not made again, so a run that died goes on; arms can be trained side by side (`--arm`).
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from samples.scenes import HELD_OUT_SEED, Scene, make_scene
from samples.training import vision_tower
from strata.mixtures import Mixture
from strata.snapshot_sources import Snapshot, snapshot_source
from strata.store import Store
from training import ablation_report
from training.config import Config, ModelTable, OptimizerTable
from training.scoring import Tally, tally
from training.tiny import build_processor, save_start
from training.train import train

FIRST_HELD_OUT = HELD_OUT_SEED + 6_000_000  # no other run draws these
INSTRUCTION = "Describe the image."
LONGEST = 160  # tokens of an answer
GENERATED = 50  # images at a time
LEVELS = ("alt_text", "caption", "description")


@dataclass(frozen=True)
class Arm:
    """One training: a level of all images or of half of them."""

    name: str
    level: str
    half: bool = False


ARMS = (
    Arm("alt texts", "alt_text"),
    Arm("captions", "caption"),
    Arm("descriptions", "description"),
    Arm("descriptions, half", "description", half=True),
)


@dataclass(frozen=True)
class Plan:
    """What all arms share. steps: of the optimizer. tower_steps: of the tower's pre-training."""

    work: Path
    steps: int
    batch_size: int
    tower_steps: int
    scenes: int
    learning_rate: float = 2e-3


class Ablation:
    """Trains and scores arms in a folder."""

    def __init__(self, plan: Plan, store: Store, everything: Snapshot, half: Snapshot) -> None:
        self.plan, self.store = plan, store
        self.snapshots = {False: everything, True: half}

    def mixture(self, level: str, half: bool = False) -> Mixture:
        """A level of a snapshot's rows as the only task."""
        snapshot = self.snapshots[half]
        return Mixture.of(snapshot_source(self.store, snapshot, level, self.plan.work / "tables"), INSTRUCTION, level)

    def prepare(self) -> None:
        """The tower, and for each seed nothing: starts are made from it when they are needed."""
        if not (self.plan.work / "tower" / "model.safetensors").exists():
            vision_tower.train(self.plan.work / "tower", self.plan.tower_steps)

    def start(self, seed: int) -> Path:
        """What every arm of a seed starts from; its vocabulary knows the texts of all levels."""
        folder = self.plan.work / f"start-{seed}"
        if not folder.exists():
            texts = [INSTRUCTION, *(text for level in LEVELS for _, text in self.labels(level))]
            temporary = folder.with_suffix(".tmp")
            shutil.rmtree(temporary, ignore_errors=True)
            processor = build_processor(texts, vision_tower.SIDE)
            save_start(temporary, processor, self.plan.work / "tower", seed, width=128)
            temporary.rename(folder)
        return folder

    def labels(self, level: str, half: bool = False) -> list[tuple[str, str]]:
        """Key and text of every training image at a level."""
        source = self.mixture(level, half).shares[0].source
        return [(raw.key, raw.turns[-1]) for raw in source.read(range(len(source)))]

    def run(self, arm: Arm, seed: int) -> dict[str, Any]:
        """Train and score an arm, or take its scores up."""
        folder = self.plan.work / "arms" / f"{arm.name.replace(', ', '-').replace(' ', '-')}-{seed}"
        path = folder / "scores.json"
        if not path.exists():
            mixture = self.mixture(arm.level, arm.half)
            model = train(self._config(folder, seed), mixture)
            texts = describe(model, held_out(self.plan.scenes))
            tallies = [tally(scene, text) for scene, text in zip(held_out(self.plan.scenes), texts, strict=True)]
            result = {"arm": arm.name, "seed": seed, "images": len(mixture), "steps": self.plan.steps}
            path.write_text(json.dumps({**result, "texts": texts, "tallies": [asdict(one) for one in tallies]}))
        scores: dict[str, Any] = json.loads(path.read_text())
        return scores

    def _config(self, folder: Path, seed: int) -> Config:
        plan = self.plan
        return Config(
            mixture=Path("the ablation's"),
            output=folder,
            model=ModelTable(path=str(self.start(seed)), freeze=("vision_tower",)),
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


def held_out(count: int) -> list[Scene]:
    """The scenes that all arms describe; none of a seed that anything was trained on."""
    return [make_scene(FIRST_HELD_OUT + i) for i in range(count)]


@torch.inference_mode()
def describe(folder: Path, scenes: Sequence[Scene]) -> list[str]:
    """What a trained model says of scenes, greedily."""
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    texts: list[str] = []
    for first in range(0, len(scenes), GENERATED):
        conversations = [
            [{"role": "user", "content": [{"type": "image", "image": scene.image}, {"type": "text", "text": INSTRUCTION}]}]
            for scene in scenes[first : first + GENERATED]
        ]
        inputs = processor.apply_chat_template(
            conversations, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
        ids = model.generate(**inputs, max_new_tokens=LONGEST)[:, inputs["input_ids"].shape[1] :]
        texts += [text.strip() for text in processor.batch_decode(ids, skip_special_tokens=True)]
    return texts


def tallies_of(scores: dict[str, Any]) -> list[Tally]:
    """The tallies that an arm's scores hold."""
    return [Tally(**counts) for counts in scores["tallies"]]


def main() -> None:
    raise SystemExit
