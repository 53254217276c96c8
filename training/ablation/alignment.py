"""Align the projector of the ablation's initial model with the word embeddings; nothing else is trained.

It replaces LLaVA's first stage, which uses image-text pairs (Liu et al., arXiv 2304.08485, section 4.2), with the
known truth of drawn scenes: each image token is trained to be nearest to the embeddings of the name, colour and sign
word of the thing in its cell, and of a digit and a letter for the cell's row and column. The language model is not
used, and stays random.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional
from transformers import FastVlmForConditionalGeneration, PreTrainedTokenizerBase

from samples.drawings import WORDS
from samples.sprites import COLOURS
from samples.training.caption_data import CLASSES, UNKNOWN
from samples.training.vision_tower import GRID
from training.ablation.questions import NOTHING, Seen

BATCH, RATE, SHARPNESS = 16, 3e-3, 20.0
ROWS, COLUMNS = "12345678", "ABCDEFGH"  # words for a cell's position


def align(
    model: FastVlmForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    pool: Sequence[Seen],
    steps: int,
    rng: np.random.Generator,
) -> float:
    """Train a model's projector on scenes of a pool; return the last loss."""
    # the target directions: the embeddings of five sets of words
    embeddings = model.lm_head.weight.detach()  # tied to the input's
    texts = (
        [f" {name or NOTHING}" for name in CLASSES],
        [f" {colour}" for colour in COLOURS],
        list(WORDS),
        ROWS,
        COLUMNS,
    )
    words = [torch.stack([_direction(tokenizer, embeddings, text) for text in of]) for of in texts]
    length = embeddings.norm(dim=1).mean()
    cells = torch.arange(GRID * GRID)
    projector = model.model.multi_modal_projector
    optimizer = torch.optim.AdamW(projector.parameters(), lr=RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        # the image tokens of a random batch, and the index of each token's word in each set
        seen = [pool[int(i)] for i in rng.integers(len(pool), size=BATCH)]
        tokens = projector(torch.stack([one.features for one in seen]))
        targets = [torch.stack([getattr(one, name) for one in seen]) for name in ("classes", "colours", "words")]
        targets += [axis.expand(len(seen), -1) for axis in (cells // GRID, cells % GRID)]
        # directions by cross-entropy; the length is held at twice that of a word, since a token has several meanings
        losses = [_nearest(tokens, among, of) for among, of in zip(words, targets, strict=True)]
        loss = torch.stack(losses).sum() + (tokens.norm(dim=2) / length - 2).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    print(f"alignment, step {steps}: {' '.join(f'{float(one.detach()):.3f}' for one in losses)}", flush=True)
    return float(loss.detach())


def _direction(tokenizer: PreTrainedTokenizerBase, embeddings: torch.Tensor, text: str) -> torch.Tensor:
    """The unit vector (width,) of a word inside a text: the mean of its tokens' embeddings, normalised."""
    ids: Sequence[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return functional.normalize(embeddings[list(ids)].mean(0), dim=0)


def _nearest(tokens: torch.Tensor, words: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy over words (W, width) of tokens (N, cells, width) by cosine; cells of `UNKNOWN` do not count."""
    # most cells are empty, so the class 0 has less weight
    logits = SHARPNESS * functional.normalize(tokens, dim=2) @ words.T
    weights = torch.where(targets == 0, 0.3, 1.0) if len(words) == len(CLASSES) else torch.ones_like(targets).float()
    losses = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=UNKNOWN, reduction="none")
    weights = weights.flatten() * (targets.flatten() != UNKNOWN)
    return (losses * weights).sum() / weights.sum().clamp(min=1)
