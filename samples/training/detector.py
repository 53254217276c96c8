"""Train the demo detector: `python -m samples.training.detector --minutes 50 --out DIR [--resume]`.

Two phases share one wall-clock budget. First the backbone and the encoder learn densely what every cell shows;
then the whole RT-DETR learns to say each object once. Scenes are rendered while training. DIR gets
`checkpoint.pt` to go on from and `model/`, the averaged weights as they will be shipped. SIGTERM saves both and
ends.
"""

from __future__ import annotations

import argparse
import copy
import math
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import RTDetrImageProcessor, RTDetrV2ForObjectDetection

from samples.training.detector_data import batch_of
from samples.training.detector_eval import detect_with, held_out, measure
from samples.training.detector_loss import dense_loss, dense_targets, query_phrase_loss
from samples.training.detector_model import SIZE, build_model, copy_encoder_head, encode, save

BATCH = 16
PRETRAIN = 0.33  # share of the minutes
PRETRAIN_RATE, RATE, LAST_RATE = 1.5e-3, 8e-4, 1e-5
WARM_UP = 100  # steps, in each phase
EMA = 0.995
CHECKPOINT_EVERY, MEASURE_EVERY, PRINT_EVERY = 180.0, 240.0, 30.0  # seconds
FIRST_SEED = 1_000_000_000


@dataclass
class Progress:
    """The progress of a training. `seconds` counts only training time, over all runs."""

    step: int = 0
    seconds: float = 0.0
    phase_start: int = 0
    pretraining: bool = True


class Trainer:
    """One training: the model, its running average, the optimizer, and checkpoints."""

    def __init__(self, out: Path, minutes: float, seed: int) -> None:
        self.out = out
        self.budget = minutes * 60
        self.progress = Progress()
        model: Any = build_model(seed)
        self.model: RTDetrV2ForObjectDetection = model.to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.model).eval()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=RATE, weight_decay=1e-4)
        self.stopping = False

    def run(self) -> None:
        """Train until the budget is spent or `stop` was called, then save."""
        signal.signal(signal.SIGTERM, self.stop)
        self.model.train()
        last = time.monotonic()
        # regular work by seconds of this run, so that it does not happen at once after a resume
        due = {"print": 0.0, "checkpoint": CHECKPOINT_EVERY, "measure": MEASURE_EVERY}
        started = self.progress.seconds
        while self.progress.seconds < self.budget and not self.stopping:
            loss = self._step()
            now = time.monotonic()
            self.progress.seconds += now - last
            last = now
            ran = self.progress.seconds - started
            if ran >= due["print"]:
                due["print"] += PRINT_EVERY
                self._say(f"loss {loss:.3f} rate {self._rate():.2e}")
            if ran >= due["checkpoint"]:
                due["checkpoint"] += CHECKPOINT_EVERY
                self.save()
            if ran >= due["measure"]:
                due["measure"] += MEASURE_EVERY
                self.measure()
        self.save()
        self.measure()

    def stop(self, signum: int, frame: FrameType | None) -> None:
        """Stop after the current step (a signal handler)."""
        self.stopping = True

    def _step(self) -> float:
        progress = self.progress
        # the second phase begins with the decoder's heads set to the encoder's
        if progress.pretraining and progress.seconds >= PRETRAIN * self.budget:
            copy_encoder_head(self.model)
            progress.pretraining, progress.phase_start = False, progress.step
        # the step's number determines its scenes
        first = FIRST_SEED + progress.step * BATCH
        pixels, labels = batch_of(range(first, first + BATCH))
        loss = self._loss(pixels.contiguous(memory_format=torch.channels_last), labels)
        # the optimizer step
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate()
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimizer.step()
        progress.step += 1
        self._blend()
        return loss.item()

    def _loss(self, pixels: Tensor, labels: list[dict[str, Tensor]]) -> Tensor:
        targets = dense_targets(labels)
        # first phase: backbone and encoder only
        if self.progress.pretraining:
            return dense_loss(*encode(self.model, pixels), targets, with_presence=True)
        # second phase: RT-DETR's own loss, and two more
        outputs: Any = self.model(pixels, labels=labels)
        boxes = outputs.enc_outputs_coord_logits.sigmoid()
        dense = dense_loss(outputs.enc_outputs_class, boxes, targets, with_presence=False)
        queries = self.model.config.num_queries  # the last ones: the others, for denoising, are made from labels
        phrases = query_phrase_loss(outputs.logits[:, -queries:], outputs.pred_boxes[:, -queries:], labels)
        loss: Tensor = outputs.loss + dense + phrases
        return loss

    def _rate(self) -> float:
        progress = self.progress
        warm = min(1.0, (progress.step - progress.phase_start + 1) / WARM_UP)
        if progress.pretraining:
            return PRETRAIN_RATE * warm
        # cosine decay over the second phase
        done = (progress.seconds / self.budget - PRETRAIN) / (1 - PRETRAIN)
        return LAST_RATE + (RATE - LAST_RATE) * warm * (1 + math.cos(math.pi * min(max(done, 0.0), 1.0))) / 2

    @torch.no_grad()
    def _blend(self) -> None:
        step = self.progress.step
        # the running average adapts faster at the beginning
        keep = min(EMA, (1 + step) / (10 + step))
        for own, other in zip(_tensors(self.average), _tensors(self.model), strict=True):
            if own.is_floating_point():
                own.lerp_(other, 1 - keep)
            else:
                own.copy_(other)

    def measure(self) -> None:
        """Print the averaged weights' figures on 100 held-out scenes."""
        processor = RTDetrImageProcessor(size={"height": SIZE, "width": SIZE})
        model = self._dense_detector if self.progress.pretraining else self.average
        self._say(str(measure(detect_with(model, processor), held_out(100))))

    def _dense_detector(self, pixel_values: Tensor) -> SimpleNamespace:
        """The encoder's cells as detections, to evaluate the pre-training."""
        logits, boxes = encode(self.average, pixel_values)
        return SimpleNamespace(logits=logits, pred_boxes=boxes)

    def save(self) -> None:
        """Write `checkpoint.pt` (atomically) and `model/`."""
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "progress": vars(self.progress),
        }
        torch.save(state, self.out / "checkpoint.tmp")
        (self.out / "checkpoint.tmp").replace(self.out / "checkpoint.pt")
        save(self.average, self.out / "model")

    def resume(self) -> None:
        """Continue from `checkpoint.pt`. Raises FileNotFoundError if it does not exist."""
        state = torch.load(self.out / "checkpoint.pt", weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.progress = Progress(**state["progress"])

    def _say(self, text: str) -> None:
        phase = "dense" if self.progress.pretraining else "detr"
        print(f"{self.progress.seconds / 60:5.1f} min step {self.progress.step} {phase}: {text}", flush=True)


def _tensors(model: RTDetrV2ForObjectDetection) -> list[Tensor]:
    """All parameters and buffers, each once: a state dict would contain shared heads twice."""
    return [*model.parameters(), *model.buffers()]


def main() -> None:
    """Run the training from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=50, help="training time, that before --resume included")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--seed", type=int, default=20261122)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.disable_progress_bar()
    arguments.out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(arguments.out, arguments.minutes, arguments.seed)
    if arguments.resume:
        trainer.resume()
    trainer.run()


if __name__ == "__main__":
    main()
