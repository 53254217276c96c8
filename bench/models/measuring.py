"""One process of `bench.models`: its models, and the ways to run them."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from bench.models.architectures import SCALES, write_architectures
from bench.models.bare import Bare, bare, finish
from bench.models.measurement import WARM_UP, WARM_UP_OURS, Measurement, Options
from bench.models.original import Original, Stages
from bench.models.random_models import random_profile, random_weights
from bench.models.vision_language import write_vision_language
from models.items import CaptionRequest
from models.pipeline import VisionPipeline
from strata.core import ImageReference, Profile, Record, Settings, Status, load_profile
from strata.garbage import collector_spared
from strata.images import decode
from workers.ahead import DECODE_THREADS, MIN_DECODE_BATCH

Decoded = tuple[Record, Any]


def profile_of(name: str, scale: str, folder: Path) -> Profile:
    """A profile whose vision models have random weights, full-size or tiny; their configurations go to the folder."""
    profile = load_profile(name, Settings().profiles_dir)
    if name == "paper":
        folders = write_architectures(SCALES[scale], folder)
    else:
        folders = write_vision_language(name, scale, folder)
    tiny = SCALES[scale].points_per_side if scale == "tiny" else None
    return random_profile(profile, folders, tiny)


class Measuring:
    """Runs the ways on one process's share of the files. folder: for their output."""

    def __init__(self, options: Options, files: Sequence[Path], folder: Path, barrier: Any) -> None:
        self.options, self.files, self.folder, self.barrier = options, files, folder, barrier
        self.max_pixels = Settings().max_pixels
        self.items: dict[str, list[Any]] = defaultdict(list)  # the inputs of each stage in our way
        folder.mkdir(parents=True)

    def run(self, ways: Sequence[str]) -> Measurement:
        """Raises SystemExit if a GPU is wanted but not available."""
        if self.options.device == "cuda" and not torch.cuda.is_available():
            raise SystemExit("no GPU here; --device cpu measures on the CPU")
        started = time.perf_counter()
        # the guards must let random texts pass while the ways run too
        with random_weights() if self.options.architectures else nullcontext():
            self._load()
            self.answer = Measurement(len(self.files), on_gpu=self.options.device == "cuda")
            # the garbage collector is set as in a worker
            with collector_spared():
                for step in ("loaded", *ways):
                    if step != "loaded":
                        getattr(self, step)()
                    print(f"{time.perf_counter() - started:6.1f} s: {step}", file=sys.stderr, flush=True)
        return self.answer

    def _load(self) -> None:
        if self.options.architectures:
            profile = profile_of(self.options.profile, self.options.scale, self.folder / "architectures")
        else:
            profile = load_profile(self.options.profile, Settings().profiles_dir)
        self.pipeline = VisionPipeline(profile)
        self.pipeline.load()
        self.profile: Profile = profile
        self.micro_batch = self.options.micro_batch or profile.micro_batch

    @contextmanager
    def _begun_together(self) -> Iterator[None]:
        finish()
        self.barrier.wait()
        yield
        finish()

    # (a)

    def original(self) -> None:
        """Run the original's way, after a few images to warm up."""
        # the second pass overwrites the figures of the warm-up
        for files in (self.files[:WARM_UP], self.files[: self.options.original_images]):
            way = Original(self.pipeline.stages, self.profile.evidence, files, self.folder, self.max_pixels)
            started = time.perf_counter()
            way.run()
            finish()
            self.answer.original, self.answer.passes = time.perf_counter() - started, way.seconds

    # (b)

    def ours(self) -> None:
        """Run our way, after some images to warm up."""
        self._ours(self.files[: min(self.micro_batch, WARM_UP_OURS)])
        with self._begun_together(), Busy(self.answer) if self.answer.on_gpu else nullcontext():
            started = time.perf_counter()
            with noted(self.pipeline.stages, self.items):
                records = self._ours(self.files)
            finish()
            self.answer.ours = time.perf_counter() - started
        # sum the seconds of each stage over all records
        stages: dict[str, float] = defaultdict(float)
        for record in records:
            for stage, seconds in record.seconds.items():
                stages[stage] += seconds
        self.answer.stages = dict(stages)

    def _ours(self, files: Sequence[Path]) -> list[Record]:
        """The records of the files. Raises RuntimeError if one failed, since less was computed then."""
        batches = [files[start : start + self.micro_batch] for start in range(0, len(files), self.micro_batch)]
        records: list[Record] = []
        with (
            ThreadPoolExecutor(DECODE_THREADS) as pool,
            (self.folder / "ours.jsonl").open("w", encoding="utf-8") as sink,
        ):
            coming: list[Any] = []
            for following in [*batches, []]:
                # decode the next micro-batch while the models compute this one
                ready, coming = coming, [pool.submit(self._decode, some) for some in _handfuls(following)]
                if ready:
                    done = self.pipeline.run([item for future in ready for item in future.result()])
                    sink.writelines(record.model_dump_json() + "\n" for record in done)
                    records += done
        failures = [record.failure for record in records if record.status is not Status.SUCCEEDED]
        if failures:
            raise RuntimeError(f"{len(failures)} of {len(records)} images failed, first {failures[0]}")
        return records

    def _decode(self, files: Sequence[Path]) -> list[Decoded]:
        decoded = []
        for file in files:
            data = file.read_bytes()
            image = decode(data, self.max_pixels)
            reference = ImageReference(uri=str(file), size=len(data))
            decoded.append((Record(key=file.stem, image=reference, width=image.width, height=image.height), image))
        return decoded

    # (c)

    def bare(self) -> None:
        """Run the bare forward passes on the items of our way."""
        with self._begun_together():
            alone: dict[str, Bare] = {}
            for name, some in sorted(self.items.items()):
                stage = self.pipeline.stages[name.partition(" ")[0]]
                alone[name] = bare(stage, some)
        self.answer.bare = {name: (found.seconds, found.batch_size) for name, found in alone.items()}
        self.answer.items = {name: found.items for name, found in alone.items()}


