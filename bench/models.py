"""`python -m bench.models`: the vision models three ways, with one set of weights, in one run.

(a) the original's way, see `bench/original.py`: a pass over all images for each script, files opened again, one matcher
    call a crop, one image's crops a captioner call; one process with all cores, as its scripts are run.
(b) ours: `VisionPipeline` on micro-batches, the next one decoded in threads, as the runner does it; a line of JSON for
    each image after its micro-batch. On a CPU a process of one thread for each core, as workers are started there; on a
    GPU one process.
(c) the bare forward passes of the same models, see `bench/bare.py`, in as many processes as (b). Where models run on a
    GPU and OCR on the CPU, the slower of the two is what no pipeline can beat.

Images/s of each, b/a, b/c, and the share of the time that the GPU is busy; of several `--rounds` the medians, with the
least and the most, for a shared machine's speed changes from minute to minute. By default the demo's weights on the
bundled shard. `--architectures paper` takes the full-size models of the `paper` profile with random weights, on images
enlarged to LARGE pixels, and says what the rate comes to for the data sets of the paper:

    python -m bench.models --architectures paper --device cuda --images 128 --original-images 8
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import queue
import statistics
import tarfile
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

SHARD = Path(__file__).resolve().parent.parent / "samples" / "shards" / "00000.tar"
LARGE = 640  # pixels of the longer side, as CC3M's images have
DATA_SETS = {"427k images": 427_000, "3.3 million images": 3_300_000}
WARM_UP, WARM_UP_OURS = 2, 16  # images


@dataclass(frozen=True)
class Options:
    """What to measure, as the command line says."""

    profile: str
    images: int
    original_images: int
    architectures: bool
    scale: str
    device: str
    micro_batch: int | None
    processes: int


@dataclass
class Answer:
    """What one process measured: seconds from the common start to its end, of each way that it ran."""

    images: int
    items: dict[str, int] = field(default_factory=dict)
    original: float | None = None
    passes: dict[str, float] = field(default_factory=dict)
    ours: float | None = None
    stages: dict[str, float] = field(default_factory=dict)
    bare: dict[str, tuple[float, int]] = field(default_factory=dict)  # seconds, batch size
    busy: dict[str, float] = field(default_factory=dict)
    on_gpu: bool = False


def write_images(folder: Path, count: int, side: int | None) -> list[Path]:
    """The bundled shard's images as files, from the first again when there are no more; side: of enlarged ones."""
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


def measure(options: Options) -> list[Answer]:
    """The answers of all processes."""
    context = multiprocessing.get_context("spawn")
    cores = os.cpu_count() or 1
    # the original runs as one process with all cores; where ours does too, they share it and its models
    together = options.processes == 1
    runs = (
        [(("original", "ours", "bare"), 1)] if together else [(("original",), 1), (("ours", "bare"), options.processes)]
    )
    answers: list[Answer] = []
    with tempfile.TemporaryDirectory() as name:
        files = write_images(Path(name), options.images, LARGE if options.architectures else None)
        for ways, count in runs:
            _environment(options, cores // count)
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
    """What children inherit."""
    os.environ["OMP_NUM_THREADS"] = str(max(1, threads))
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error"}
    if options.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def _next(results: Any, children: list[Any]) -> Answer:
    while True:
        try:
            answer: Answer = results.get(timeout=1.0)
        except queue.Empty:
            if any(process.exitcode not in (None, 0) for process in children):
                for process in children:
                    process.terminate()
                raise SystemExit("a process of the measurement died; its last words are above") from None
        else:
            return answer


def child(options: Options, ways: tuple[str, ...], files: list[Path], folder: Path, barrier: Any, results: Any) -> None:
    """One process: load the models, warm up, and run the ways in turn, each begun together with the other processes."""
    from bench.measuring import Measuring

    results.put(Measuring(options, files, folder / str(os.getpid()), barrier).run(ways))


def figures(options: Options, answers: list[Answer]) -> dict[str, float]:
    """Images/s of the three ways, their ratios, and what they come to."""
    original = next(answer for answer in answers if answer.original is not None)
    ours = [answer for answer in answers if answer.ours is not None]
    images = sum(answer.images for answer in ours)
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


def _least(answer: Answer) -> float:
    """Seconds that no way of running the same models can beat."""
    seconds = {name: seconds for name, (seconds, _) in answer.bare.items()}
    ocr = seconds.pop("ocr") if answer.on_gpu else 0.0
    return max(sum(seconds.values()), ocr)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--original-images", type=int, help="of (a), which takes the longest; all if not given")
    parser.add_argument("--architectures", choices=["paper"], help="full-size models with random weights")
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
    rounds = [figures(options, measure(options)) for _ in range(given.rounds)]
    if given.json:
        print(json.dumps({"options": asdict(options), "rounds": rounds}, indent=1))
        return
    for name in rounds[0]:
        values = [found[name] for found in rounds]
        spread = f" | {min(values):.3f} to {max(values):.3f}" if len(values) > 1 else ""
        print(f"| {name} | {statistics.median(values):.3f}{spread} |")


if __name__ == "__main__":
    main()
