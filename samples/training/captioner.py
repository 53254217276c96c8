"""Train the demo's captioner, a small Florence-2, from random weights on scenes rendered while it learns.

    python -m samples.training.captioner --minutes 55 --out DIR [--resume]

`python -m torch.distributed.run --nproc-per-node 2 -m samples.training.captioner …` trains with two processes.

The schedule is tied to the minutes, counted over all resumed runs. DIR gets `checkpoint.pt` every three minutes
and `model/`, which `Florence2ForConditionalGeneration.from_pretrained` and `AutoProcessor.from_pretrained` load.
SIGTERM ends a run as if its minutes were over.
"""

from __future__ import annotations

import argparse
import math
import signal
import time
from pathlib import Path
from types import FrameType

import numpy as np
import torch
from transformers.utils.logging import disable_progress_bar

from samples.scenes import PHRASES, make_scene
from samples.training.caption_data import draw_samples
from samples.training.caption_eval import evaluate
from samples.training.caption_model import CaptionTrainer, Team, build_model
from samples.training.tokenizer import build_processor

SCENES, CROPS = 10, 3  # samples per step
RATE = 1e-3
DENSE_SHARE = 0.16  # share of the time in which only the dense head is trained
WARM_UP = 150  # steps, at the start of either phase
SAVE_SECONDS, SHOW_STEPS = 180, 50
TOKENIZER_SCENES = 600


class Run:
    """One training run: its clock, its schedule and its checkpoint."""

    def __init__(self, out: Path, minutes: float, rate: float, seed: int) -> None:
        self.out, self.seconds, self.rate, self.seed = out, minutes * 60, rate, seed
        self.team = Team()
        self.elapsed, self.step, self.dense_steps = 0.0, 0, 0
        self.stopped = False
        self.recent: dict[str, float] = {}
        torch.manual_seed(seed)
        # the tokenizer is trained on phrases and captions of training seeds
        texts = [*PHRASES, *(make_scene(number).caption for number in range(TOKENIZER_SCENES))]
        self.processor = build_processor(texts, image_size=128, image_tokens=65)
        self.trainer = CaptionTrainer(build_model(self.processor), self.processor, self.team)

    def stop(self, _signal: int, _frame: FrameType | None) -> None:
        """Stop after the current step (a signal handler)."""
        self.stopped = True

    def train(self, evaluate_minutes: float) -> None:
        """Train until the minutes are over, with regular checkpoints, prints and evaluations."""
        saved = evaluated = self.elapsed
        started = time.monotonic() - self.elapsed
        while self.elapsed < self.seconds and not self.stopped:
            self._step()
            # all processes stop after the same step; only the first one saves and prints
            self.elapsed, self.stopped = self.team.follow(time.monotonic() - started, self.stopped)
            if self.team.rank:
                continue
            if self.elapsed - saved > SAVE_SECONDS:
                saved = self.elapsed
                self.save()
            if self.elapsed - evaluated > evaluate_minutes * 60 and self.dense_steps < self.step:
                evaluated = self.elapsed
                print(f"  held out: {evaluate(self.trainer.average, self.processor, 96)}", flush=True)

    def _step(self) -> None:
        progress = self.elapsed / self.seconds
        # warm-up at the start of each phase, then a cosine decay over the whole time
        dense_only = progress < DENSE_SHARE
        warm = min(1.0, (self.step - (0 if dense_only else self.dense_steps) + 1) / WARM_UP)
        rate = self.rate * warm * max(0.01, 0.5 + 0.5 * math.cos(math.pi * progress))
        # the step's number determines its samples, so that a resumed run gets new ones
        rng = np.random.default_rng((self.seed, self.step, *[self.team.rank] * (self.team.rank > 0)))
        scenes, crops = draw_samples(rng, SCENES, CROPS)
        figures = self.trainer.step(scenes, crops, rate, dense_only=dense_only)
        # running means for the printed lines
        self.step += 1
        self.dense_steps += dense_only
        for name, value in figures.items():
            self.recent[name] = 0.95 * self.recent.get(name, value) + 0.05 * value
        if self.step % SHOW_STEPS == 0 and not self.team.rank:
            shown = " ".join(f"{name} {value:.3f}" for name, value in self.recent.items())
            print(f"{self.elapsed / 60:5.1f} min  step {self.step}  {shown}  rate {rate:.2e}", flush=True)

    def save(self) -> None:
        """Write the checkpoint under a temporary name, rename it over the last one, and save the averaged model."""
        state = {
            "trainer": self.trainer.state(),
            "clock": (self.elapsed, self.step, self.dense_steps),
        }
        self.out.mkdir(parents=True, exist_ok=True)
        torch.save(state, self.out / "checkpoint.tmp")
        (self.out / "checkpoint.tmp").rename(self.out / "checkpoint.pt")
        self.trainer.export(self.out / "model")

    def resume(self) -> None:
        """Load the checkpoint, if there is one."""
        path = self.out / "checkpoint.pt"
        if not path.exists():
            return
        state = torch.load(path, weights_only=True)
        self.trainer.restore(state["trainer"])
        self.elapsed, self.step, self.dense_steps = state["clock"]
        print(f"resumed at {self.elapsed / 60:.1f} min, step {self.step}", flush=True)


def main() -> None:
    """Run the training from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=55, help="training time, earlier runs counted in")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    parser.add_argument("--rate", type=float, default=RATE, help="highest learning rate (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--evaluate-minutes", type=float, default=12)
    arguments = parser.parse_args()
    # one thread per process; denormal numbers would slow a CPU down
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    disable_progress_bar()
    run = Run(arguments.out, arguments.minutes, arguments.rate, arguments.seed)
    signal.signal(signal.SIGTERM, run.stop)
    if arguments.resume:
        run.resume()
    run.train(arguments.evaluate_minutes)
    if run.team.rank:
        return
    run.save()
    print(f"done: {evaluate(run.trainer.average, run.processor, 320)}", flush=True)


if __name__ == "__main__":
    main()
