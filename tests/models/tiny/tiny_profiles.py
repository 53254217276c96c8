"""Copies of Strata's profiles whose weights are tiny random checkpoints."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from models.weights.inventory import PROFILES
from strata.core.profiles import load_profile
from tests.models.tiny import tiny_models
from tests.models.tiny.tiny_models import make

CAPTION = "A red car stands beside an owl."
REGIONS = "a red car<loc_100><loc_200><loc_499><loc_799>an owl<loc_500><loc_0><loc_999><loc_499>"
WRITTEN = 'A red car stands beside an owl. The words "OPEN" can be read.'
# the makers by repository; an answer is what the checkpoint writes, because the guards reject random texts
MAKERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "Salesforce/blip2-opt-2.7b": (tiny_models.blip2_captioner, {"answer": "a red car"}),
    "Salesforce/blip2-itm-vit-g": (tiny_models.blip2_matcher, {}),
    "florence-community/Florence-2-large": (tiny_models.florence, {"answer": REGIONS}),
    "florence-community/Florence-2-base": (tiny_models.florence, {"answer": CAPTION}),
    "facebook/sam-vit-huge": (tiny_models.sam, {}),
    "facebook/sam2.1-hiera-large": (tiny_models.sam2, {}),
    "facebook/sam2.1-hiera-tiny": (tiny_models.sam2, {}),
    "Qwen/Qwen3-VL-8B-Instruct": (tiny_models.qwen3_vl, {"answer": "a red car"}),
    "Qwen/Qwen3-VL-2B-Instruct": (tiny_models.qwen3_vl_2b, {"answer": WRITTEN}),
    "Qwen/Qwen3-4B-Instruct-2507": (tiny_models.qwen3, {"answer": WRITTEN}),
    "HuggingFaceTB/SmolLM2-360M-Instruct": (tiny_models.smollm2, {}),
    "timm/vit_large_patch14_clip_224.openai": (tiny_models.openai_clip, {"width": 768, "patch": 14}),
    "timm/ViT-SO400M-16-SigLIP2-384": (tiny_models.siglip2, {}),
    "timm/ViT-B-16-SigLIP2-256": (tiny_models.siglip2, {}),
}


def make_checkpoints(folder: Path, profiles: Iterable[str]) -> dict[str, Path]:
    """Make the checkpoints of some profiles; their folders by repository."""
    models = {stage.model for name in profiles for stage in load_profile(name, PROFILES).stages.values()}
    repositories = sorted(model.removeprefix("hub:") for model in models if model.startswith("hub:"))
    return {name: make(MAKERS[name][0], folder / name, **MAKERS[name][1]) for name in repositories}


def write_copy(name: str, folder: Path, checkpoints: dict[str, Path], chat: str = "http://127.0.0.1:9/v1") -> Path:
    """The folder with a copy of the profile; nothing but the `model` lines of checkpoints and servers differs."""

    def elsewhere(line: str) -> str:
        kind, _, where = json.loads(line.partition("=")[2]).partition(":")
        there = {"hub": f"local:{checkpoints.get(where)}", "server": f"server:{chat}"}
        return f'model = "{there[kind]}"' if kind in there else line

    original = (PROFILES / f"{name}.toml").read_text().splitlines()
    copy = [elsewhere(line) if line.startswith("model = ") else line for line in original]
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.toml").write_text("\n".join(copy))
    return folder
