"""`python -m bench.models.segmenter [CHECKOUT ...]`: memory and time of the SAM segmenter on a large picture.

The model is SAM-ViT-B of its published size (hub: facebook/sam-vit-base), on the CPU, with random weights whose masks
are replaced by discs (see `bench/models/random_models.py`): a third of the masks passes the thresholds. Each checkout's
code runs in a process of its own, whose memory is limited. Prints a line of JSON for each checkout: the peak of the
resident memory of the process, what it was before the first picture, and the seconds of each picture.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from transformers import SamConfig, SamImageProcessor, SamModel

CHECKOUT = Path(__file__).resolve().parents[2]
SHAPE = (6000, 4000)  # pixels: 24 megapixels
LIMIT = 12  # GiB
# Runs with the code of a checkout, so it uses only what all checkouts have.
CHILD = """
import json, os, resource, sys, time
folder, width, height, limit, threads, rounds = sys.argv[1], *map(int, sys.argv[2:])
resource.setrlimit(resource.RLIMIT_DATA, (limit << 30, limit << 30))
import numpy as np, torch
from PIL import Image
from bench.models import random_models
from models.stages.segmenter import SamSegmenter
from strata.core import StageSettings

torch.set_num_threads(threads)
def peak():
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)

thresholds = {"pred_iou_thresh": 1 - random_models.PASSING, "stability_score_thresh": 0.5}
stage = SamSegmenter(StageSettings(backend="sam", model=f"local:{folder}", revision="", parameters=thresholds))
stage.load()
torch.manual_seed(0)
if hasattr(stage, "_decoder"):
    random_models.random_masks(stage._decoder)
else:  # before 2026-11-29
    stage._model.mask_decoder.register_forward_hook(random_models._discs)
noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
picture, found = Image.fromarray(noise), {"loaded_gib": peak(), "seconds": [], "masks": []}
try:
    for _ in range(rounds):
        start = time.perf_counter()
        (segments,) = stage.run([picture])
        found["seconds"].append(round(time.perf_counter() - start, 1))
        found["masks"].append(len(segments))
except (MemoryError, RuntimeError) as error:
    found["error"] = " ".join(str(error).split())[:200]
print(json.dumps(found | {"peak_gib": peak()}))
"""


def write_sam(folder: Path, **sizes: int) -> None:
    """Write SAM with random weights, by default in the size of ViT-B. sizes: of the image encoder, for tests."""
    side = sizes.get("image_size", 1024)
    config = SamConfig(vision_config=sizes, prompt_encoder_config={"image_size": side, "patch_size": 16})
    SamModel(config).save_pretrained(folder)
    square = {"height": side, "width": side}
    SamImageProcessor(size={"longest_edge": side}, pad_size=square).save_pretrained(folder)


def measured(checkout: Path, folder: Path, shape: tuple[int, int], limit: int, rounds: int) -> dict[str, object]:
    """What the code of a checkout takes for a picture of that shape (width, height). limit: of its memory, in GiB."""
    arguments = [str(folder), *map(str, (*shape, limit, os.cpu_count() or 1, rounds))]
    environment = {**os.environ, "PYTHONPATH": str(checkout), "CUDA_VISIBLE_DEVICES": ""}
    child = subprocess.run(
        [sys.executable, "-c", CHILD, *arguments], cwd=checkout, env=environment, capture_output=True, encoding="utf-8"
    )
    if child.returncode:
        return {"error": child.stderr.strip().splitlines()[-1] if child.stderr else f"exit code {child.returncode}"}
    answer: dict[str, object] = json.loads(child.stdout.splitlines()[-1])
    return answer


def main() -> None:
    """Print the figures of each checkout."""
    parser = argparse.ArgumentParser(prog="python -m bench.models.segmenter", description=__doc__)
    parser.add_argument("checkouts", nargs="*", type=Path, default=[CHECKOUT], metavar="CHECKOUT")
    parser.add_argument("--shape", nargs=2, type=int, default=SHAPE, metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--limit", type=int, default=LIMIT, help="of the memory of each process, in GiB")
    parser.add_argument("--rounds", type=int, default=2, help="pictures that each process segments, one after another")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_sam(Path(folder))
        for checkout in options.checkouts:
            figures = measured(checkout.resolve(), Path(folder), tuple(options.shape), options.limit, options.rounds)
            print(json.dumps({"checkout": str(checkout), "load": round(os.getloadavg()[0], 1), **figures}), flush=True)


if __name__ == "__main__":
    main()
