"""From samples to a batch: images that fit the longest conversation, and errors that name their sample."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image
from transformers import ProcessorMixin
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from strata.data import Sample, SampleError, SampleReader
from training.config import Config, ConfigError

Batch = dict[str, Any]

TEXT_SHARE = 1 / 8  # of `longest`, which images leave to the texts by default
_SHRINKS = 4  # attempts to make images small enough: numbers of tokens are rounded


@dataclasses.dataclass(frozen=True)
class Fit:
    """How a sample fits `longest`: why it is left out ("" if it is not), or what of it is lost."""

    refused: str = ""
    cut: bool = False
    smaller: bool = False


class Collator:
    """Collates samples with TRL's collator.

    It adds "task_numbers" (N,): each sample's index in `tasks`; and "skipped": for each sample that stands for others
    the list of these. longest: the tokens after which a conversation is cut; images are made smaller first, so that
    none of their tokens is cut off. A sample that the processor refuses is replaced by the reader, or raises
    SampleError, which names it.
    """

    def __init__(
        self,
        inner: DataCollatorForVisionLanguageModeling,
        tasks: Sequence[str],
        example_of: Callable[[Sample], dict[str, Any]],
        reader: SampleReader,
        longest: int | None = None,
        max_pixels: int | None = None,
    ) -> None:
        # TRL would cut texts in the midst of an image's tokens
        self.inner = dataclasses.replace(inner, max_length=None)
        self.tasks, self.example_of, self.reader = list(tasks), example_of, reader
        self.longest, self.max_pixels = longest, max_pixels

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        """Collate samples. Raises SampleError, TooManySkipped and SourceAway."""
        chosen = [self._limited(sample) for sample in samples]
        try:
            batch = self._cut(self._collated(chosen))
        except Exception:  # a processor may raise anything for a sample: look for the one that it refuses
            chosen = [self._usable(sample) for sample in chosen]
            batch = self._cut(self._collated(chosen))
        batch["task_numbers"] = torch.tensor([self.tasks.index(sample.task) for sample in chosen])
        batch["skipped"] = [list(sample.skipped) for sample in chosen if sample.skipped]
        return batch

    def _collated(self, samples: Sequence[Sample]) -> Batch:
        batch: Batch = self.inner([self.example_of(sample) for sample in samples])
        return batch

    def _limited(self, sample: Sample) -> Sample:
        if self.max_pixels is None:
            return sample
        return dataclasses.replace(sample, images=[shrunk(image, self.max_pixels) for image in sample.images])

    def _cut(self, batch: Batch) -> Batch:
        """Cut conversations after `longest` tokens. Raises ValueError if tokens of images would be cut off."""
        ids = batch["input_ids"]
        if self.longest is None or ids.shape[1] <= self.longest:
            return batch
        if bool(self._of_images(ids[:, self.longest :]).any()):
            raise ValueError(f"the tokens of its images reach beyond the longest conversation, {self.longest} tokens")
        same = {name: value for name, value in batch.items() if getattr(value, "shape", None) == ids.shape}
        return {**batch, **{name: value[:, : self.longest] for name, value in same.items()}}

    def _of_images(self, ids: torch.Tensor) -> torch.Tensor:
        return ids == getattr(self.inner.processor, "image_token_id", -1)

    def _usable(self, sample: Sample) -> Sample:
        """The sample, with smaller images where needed, or another one if the processor refuses it."""
        while True:
            try:
                return self._alone(sample)[0]
            except SampleError as refused:
                sample = self._limited(self.reader.instead_of(sample, refused))

    def _alone(self, sample: Sample) -> tuple[Sample, Batch]:
        """The sample, with smaller images where needed, and it alone before it is cut. Raises SampleError."""
        try:
            fitted = self._fitted(sample)
            batch = self._collated([fitted])
            self._cut(batch)
        except Exception as error:  # a processor may raise anything
            line = " ".join(str(error).split())[:300] or type(error).__name__
            raise SampleError(f"{sample.name}: {line}", sample.key) from None
        return fitted, batch

    def fit(self, sample: Sample) -> Fit:
        """How a sample fits `longest`."""
        limited = self._limited(sample)
        try:
            fitted, batch = self._alone(limited)
        except SampleError as error:
            return Fit(refused=str(error))
        cut = self.longest is not None and batch["input_ids"].shape[1] > self.longest
        return Fit(cut=cut, smaller=fitted is not limited)

    def _fitted(self, sample: Sample) -> Sample:
        """The sample with images that are small enough for its texts, or for half of `longest` if these are long."""
        if self.longest is None or not sample.images:
            return sample
        for _ in range(_SHRINKS):
            ids = self._collated([sample])["input_ids"]
            images = int(self._of_images(ids).sum())
            room = max(self.longest - (ids.shape[1] - images), self.longest // 2)
            if images <= room:
                break
            # the number of tokens is about proportional to the area
            smaller = [shrunk(image, int(image.width * image.height * room / images * 0.98)) for image in sample.images]
            sample = dataclasses.replace(sample, images=smaller)
        return sample


def shrunk(image: Image.Image, pixels: int) -> Image.Image:
    """The image with at most this many pixels, in the same proportions."""
    if image.width * image.height <= pixels:
        return image
    scale = math.sqrt(pixels / (image.width * image.height))
    return image.resize((max(1, int(image.width * scale)), max(1, int(image.height * scale))), Image.Resampling.BICUBIC)


def limit_images(processor: ProcessorMixin, config: Config) -> int | None:
    """Set the least and largest number of pixels of images in a processor, as its family does.

    The Qwen-VL families resize each image to an area between two bounds, of which `longest` gives the upper one by
    default. Returns the largest number for other processors, whose images must be made smaller before. Raises
    ConfigError if an image is larger than `longest` nevertheless.
    """
    images: Any = processor.image_processor
    kinds = getattr(getattr(images, "valid_kwargs", None), "__annotations__", {})
    if "max_pixels" not in kinds:
        if config.min_pixels is not None:
            raise ConfigError("min_pixels: the processor of this model resizes images by itself")
        return config.max_pixels
    side = images.patch_size * images.merge_size
    largest = config.max_pixels
    if largest is None and config.longest is not None:
        largest = min(images.size["longest_edge"], int(config.longest * (1 - TEXT_SHARE)) * side**2)
    bounds = {"longest_edge": largest, "shortest_edge": config.min_pixels}
    images.size = {**dict(images.size), **{name: value for name, value in bounds.items() if value is not None}}
    # a default lower bound above the upper one
    images.size["shortest_edge"] = min(images.size["shortest_edge"], images.size["longest_edge"])
    return None
