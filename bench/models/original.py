"""Run our stages in the way of Monkey's `data_generation/` scripts (arXiv 2311.06607), which are run by hand.

Each script is a pass over all images of its own, opens the image files again, and writes one JSON after its last image:

1. captions of whole images, two images a call;
2. regions, one image a call;
3. masks, one image after another, as run-length codes in a JSON file an image;
4. for each image its 20 largest masks: the whole image painted white outside of each, cut to the box, all crops of the
   image in one captioner call;
5. for each region and each object: open the image file, cut, one matcher call;
6. text, one image a call;
7. what the others wrote, merged by the thresholds.

In some points this is faster than the original: models are loaded once and that is not counted, they have our
precision, attention and compiled parts (its SAM was in float32), the whole image's caption is not scored by the
matcher, and the text pass uses the angle classifier only if the profile does.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image
from pycocotools import mask as coco_mask
from transformers import pipeline

from bench.models.bare import networks_of
from models.base import Stage, cpu_threads
from models.boxes import iou
from models.items import CaptionRequest, Detection, Pair, Segment
from models.stages.ocr import RapidOcr
from models.stages.segmenter import SamSegmenter
from strata.core import Box, EvidenceSettings
from strata.images import decode

CAPTIONS_A_CALL = 2
POINTS_A_CALL = 64  # segment_anything's default, which M/amg.py does not change
Stages = dict[str, Stage[Any, Any]]
Notes = list[Any]  # the output of a pass, one entry per image


class Original:
    """The passes over image files, each with its seconds. folder: for their output."""

    def __init__(
        self, stages: Stages, evidence: EvidenceSettings, files: Sequence[Path], folder: Path, max_pixels: int
    ) -> None:
        self.stages, self.evidence, self.files = dict(stages), evidence, files
        if isinstance(stages["ocr"], RapidOcr):
            self.stages["ocr"] = _OneEngine(stages["ocr"].settings)
            self.stages["ocr"].load()
        self.folder, self.max_pixels = folder, max_pixels
        self.seconds: dict[str, float] = {}

    def run(self) -> None:
        """Run all passes, in the original's order."""
        captions = self._pass("captions", self._captions)
        regions = self._pass("regions", self._regions)
        self._pass("masks", self._masks)
        objects = self._pass("objects", self._objects)
        matches = self._pass("matches", lambda: self._matches(regions, objects))
        text = self._pass("text", self._text)
        self._pass("merged", lambda: self._merged(captions, regions, objects, matches, text))

    def _pass(self, name: str, act: Callable[[], Notes]) -> Notes:
        started = time.perf_counter()
        notes = act()
        (self.folder / f"{name}.json").write_text(json.dumps(notes), encoding="utf-8")
        self.seconds[name] = time.perf_counter() - started
        return notes

    def _open(self, file: Path) -> Image.Image:
        return decode(file.read_bytes(), self.max_pixels)

    def _ask(self, stage: str, items: Sequence[Any]) -> list[Any]:
        """Call a stage once."""
        asked = self.stages[stage]
        return asked.compute(asked.prepare(items))

    def _captions(self) -> Notes:
        notes: Notes = []
        for start in range(0, len(self.files), CAPTIONS_A_CALL):
            images = [self._open(file) for file in self.files[start : start + CAPTIONS_A_CALL]]
            notes += self._ask("captioner", [CaptionRequest(image) for image in images])
        return notes

    def _regions(self) -> Notes:
        return [[_region(found) for found in self._ask("detector", [self._open(file)])[0]] for file in self.files]

    def _masks(self) -> Notes:
        segmenter = self.stages["segmenter"]
        generate = _automatic_masks(segmenter) if isinstance(segmenter, SamSegmenter) else _segments(segmenter)
        for file in self.files:
            coded = [coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8)) for mask in generate(self._open(file))]
            masks = [{"size": mask["size"], "counts": mask["counts"].decode()} for mask in coded]
            self._masks_of(file).write_text(json.dumps(masks), encoding="utf-8")
        return []

    def _masks_of(self, file: Path) -> Path:
        return self.folder / f"{file.stem}.masks.json"

    def _objects(self) -> Notes:
        limit = self.stages["segmenter"].settings.parameters.get("max_masks", 20)
        notes: Notes = []
        for file in self.files:
            image = self._open(file)
            masks = [
                coco_mask.decode(mask).astype(bool)
                for mask in json.loads(self._masks_of(file).read_text(encoding="utf-8"))
            ]
            masks = sorted(masks, key=lambda mask: -int(mask.sum()))[:limit]
            boxes = [_box(mask) for mask in masks]
            crops = [_painted(image, mask).crop(box) for mask, box in zip(masks, boxes, strict=True)]
            phrases = self._ask("captioner", [CaptionRequest(crop, "crop") for crop in crops]) if crops else []
            notes.append([{"box": box, "phrase": phrase} for box, phrase in zip(boxes, phrases, strict=True)])
        return notes

    def _matches(self, regions: Notes, objects: Notes) -> Notes:
        return [
            [
                self._ask("matcher", [Pair(self._open(file).crop(_whole(entry["box"])), entry["phrase"])])[0]
                for entry in (*own_regions, *own_objects)
            ]
            for file, own_regions, own_objects in zip(self.files, regions, objects, strict=True)
        ]

    def _text(self) -> Notes:
        pages = [self._ask("ocr", [self._open(file)])[0] for file in self.files]
        return [[{"text": line.text, "score": line.score, "box": line.box} for line in lines] for lines in pages]

    def _merged(self, captions: Notes, regions: Notes, objects: Notes, matches: Notes, text: Notes) -> Notes:
        notes: Notes = []
        for i in range(len(self.files)):
            scores = iter(matches[i])
            kept = [entry for entry in regions[i] if next(scores) >= self.evidence.region]
            for entry in objects[i]:
                if next(scores) >= self.evidence.object and not self._said(entry, kept):
                    kept.append(entry)
            lines = [line for line in text[i] if line["score"] >= self.evidence.text]
            notes.append({"caption": captions[i], "things": kept, "text": lines})
        return notes

    def _said(self, entry: dict[str, Any], others: Sequence[dict[str, Any]]) -> bool:
        """Whether another entry has the same phrase for nearly the same box."""
        least = self.evidence.duplicate_iou
        return any(entry["phrase"] == other["phrase"] and iou(entry["box"], other["box"]) >= least for other in others)


