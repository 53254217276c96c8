"""Evaluate the demo's captioner on held-out scenes.

python -m samples.training.caption_eval weights/captioner --scenes 300
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import AutoProcessor, Florence2ForConditionalGeneration, Florence2Processor

from samples.scenes import HELD_OUT_SEED, PHRASES, Scene, SceneOptions, make_scene
from samples.training.caption_data import Sample, crop_sample, scene_sample
from samples.training.tokenizer import CROP_TASK, SCENE_TASK

FIRST_SEED = HELD_OUT_SEED + 7_000_000
EMPTY_SHARE = 0.2
RELATION = re.compile(r"The (.+?) is (to the left of|above|below) the (.+?)\.")


def said_phrases(caption: str) -> set[str]:
    """The things that a caption's first sentence lists."""
    listed = caption.split(".")[0].rsplit(" on a", 1)[0]
    parts = re.split(r", | and ", listed)
    return {part[:1].lower() + part[1:] for part in parts if part and not part.startswith("An empty")}


def said_relations(caption: str) -> set[tuple[str, str, str]]:
    """The relations that a caption states, with phrases without articles."""
    return {(a, relation, b) for a, relation, b in RELATION.findall(caption)}


@torch.inference_mode()
def describe(model: Any, processor: Florence2Processor, samples: Sequence[Sample], task: str) -> list[str]:
    """Caption the samples' images by greedy decoding, with the same processor as the service."""
    texts: list[str] = []
    for start in range(0, len(samples), 32):
        images = [sample.image for sample in samples[start : start + 32]]
        inputs = processor(text=[task] * len(images), images=images, return_tensors="pt")
        ids = model.generate(**inputs)
        texts += [text.strip() for text in processor.batch_decode(ids, skip_special_tokens=True)]
    return texts


def evaluate(model: Florence2ForConditionalGeneration, processor: Florence2Processor, scenes: int) -> dict[str, float]:
    """Shares in 0..1: recall and precision of phrases, invention, relations, and phrases of crops.

    `scenes` with 1 to 6 objects, and a fifth as many empty ones on top; signs count as objects.
    `model` is a Florence2ForConditionalGeneration.
    """
    # held-out scenes with objects, and empty ones
    seeds = range(FIRST_SEED, FIRST_SEED + scenes)
    full = [make_scene(seed, SceneOptions(min_objects=1)) for seed in seeds]
    nothing = SceneOptions(max_objects=0, signs=False)
    empty = [make_scene(scenes + seed, nothing) for seed in seeds[: round(EMPTY_SHARE * scenes)]]
    # captions of both, then the figures of each kind
    captions = describe(model, processor, [scene_sample(scene) for scene in full], SCENE_TASK)
    on_empty = describe(model, processor, [scene_sample(scene) for scene in empty], SCENE_TASK)
    figures = _phrase_figures(full, captions) | _relation_figures(full, captions)
    figures["empty_invented"] = float(np.mean([bool(said_phrases(caption)) for caption in on_empty]))
    told = [
        caption.split(".")[0].endswith(f" {scene.background} background")
        for scene, caption in zip(full, captions, strict=True)
    ]
    figures["background_right"] = float(np.mean(told))
    figures |= _crop_figures(model, processor, full)
    return {name: round(value, 4) for name, value in figures.items()}


def _phrase_figures(scenes: Sequence[Scene], captions: Sequence[str]) -> dict[str, float]:
    figures = {}
    for low, high in ((1, 4), (5, 6)):
        found = said = true = 0
        for scene, caption in zip(scenes, captions, strict=True):
            if low <= len(scene.objects) <= high:
                there = {thing.phrase for thing in (*scene.objects, *scene.signs)}
                named = said_phrases(caption)
                found, said, true = found + len(there & named), said + len(named), true + len(there)
        figures[f"recall_{low}_{high}"] = found / max(1, true)
        figures[f"precision_{low}_{high}"] = found / max(1, said)
    return figures


def _relation_figures(scenes: Sequence[Scene], captions: Sequence[str]) -> dict[str, float]:
    said = right = 0
    for scene, caption in zip(scenes, captions, strict=True):
        true = said_relations(scene.caption)
        told = said_relations(caption)
        said, right = said + len(told), right + len(told & true)
    return {"relations_right": right / max(1, said)}


def _crop_figures(model: Any, processor: Florence2Processor, scenes: Sequence[Scene]) -> dict[str, float]:
    rng = np.random.default_rng(0)
    chosen = [(scene, (*scene.objects, *scene.signs)) for scene in scenes]
    crops = [crop_sample(scene, things[int(rng.integers(len(things)))], rng) for scene, things in chosen]
    phrases = describe(model, processor, crops, CROP_TASK)
    right = [phrase == crop.text for phrase, crop in zip(phrases, crops, strict=True)]
    known = [phrase in PHRASES for phrase in phrases]
    return {"crop_phrase": float(np.mean(right)), "crop_well_formed": float(np.mean(known))}


def main() -> None:
    """Print the figures of a saved model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--scenes", type=int, default=300)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    processor = AutoProcessor.from_pretrained(arguments.folder)
    model = Florence2ForConditionalGeneration.from_pretrained(arguments.folder, dtype=torch.float32)
    for name, value in evaluate(model.eval(), processor, arguments.scenes).items():
        print(f"{name:18} {value:.3f}")


if __name__ == "__main__":
    main()
