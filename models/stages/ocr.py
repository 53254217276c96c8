"""OCR: lines of text with their boxes, by PP-OCR through rapidocr and onnxruntime.

The small PP-OCRv6 models are part of rapidocr's wheel, so nothing is downloaded. The angle classifier, which rotates
lines that are upside down, costs a third model call and runs only if a profile names it.

What one image may cost is bounded (`models.stages.text_lines`); a page of text may lose lines, the smallest first.
"""

from __future__ import annotations

import base64
import functools
import importlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.metadata import files, version
from pathlib import Path
from queue import SimpleQueue
from typing import Any, ClassVar

import cv2
import numpy as np
import rapidocr
from PIL import Image, ImageDraw, ImageFont

from models.base import OcrStage, WeightsMissing, cpu_threads
from models.items import ReadLine
from models.stages.text_lines import LINE_HEIGHT, MOST_AT_ONCE, Largest, recognized
from models.weights.cache import locate
from models.weights.hashes import sha256_of
from strata.core import Box, OcrParameters, StageSettings

MOST_ENLARGED = 4.0  # factor; more would cost time and add no detail


class RapidOcr(OcrStage):
    """PP-OCR's detector and recognizer. Each CPU thread reads one image; the recognizer takes its lines in batches.

    Measured on 2 cores: two engines with one thread each read 1.5 times as fast as one engine with two threads.
    """

    name: ClassVar[str] = "ocr"

    def __init__(self, settings: StageSettings) -> None:
        super().__init__(settings)
        self.parameters = OcrParameters.model_validate(settings.parameters)

    def load(self) -> None:
        """Raises WeightsMissing."""
        # check the files here, so that the error names the remedy
        folder, chosen = self._folder(), self.parameters
        for name in filter(None, (chosen.detector, chosen.recognizer, chosen.angle_classifier)):
            if not (folder / name).is_file():
                raise WeightsMissing(f"the OCR's model {folder / name} is missing; install rapidocr again")
            if self.settings.model.startswith("builtin:") and not _is_as_installed(folder / name):
                raise WeightsMissing(f"the OCR's model {folder / name} is damaged; install rapidocr again")
        engines, threads = self._threads()
        self._pool = ThreadPoolExecutor(engines, thread_name_prefix=self.name)
        # an engine is not thread-safe, since it keeps state of the current image: there is one per thread
        self._engines = list(self._pool.map(self._engine, [self._engine_parameters(folder, threads)] * engines))
        self._free: SimpleQueue[Any] = SimpleQueue()
        for engine in self._engines:
            self._free.put(engine)

    def _engine(self, parameters: dict[str, Any]) -> Any:
        engine: Any = rapidocr.RapidOCR(params=parameters)
        # an engine opens its models at the first use: do it now, so that an error is raised by `load`
        _lines(engine, self.parameters, _warm_up_image())
        # one number for all channels: the lists of its configuration would convert all pixels to float64
        (mean,), (deviation,) = set(engine.text_det.mean), set(engine.text_det.std)
        engine.text_det.mean, engine.text_det.std = np.float32(mean), np.float32(deviation)
        # bound what one image may cost
        engine.text_det.postprocess_op = Largest(engine.text_det.postprocess_op, self.parameters.line_width)
        engine.recognize_txt = functools.partial(recognized, engine.text_rec, lambda: self.progress())
        return engine

    def _threads(self) -> tuple[int, int]:
        """The number of engines, and of threads per engine."""
        return cpu_threads(), 1

    def _folder(self) -> Path:
        """The folder with the models: in the installed wheel, whose version is the revision, or the settings' own."""
        if not self.settings.model.startswith("builtin:"):
            return locate(self.settings)
        installed, pinned = version("rapidocr"), self.settings.revision
        if pinned not in ("", installed):
            raise WeightsMissing(f"rapidocr {installed} is installed, the profile says {pinned}")
        return Path(rapidocr.__file__).parent / "models"

    def _engine_parameters(self, folder: Path, threads: int) -> dict[str, Any]:
        chosen = self.parameters
        return {
            "Global.log_level": "critical",
            "Global.use_cls": bool(chosen.angle_classifier),
            "Cls.model_path": str(folder / chosen.angle_classifier),
            "Global.use_preprocess_img": False,
            "Global.text_score": 0.0,  # the evidence filter drops lines with low scores, and records the reason
            "Det.model_path": str(folder / chosen.detector),
            "Det.limit_type": "max",
            "Det.limit_side_len": 2 * chosen.long_side,  # never reached: see `working_size`
            "Det.box_thresh": chosen.box_score,
            "Rec.model_path": str(folder / chosen.recognizer),
            "Rec.rec_batch_num": MOST_AT_ONCE,
            "Rec.rec_img_shape": [3, LINE_HEIGHT, chosen.line_width],
            "EngineConfig.onnxruntime.intra_op_num_threads": threads,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        }

    def compute(self, batch: Sequence[Image.Image]) -> list[list[ReadLine]]:
        """The lines of each image, from top to bottom."""
        return list(self._pool.map(self._read, batch))

    def _read(self, image: Image.Image) -> list[ReadLine]:
        # there are as many engines as threads, so one is always free
        engine = self._free.get()
        try:
            return _lines(engine, self.parameters, image)
        finally:
            self._free.put(engine)


