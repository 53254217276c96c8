"""Detector: single-shot detectors of TensorFlow's model zoo, by OpenCV's dnn module. It needs no torch and no GPU.

The model is a frozen graph (`*.pb`) with its description for OpenCV (`*.pbtxt`, as OpenCV's `tf_text_graph_ssd.py`
writes it), trained on COCO's 80 kinds. Such graphs see every image at 300×300 pixels, whatever its shape, as in
training (`fixed_shape_resizer` of the zoo's pipeline.config), and scale its values themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import cv2
import numpy as np
from PIL import Image

from models.base import DetectorStage, WeightsMissing, cpu_threads
from models.boxes import clipped
from models.items import Detection
from models.kinds.coco import KINDS_BY_ID
from models.weights.cache import FETCH, locate
from strata.core import SsdDetectorParameters, StageSettings

SIDE = 300  # pixels; the graph's anchors belong to it
# the rows of the graph's output: image, category, score, and the box as fractions of the image
CATEGORY, SCORE, BOX = 1, 2, slice(3, 7)
Pixels = np.typing.NDArray[np.uint8]


class SsdDetector(DetectorStage):
    """The phrase of a detection is the kind's noun with its article: "a dining table". The best score comes first."""

    name: ClassVar[str] = "detector"

    def __init__(self, settings: StageSettings) -> None:
        super().__init__(settings)
        self.parameters = SsdDetectorParameters.model_validate(settings.parameters)
        self._net: Any = None

    def load(self) -> None:
        """Raises WeightsMissing, and ValueError for a graph that OpenCV cannot read."""
        folder = locate(self.settings)
        found = [sorted(folder.glob(pattern)) for pattern in ("*.pb", "*.pbtxt")]
        if [len(paths) for paths in found] != [1, 1]:
            raise WeightsMissing(f"{folder} needs one .pb and one .pbtxt file; get them with {FETCH}")
        graph, description = (str(paths[0]) for paths in found)
        try:
            self._net = cv2.dnn.readNetFromTensorflow(graph, description)
            cv2.setNumThreads(cpu_threads())  # of the process: OpenCV would take every core
        except cv2.error as error:
            raise ValueError(f"OpenCV cannot read {graph}: {' '.join(str(error).split())[:200]}") from error

    def prepare(self, batch: Sequence[Image.Image]) -> list[tuple[tuple[int, int], Pixels]]:
        """Each image's size, and its pixels at 300×300: RGB (300, 300, 3)."""
        # Pillow averages over the pixels that it leaves out, unlike OpenCV: 24 megapixels keep their small things
        resized = (image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR) for image in batch)
        return [(image.size, np.asarray(small)) for image, small in zip(batch, resized, strict=True)]

    def compute(self, batch: Sequence[tuple[tuple[int, int], Pixels]]) -> list[list[Detection]]:
        """Detections of each image. The images run one by one: a batch of them is not faster on a CPU."""
        found = []
        for size, pixels in batch:
            self._net.setInput(cv2.dnn.blobFromImage(pixels))
            rows = self._net.forward()[0, 0]
            found.append(self._detections(rows[rows[:, SCORE] >= self.parameters.threshold], size))
            self.progress()
        return found

    def _detections(self, rows: np.typing.NDArray[np.float32], size: tuple[int, int]) -> list[Detection]:
        """The rows of the graph's output as detections in pixels, without duplicates of one kind."""
        boxes = rows[:, BOX].astype(np.float64) * (*size, *size)
        # OpenCV wants width and height
        extents = np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])
        kept = cv2.dnn.NMSBoxesBatched(
            extents.tolist(),
            rows[:, SCORE].tolist(),
            rows[:, CATEGORY].astype(int).tolist(),
            0.0,
            self.parameters.nms_iou,
        )
        found = []
        for i in sorted(map(int, kept), key=lambda i: -rows[i, SCORE]):
            kind, box = KINDS_BY_ID.get(int(rows[i, CATEGORY])), clipped(tuple(boxes[i].tolist()), size)
            # COCO's ids have gaps: a category without a kind is never trained
            if kind is not None and box is not None:
                found.append(Detection(box, kind.phrase, min(float(rows[i, SCORE]), 1.0)))
        return found