@contextmanager
def noted(stages: Stages, items: dict[str, list[Any]]) -> Iterator[None]:
    """Record the inputs of each stage while the block runs; for the captioner, whole images and crops separately."""

    # replaces a stage's `run` by one that also records its inputs
    def noting(name: str, run: Callable[[Sequence[Any]], list[Any]]) -> Callable[[Sequence[Any]], list[Any]]:
        def ask(asked: Sequence[Any]) -> list[Any]:
            for item in asked:
                items[f"{name} of {item.kind}s" if isinstance(item, CaptionRequest) else name].append(item)
            return run(asked)

        return ask

    for name, stage in stages.items():
        setattr(stage, "run", noting(name, stage.run))  # noqa: B010
    try:
        yield
    finally:
        for stage in stages.values():
            del stage.run  # restores the class's own method


class Busy:
    """Measure the utilisation of the GPU while the block runs, from nvidia-smi's output every second.

    Its performance monitor's "graphics engine active", which Hopper and later have; else the share of its samples
    in which a kernel ran.
    """

    def __init__(self, answer: Measurement) -> None:
        self.answer = answer

    def __enter__(self) -> None:
        self._process = subprocess.Popen(MONITOR, stdout=subprocess.PIPE, encoding="utf-8")

    def __exit__(self, *unused: object) -> None:
        self._process.terminate()
        told = busy(self._process.communicate()[0].splitlines())
        self.answer.busy = told | {"GPU memory at most, GiB": torch.cuda.max_memory_allocated() / 2**30}


MONITOR = ["nvidia-smi", "dmon", "--gpm-metrics=1", "-o", "T"]


def busy(lines: Sequence[str]) -> dict[str, float]:
    """The mean in percent from the output of MONITOR: a line of names, one of units, and one per second."""
    names = next((line.replace("#", " ").split() for line in lines if line.startswith("#")), [])
    rows = [dict(zip(names, line.split(), strict=False)) for line in lines if line and not line.startswith("#")]
    # the first column that has values
    for name in ("gract", "sm"):
        values = [float(row[name]) for row in rows if row.get(name, "-") != "-"]
        values = [value for value in values if value <= 100]  # nvidia-smi's first value can be above a billion
        if values:
            return {f"GPU busy, percent, nvidia-smi's {name}": sum(values) / len(values)}
    return {}


def _handfuls(files: Sequence[Path]) -> list[Sequence[Path]]:
    return [files[start : start + MIN_DECODE_BATCH] for start in range(0, len(files), MIN_DECODE_BATCH)]