class _OneEngine(RapidOcr):
    """Set up the OCR for one image at a time. Two threads, since eight seemed slower; see docs/decisions.md."""

    def _threads(self) -> tuple[int, int]:
        return 1, min(2, cpu_threads())

    def load(self) -> None:
        super().load()
        for network in networks_of(self):
            # models/stages/ocr.py sets this for the calling thread; onnxruntime's own threads need the option
            options = network.session.get_session_options()
            options.add_session_config_entry("session.set_denormal_as_zero", "1")
            network.session = onnxruntime.InferenceSession(network.session._model_path, options)


def _region(found: Detection) -> dict[str, Any]:
    return {"box": found.box, "phrase": found.phrase, "score": found.score}


def _whole(box: Box) -> tuple[int, int, int, int]:
    x1, y1 = int(box[0]), int(box[1])
    return x1, y1, max(x1 + 1, round(box[2])), max(y1 + 1, round(box[3]))


def _box(mask: np.ndarray[Any, Any]) -> tuple[int, int, int, int]:
    xs, ys = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1


def _painted(image: Image.Image, mask: np.ndarray[Any, Any]) -> Image.Image:
    return Image.fromarray(np.where(mask[..., None], np.asarray(image), np.uint8(255)))


def _segments(stage: Stage[Any, Any]) -> Callable[[Image.Image], list[Any]]:
    """Masks of a segmenter without SAM."""

    def masks(image: Image.Image) -> list[Any]:
        segments: list[Segment] = stage.compute(stage.prepare([image]))[0]
        return [segment.mask for segment in segments]

    return masks


def _automatic_masks(stage: Any) -> Callable[[Image.Image], list[Any]]:
    """All masks of an image, by transformers' counterpart of segment_anything's SamAutomaticMaskGenerator."""
    chosen = stage.parameters
    model, processor = stage._model, stage._processor
    model.register_forward_hook(_float_estimates)
    # the same thresholds as in the stage's profile
    generator = pipeline("mask-generation", model=model, image_processor=processor, device=model.device)

    def masks(image: Image.Image) -> list[Any]:
        answer = generator(
            image,
            points_per_crop=chosen.points_per_side,
            points_per_batch=POINTS_A_CALL,
            pred_iou_thresh=chosen.pred_iou_thresh,
            stability_score_thresh=chosen.stability_score_thresh,
            crops_nms_thresh=chosen.nms_iou,
        )
        found = [np.asarray(mask, dtype=np.uint8) for mask in answer["masks"]]
        return [mask for mask in found if mask.any()]

    return masks


def _float_estimates(module: Any, inputs: Any, answer: Any) -> Any:
    """The pipeline's non-maximum suppression takes no estimates in bfloat16."""
    answer.iou_scores = answer.iou_scores.float()
    return answer
