"""Stages with randomly initialised models, made on the device: speed does not depend on the values of weights.

Some outputs are replaced, so that each way has the same work, and as much as with real weights:

- generated texts have a fixed length;
- the detector's text is generated completely, and then replaced by REGIONS boxes;
- SAM's decoder computes completely, and then its masks are replaced by discs and its estimates by numbers evenly
  distributed between 0 and 1, so that a third of them passes and 20 or more remain.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from open_clip.model import CustomTextCLIP
from open_clip.transform import image_transform
from transformers import AutoConfig, AutoModelForMaskGeneration

from models import devices, pipeline
from models.devices import best_device, best_precision
from models.items import Detection
from models.stages import captioner, clip, detector, florence, matcher, qwen_vl, segmenter
from models.stages.sam.decoder import PointDecoder
from strata.core import Profile, StageSettings

LENGTHS = {"scene_tokens": 16, "crop_tokens": 16}  # of captions: BLIP-2's have some ten tokens, a batch the longest's
QWEN_LENGTHS = {  # prompts as short in bytes as the profiles' are in tokens
    "scene_prompt": "Describe this picture in three to five plain sentences: the main things.",
    "crop_prompt": "Name the one thing in this picture in at most ten words.",
    "scene_tokens": 200,
    "crop_tokens": 16,
}
REGION_TOKENS = 160  # ten regions of four words, each with four location tokens
REGIONS = 10
PASSING = 1 / 3  # of SAM's masks, by their estimated IoU


def made(model_class: Any, folder: Path, precision: torch.dtype | None = None) -> Any:
    """Replaces `models.devices.load_model`: makes the model of a folder's configuration, with random weights."""
    torch.manual_seed(0)
    build = model_class.from_config if model_class is AutoModelForMaskGeneration else model_class._from_config
    with torch.device(best_device()):
        model = build(AutoConfig.from_pretrained(folder), dtype=precision or best_precision()).eval()
    for part in (model, getattr(model, "language_model", None)):
        if part is not None and getattr(part, "generation_config", None) is not None:
            part.generation_config.update(eos_token_id=None, forced_eos_token_id=None, pad_token_id=1)
    if model_class is AutoModelForMaskGeneration:
        model.mask_decoder.register_forward_hook(_discs)
    return model


def _discs(module: Any, inputs: Any, output: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Replaces the outputs of transformers' decoder: masks of discs, and random estimates."""
    masks, estimates, *others = output
    return _random_discs(masks), torch.rand_like(estimates), *others


def random_masks(decoder: PointDecoder) -> PointDecoder:
    """The decoder, whose outputs are replaced as those of transformers' own."""
    decoder.upscaling.register_forward_hook(lambda module, inputs, output: _random_discs(output))
    decoder.estimating.register_forward_hook(lambda module, inputs, output: torch.rand_like(output))
    return decoder


def _random_discs(masks: torch.Tensor) -> torch.Tensor:
    """Logits like these, (…, height, width), of discs with random centres and radii: a few large ones, many small."""
    height, width = masks.shape[-2:]
    x, y, radius = torch.rand(3, *masks.shape[:-2], 1, 1, device=masks.device)
    rows = torch.arange(height, device=masks.device)[:, None] / height
    columns = torch.arange(width, device=masks.device) / width
    distance = ((columns - x) ** 2 + (rows - y) ** 2).sqrt()
    discs: torch.Tensor = 500 * (0.02 + 0.2 * radius**2 - distance)
    return discs.to(masks.dtype)


class FixedRegions(detector.FlorenceDetector):
    """Florence-2 whose text is replaced by REGIONS boxes, since random tokens contain none."""

    def compute(self, batch: detector.Prepared) -> list[list[Detection]]:
        sizes, _ = batch
        super().compute(batch)
        return [[_fixed_region(index, size) for index in range(REGIONS)] for size in sizes]


def _fixed_region(index: int, size: tuple[int, int]) -> Detection:
    width, height = size
    left, top = 0.07 * index * width, 0.05 * index * height
    return Detection((left, top, left + 0.3 * width, top + 0.4 * height), "a red car with the dog", 0.9)


def random_profile(profile: Profile, folders: dict[str, Path], points_per_side: int | None) -> Profile:
    """The profile with vision models from the folders, and with lengths and thresholds for random weights.

    points_per_side: of the segmenter; None: the profile's. What a matcher with random weights says would drop every
    entry of a profile with a second opinion, and its work with them: there all are kept.
    """
    changed: dict[str, dict[str, Any]] = {
        "captioner": LENGTHS if profile.stages["captioner"].backend == "blip2" else QWEN_LENGTHS,
        "detector": {"max_new_tokens": REGION_TOKENS},
        "segmenter": {"pred_iou_thresh": 1 - PASSING, "stability_score_thresh": 0.5},
        "matcher": {},
        "second_matcher": {"question": "{}?"},
    }
    if points_per_side is not None:
        changed["segmenter"]["points_per_side"] = points_per_side
    # parameters that are not changed stay as in the profile
    stages: dict[str, StageSettings] = dict(profile.stages)
    for name, parameters in changed.items():
        if name not in stages:
            continue
        settings = stages[name]
        stages[name] = settings.model_copy(
            update={"model": f"local:{folders[name]}", "parameters": settings.parameters | parameters}
        )
    evidence = profile.evidence
    if "second_matcher" in stages:
        evidence = evidence.model_copy(update={"region": 0.0, "object": 0.0})
    return profile.model_copy(update={"stages": stages, "evidence": evidence})


def _clip(folder: Path) -> tuple[Any, Any]:
    """Replaces `models.stages.clip._load`."""
    config = json.loads((folder / "open_clip_config.json").read_text(encoding="utf-8"))["model_cfg"]
    torch.manual_seed(0)
    with best_device():
        model = CustomTextCLIP(**{name: value for name, value in config.items() if name != "custom_text"}).eval()
    side = config["vision_cfg"]["image_size"]
    return model, image_transform(side, is_train=False, resize_mode="squash")


def _token_ids(name: str) -> Any:
    """Replaces `open_clip.get_tokenizer`: as many tokens as SigLIP's, of bytes."""
    return lambda texts: torch.tensor([[*text.encode()[:64].ljust(64, b"\0")] for text in texts])


@contextmanager
def random_weights() -> Iterator[None]:
    """While the block runs, the stages' models are made instead of loaded, and the detector finds REGIONS regions."""
    with ExitStack() as patches:
        # each of these modules loads its models by `load_model`
        for module in (captioner, detector, devices, florence, matcher, qwen_vl):
            patches.enter_context(patch.object(module, "load_model", made))
        patches.enter_context(patch.object(clip, "_load", _clip))
        patches.enter_context(patch("open_clip.get_tokenizer", _token_ids))
        patches.enter_context(patch.object(detector, "FlorenceDetector", FixedRegions))
        patches.enter_context(patch.object(segmenter, "PointDecoder", lambda model: random_masks(PointDecoder(model))))
        # the guards would reject random texts, and every row with them
        patches.enter_context(patch.object(pipeline, "write", lambda stage, items: stage.run(items)))
        yield