def _lines(engine: Any, chosen: OcrParameters, image: Image.Image) -> list[ReadLine]:
    """Read one image with an engine."""
    # flush denormal numbers (below 1e-38) to zero in this thread; onnxruntime's first session turns that off. Two of
    # PP-OCRv6's convolutions meet such numbers, which take an Intel core 56 of 78 ms; zeros change results by 1e-7.
    # Without torch, which a profile of servers does not need, reading takes longer.
    with suppress(ImportError):
        importlib.import_module("torch").set_flush_denormal(True)
    # resize to the working size, as BGR
    size = working_size(image.size, chosen.short_side, chosen.long_side)
    bgr = cv2.cvtColor(np.asarray(image.convert("RGB")), cv2.COLOR_RGB2BGR)  # the channel order of rapidocr
    interpolation = cv2.INTER_CUBIC if max(size) > max(image.size) else cv2.INTER_AREA
    answer = engine(cv2.resize(bgr, size, interpolation=interpolation))
    if answer.boxes is None or answer.txts is None:
        return []
    # scale the boxes back to pixels of the original image
    scale = np.array([image.width / size[0], image.height / size[1]])
    return [
        ReadLine(text.strip(), min(1.0, float(score)), enclosing_box(polygon * scale, image.size))
        for polygon, text, score in zip(answer.boxes, answer.txts, answer.scores, strict=True)
        if text.strip()
    ]


def working_size(size: tuple[int, int], short_side: int, long_side: int) -> tuple[int, int]:
    """The width and height, in pixels, to which an image of `size` is resized for reading, with its aspect ratio.

    rapidocr's own limit regards only the short side: it would enlarge a strip of 3×400 pixels to 320×42,667.
    """
    scale = min(max(1.0, short_side / min(size)), MOST_ENLARGED, long_side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def enclosing_box(polygon: np.typing.NDArray[np.floating[Any]], size: tuple[int, int]) -> Box:
    """The axis-aligned box around a polygon of (x, y) points, clipped to an image of size (width, height) in pixels."""
    left, top = np.clip(polygon.min(axis=0), 0, size).tolist()
    right, bottom = np.clip(polygon.max(axis=0), 0, size).tolist()
    return float(left), float(top), float(right), float(bottom)


def _is_as_installed(path: Path) -> bool:
    """Whether a file of the installed wheel has the hash that the wheel's record says, if it says one."""
    for file in files("rapidocr") or ():
        if file.hash is not None and file.name == path.name and Path(str(file.locate())) == path:
            digest = bytes.fromhex(sha256_of(path))
            return (
                file.hash.mode != "sha256" or base64.urlsafe_b64encode(digest).decode().rstrip("=") == file.hash.value
            )
    return True


def _warm_up_image() -> Image.Image:
    """An image with two words, so that detector and recognizer both run, each at a usual input size."""
    image = Image.new("RGB", (320, 320), "white")
    ImageDraw.Draw(image).text((40, 120), "WARM UP", "black", font=ImageFont.load_default(size=48))
    return image
