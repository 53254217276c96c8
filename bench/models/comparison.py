"""Run the three ways in separate processes and compare their figures. See `bench/models/__main__.py`."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import queue
import statistics
import tarfile
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image

from bench.models.measurement import Measurement, Options

SHARD = Path(__file__).resolve().parents[2] / "samples" / "shards" / "00000.tar"
LARGE = 640  # pixels of the longer side, as CC3M's images have
DATA_SETS = {"427k images": 427_000, "3.3 million images": 3_300_000}


def write_images(folder: Path, count: int, side: int | None) -> list[Path]:
    """Write the bundled shard's images to files, repeatedly if more are needed. side: of the enlarged images."""
    with tarfile.open(SHARD) as tar:
        members = [member for member in tar if member.name.endswith(".jpg")]
        data = [tar.extractfile(member).read() for member in members]  # type: ignore[union-attr]
    files = []
    for number in range(count):
        file = folder / f"{number:05d}.jpg"
        file.write_bytes(data[number % len(data)])
        if side is not None:
            image = Image.open(file)
            scale = side / max(image.size)
            image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC).save(
                file, quality=90
            )
        files.append(file)
    return files


def measure(options: Options) -> list[Measurement]:
    """Run all processes; return their results."""
    # CUDA needs spawned processes
    context = multiprocessing.get_context("spawn")
    cores = os.cpu_count() or 1
    # the original runs as one process with all cores; if ours does too, both share the process and its models
    together = options.processes == 1
    runs = (
        [(("original", "ours", "bare"), 1)] if together else [(("original",), 1), (("ours", "bare"), options.processes)]
    )
    answers: list[Measurement] = []
    with tempfile.TemporaryDirectory() as name:
        files = write_images(Path(name), options.images, LARGE if options.architectures else None)
        for ways, count in runs:
            _environment(options, cores // count)
            # the barrier makes the processes begin each way together
            barrier, results = context.Barrier(count), context.Queue()
            children = [
                context.Process(
                    target=child, args=(options, ways, files[rank::count], Path(name) / ways[0], barrier, results)
                )
                for rank in range(count)
            ]
            for process in children:
                process.start()
            answers += [_next(results, children) for _ in children]
            for process in children:
                process.join()
    return answers


def _environment(options: Options, threads: int) -> None:
    """The environment of the child processes."""
    os.environ["OMP_NUM_THREADS"] = str(max(1, threads))
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error"}
    if options.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def _next(results: Any, children: list[Any]) -> Measurement:
    while True:
        try:
            answer: Measurement = results.get(timeout=1.0)
        except queue.Empty:
            # a child that died will never send its result
            if any(process.exitcode not in (None, 0) for process in children):
                for process in children:
                    process.terminate()
                raise SystemExit("a process of the measurement died; its last words are above") from None
        else:
            return answer


def child(options: Options, ways: tuple[str, ...], files: list[Path], folder: Path, barrier: Any, results: Any) -> None:
    """Run in one process: load the models, warm up, and run each way, synchronised with the other processes."""
    from bench.models.measuring import Measuring

    results.put(Measuring(options, files, folder / str(os.getpid()), barrier).run(ways))


def figures(options: Options, answers: list[Measurement]) -> dict[str, float]:
    """The images/s of the three ways, their ratios, and the extrapolations."""
    original = next(answer for answer in answers if answer.original is not None)
    ours = [answer for answer in answers if answer.ours is not None]
    images = sum(answer.images for answer in ours)
    # the slowest process determines the rate of (b); bounds of (c) are added up
    rates = {
        "a": options.original_images / (original.original or 0.0),
        "b": images / max(answer.ours or 0.0 for answer in ours),
        "c": sum(answer.images / _least(answer) for answer in ours),
    }
    found = {
        "images": float(images),
        **{f"{name}, items": float(sum(answer.items[name] for answer in ours)) for name in ours[0].items},
        "a: the original's way, images/s": rates["a"],
        "b: ours, images/s": rates["b"],
        "c: bare forward passes, images/s": rates["c"],
        "b/a": rates["b"] / rates["a"],
        "b/c": rates["b"] / rates["c"],
    }
    found |= {f"a, seconds in {name}": seconds for name, seconds in original.passes.items()}
    found |= {f"b, seconds in {name}": sum(a.stages[name] for a in ours) / len(ours) for name in ours[0].stages}
    for name, (_, size) in ours[0].bare.items():
        found[f"c, seconds in {name}"] = sum(answer.bare[name][0] for answer in ours) / len(ours)
        found[f"c, batch size of {name}"] = float(size)
    found |= ours[0].busy
    if options.architectures:
        found |= {f"days for {name}": count / rates["b"] / 86_400 for name, count in DATA_SETS.items()}
    return found


def _least(answer: Measurement) -> float:
    """The lower bound in seconds for running the same models."""
    # on a GPU, OCR runs on the CPU at the same time
    seconds = {name: seconds for name, (seconds, _) in answer.bare.items()}
    ocr = seconds.pop("ocr") if answer.on_gpu else 0.0
    return max(sum(seconds.values()), ocr)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--original-images", type=int, help="of (a), which takes the longest; all if not given")
    parser.add_argument(
        "--architectures", choices=["paper", "small", "modern"], help="full-size models with random weights"
    )
    parser.add_argument("--scale", choices=["full", "tiny"], default="full", help="of the architectures")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--micro-batch", type=int, help="images computed together; the profile's if not given")
    parser.add_argument("--processes", type=int, help="of ours; one a core on a CPU, one on a GPU if not given")
    parser.add_argument("--rounds", type=int, default=1, help="of all three ways, one after another")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.rounds < 1:
        parser.error("--rounds must be at least 1")
    on_gpu = given.device == "cuda"
    # defaults that depend on other options
    options = Options(
        profile=given.architectures or given.profile,
        images=given.images,
        original_images=min(given.original_images or given.images, given.images),
        architectures=given.architectures is not None,
        scale=given.scale,
        device=given.device,
        micro_batch=given.micro_batch,
        processes=given.processes or (1 if on_gpu else os.cpu_count() or 1),
    )
    # medians over the rounds
    rounds = [figures(options, measure(options)) for _ in range(given.rounds)]
    if given.json:
        print(json.dumps({"options": asdict(options), "rounds": rounds}, indent=1))
        return
    for name in rounds[0]:
        values = [found[name] for found in rounds]
        spread = f" | {min(values):.3f} to {max(values):.3f}" if len(values) > 1 else ""
        print(f"| {name} | {statistics.median(values):.3f}{spread} |")
