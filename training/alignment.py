"""The start's projector, trained alone: what a cell of the picture shows comes near the word for it.

What LLaVA's first stage does with image-text pairs (Liu et al., arXiv 2304.08485, section 4.2), done here with what is
known of drawn scenes: each image token shall be nearest to the embeddings of its thing's name, colour and sign word.
The language model takes no part and stays random.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from transformers import AutoModelForImageTextToText, AutoProcessor

from samples.drawings import WORDS
from samples.sprites import COLOURS
from samples.training.caption_data import CLASSES, UNKNOWN, dense_targets, pixels_of, scene_sample, training_scene
from samples.training.vision_tower import GRID, SIDE, word_targets

BATCH, RATE, SHARPNESS = 16, 3e-3, 10.0
SHOW_STEPS = 50


def align(folder: Path, steps: int, seed: int) -> None:
    """Train the projector of a model's folder, in place, on scenes of training seeds."""
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoProcessor.from_pretrained(folder).tokenizer
    embeddings = model.get_input_embeddings().weight.detach()
    texts = (["background", *CLASSES[1:]], list(COLOURS), [f'"{word}"' for word in WORDS])
    words = [torch.stack([_direction(tokenizer, embeddings, text) for text in of]) for of in texts]
    length = embeddings.norm(dim=1).mean()
    projector = model.model.multi_modal_projector
    optimizer = torch.optim.AdamW(projector.parameters(), lr=RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(1, steps + 1):
        rng = np.random.default_rng((seed, 1, step))
        samples = [scene_sample(training_scene(rng)) for _ in range(BATCH)]
        with torch.no_grad():
            features = model.model.vision_tower(pixels_of(samples, SIDE)).last_hidden_state
        tokens = projector(features.flatten(2).permute(0, 2, 1))
        found = dense_targets(samples, GRID)
        targets = (found.classes, found.colours, word_targets(samples, GRID))
        losses = [_nearest(tokens, among, of.flatten(1)) for among, of in zip(words, targets, strict=True)]
        loss = torch.stack(losses).sum() + (tokens.norm(dim=2) / length - 2).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % SHOW_STEPS == 0:
            print(f"alignment, step {step}: {' '.join(f'{float(one.detach()):.3f}' for one in losses)}", flush=True)
    model.save_pretrained(folder)


def _direction(tokenizer: object, embeddings: torch.Tensor, text: str) -> torch.Tensor:
    """(width,): where a word inside a text lies, the mean over its tokens, of length 1."""
    ids: Sequence[int] = tokenizer(f" {text}", add_special_tokens=False)["input_ids"]  # type: ignore[operator]
    return functional.normalize(embeddings[list(ids)].mean(0), dim=0)


def _nearest(tokens: torch.Tensor, words: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy over words (W, width) of tokens (N, cells, width) by cosine; cells of `UNKNOWN` do not count."""
    logits = SHARPNESS * functional.normalize(tokens, dim=2) @ words.T
    weights = torch.where(targets == 0, 0.3, 1.0) if len(words) == len(CLASSES) else torch.ones_like(targets).float()
    losses = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=UNKNOWN, reduction="none")
    weights = weights.flatten() * (targets.flatten() != UNKNOWN)
    return (losses * weights).sum() / weights.sum().clamp(min=1)
