"""`python -m bench.broken_training`: a training of which 5 % of the images are broken, killed and resumed.

A tiny model is trained twice by `strata train` for 200 steps: once undisturbed; once killed with SIGKILL in the midst,
and continued with another number of reading processes. The broken images are cut off, HTML pages, empty, or missing.
The exit code is 0 only if all losses and the lists of skipped samples are equal.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image
from transformers import TimmWrapperConfig

from strata.components import strata_command
from strata.processes import leaving_on
from training.losses import LossLog
from training.skips import SkipLog
from training.tiny import build_processor, save_start
from training.trainer import last_checkpoint, step_of

SAMPLES = 1000
BATCH = 8
SIDE = 32  # pixels
COLOURS = ("red", "green", "blue", "white", "black", "yellow", "purple")
CONFIG = """mixture = "mixture.toml"
output = "{output}"
steps = {steps}
seed = 1
precision = "float32"
save_steps = 25
skip_limit = 0.1
readers = {readers}
report_to = []
[model]
path = "./start"
[optimizer]
learning_rate = 5e-3
batch_size = {batch}
"""


def main() -> None:
    """Run both trainings and compare them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--broken", type=float, default=0.05, help="share of the images")
    arguments = parser.parse_args()
    with leaving_on(signal.SIGTERM), tempfile.TemporaryDirectory() as name:
        folder, steps = Path(name), arguments.steps
        broken = write_data(folder, arguments.broken)
        # undisturbed; killed; continued with a reading process
        run(folder, "whole", steps)
        died, resumed = run_and_kill(folder, "killed", steps, steps // 2 + 7)
        run(folder, "killed", steps, readers=1)
        line, equal = compare(folder, steps)
    print(f"{broken} of {SAMPLES} images broken, killed at step {died}, continued from step {resumed}: {line}")
    raise SystemExit(not equal)


def write_data(folder: Path, share: float) -> int:
    """Write the images, their conversations, the mixture, and a model to start from; return how many are broken."""
    chosen = random.Random(0).sample(range(SAMPLES), round(share * SAMPLES))
    (folder / "images").mkdir()
    entries = []
    for number in range(SAMPLES):
        colour = COLOURS[number % len(COLOURS)]
        data = picture(colour)
        kinds = (data[: len(data) // 2], b"<!DOCTYPE html><html>404</html>", b"", None)
        content = kinds[chosen.index(number) % len(kinds)] if number in chosen else data
        if content is not None:
            (folder / "images" / f"{number}.jpg").write_bytes(content)
        turns = [("human", "<image>\nWhich colour?"), ("gpt", f"A {colour} square, number {number}.")]
        said = [{"from": role, "value": value} for role, value in turns]
        entries.append({"id": str(number), "image": f"images/{number}.jpg", "conversations": said})
    (folder / "squares.json").write_text(json.dumps(entries), encoding="utf-8")
    (folder / "mixture.toml").write_text(
        'name = "squares"\n[[sources]]\nname = "squares"\nconversations = "squares.json"\n', encoding="utf-8"
    )
    shape = {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16], "stem_width": 8, "output_stride": 16}
    more: dict[str, Any] = {"hidden_size": 16}
    tower = TimmWrapperConfig(architecture="resnet18", model_args=shape, do_pooling=False, **more)
    texts = [f"Which colour? A {colour} square, number 0123456789." for colour in COLOURS]
    save_start(folder / "start", build_processor(texts, SIDE, vocabulary=300), tower, seed=0, width=32, layers=1)
    return len(chosen)


def picture(colour: str) -> bytes:
    """A JPEG of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", (40, 40), colour).save(buffer, "JPEG")
    return buffer.getvalue()


def start(folder: Path, output: str, steps: int, readers: int) -> subprocess.Popen[bytes]:
    """Start a training. One thread: two give so small a model nothing."""
    path = folder / f"{output}-{readers}.toml"
    path.write_text(CONFIG.format(output=output, steps=steps, readers=readers, batch=BATCH), encoding="utf-8")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(strata_command("train", str(path)), env=environment, stdout=subprocess.DEVNULL)


def run(folder: Path, output: str, steps: int, readers: int = 0) -> None:
    """Train to the end."""
    with start(folder, output, steps, readers) as training:
        if training.wait():
            raise SystemExit(f"the training ended with {training.returncode}")


def run_and_kill(folder: Path, output: str, steps: int, death: int) -> tuple[int, int]:
    """Train and kill the process after a step; return the last step, and that of the checkpoint."""
    log = LossLog(folder / output)
    with start(folder, output, steps, 0) as training:
        while training.poll() is None and len(log.read()) < death:
            time.sleep(0.02)
        training.send_signal(signal.SIGKILL)
    checkpoint = last_checkpoint(folder / output)
    if training.returncode != -signal.SIGKILL or checkpoint is None:
        raise SystemExit(f"the training ended with {training.returncode} before it could be killed")
    return len(log.read()), step_of(checkpoint)


def compare(folder: Path, steps: int) -> tuple[str, bool]:
    """Compare the losses and the lists of skipped samples of both runs."""
    whole, killed = (LossLog(folder / name).read() for name in ("whole", "killed"))
    same = sum(one == other for one, other in zip(whole, killed, strict=False))
    lists = [SkipLog(folder / name).read() for name in ("whole", "killed")]
    equal = same == steps == len(whole) == len(killed) and lists[0] == lists[1] and bool(lists[0])
    skipped, replaced = len(lists[0]), whole[-1].get("skipped", 0)
    lists_line = f"the same {skipped} samples listed" if lists[0] == lists[1] else "other samples listed"
    return f"{same} of {steps} losses the same, {lists_line}, {replaced} places filled by others", equal


if __name__ == "__main__":
    main()
