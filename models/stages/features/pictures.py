"""Features of the pixels alone, without weights: hashes, and how sharp an image is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import cv2
import numpy as np
from PIL import Image

from models.base import Stage
from models.stages.features.columns import Columns
from strata.core import Parameters, SharpnessParameters, StageSettings
from strata.images import picture_hash


class PictureHash(Stage[Image.Image, Columns]):
    """The hash of the pixels, PDQ hashes of the picture and its mirror image, a thumbnail (`strata.images.hashes`)."""

    name: ClassVar[str] = "hash"

    def __init__(self, settings: StageSettings) -> None:
        super().__init__(settings)
        Parameters.model_validate(settings.parameters)  # it has no parameters: refuses any

    def load(self) -> None:
        """Raises ImportError without pdqhash."""
        import pdqhash  # noqa: F401

    def compute(self, batch: Sequence[Image.Image]) -> list[Columns]:
        """The hashes of each image."""
        return [picture_hash(image)._asdict() for image in batch]


class Sharpness(Stage[Image.Image, Columns]):
    """The variance of the Laplacian of the grey image, 0 for a picture of one colour.

    J. L. Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", 2000. It grows with the size of an
    image, so larger ones are made smaller first. What is blurred depends on the pictures: there is no threshold.
    """

    name: ClassVar[str] = "sharpness"

    def __init__(self, settings: StageSettings) -> None:
        super().__init__(settings)
        self.parameters = SharpnessParameters.model_validate(settings.parameters)

    def load(self) -> None:
        """It has no weights."""

    def compute(self, batch: Sequence[Image.Image]) -> list[Columns]:
        """The sharpness of each image."""
        return [{"sharpness": self._of(image)} for image in batch]

    def _of(self, image: Image.Image) -> float:
        side = self.parameters.side
        grey = image.convert("L")
        grey.thumbnail((side, side), Image.Resampling.BOX, reducing_gap=None)
        return float(cv2.Laplacian(np.asarray(grey), cv2.CV_64F).var())
