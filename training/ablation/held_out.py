"""Held-out scenes, on which nothing was trained, and the descriptions of them by a trained model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor
from trl.data_utils import prepare_multimodal_messages

from samples.scenes import HELD_OUT_SEED, Scene, SceneOptions, make_scene

INSTRUCTION = "Describe the image."
FIRST_HELD_OUT = HELD_OUT_SEED + 6_000_000  # no other program draws scenes from here on
LONGEST = 160  # tokens of an answer
GENERATED = 50  # images in one call of `generate`


def held_out(count: int, drawn: SceneOptions | None = None) -> list[Scene]:
    """The scenes that all arms describe; none of their seeds is used in a training."""
    return [make_scene(FIRST_HELD_OUT + i, drawn) for i in range(count)]


@torch.inference_mode()
def describe(folder: Path, scenes: Sequence[Scene]) -> list[str]:
    """Describe scenes with a trained model, by greedy decoding."""
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    texts: list[str] = []
    for first in range(0, len(scenes), GENERATED):
        conversations = [
            prepare_multimodal_messages([{"role": "user", "content": INSTRUCTION}], [scene.image])
            for scene in scenes[first : first + GENERATED]
        ]
        # prompts have equal lengths, so that no padding is needed
        inputs = processor.apply_chat_template(
            conversations, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
        ids = model.generate(**inputs, max_new_tokens=LONGEST)[:, inputs["input_ids"].shape[1] :]
        texts += [text.strip() for text in processor.batch_decode(ids, skip_special_tokens=True)]
    return texts


def score(model: Path, path: Path, scenes: Sequence[Scene], facts: Mapping[str, Any]) -> None:
    """Let a model describe scenes; write the texts, with `facts`, to a JSON file, which appears when it is complete."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps({**facts, "texts": describe(model, scenes)}), encoding="utf-8")
    temporary.replace(path)


def scores_of(path: Path) -> dict[str, Any]:
    """Read a file that `score` wrote."""
    scores: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return scores
