"""The start's projector, trained alone: what a cell of the picture shows comes near the word for it.

What LLaVA's first stage does with image-text pairs (Liu et al., arXiv 2304.08485, section 4.2), done here with what is
known of drawn scenes: each image token shall be nearest to the embeddings of its thing's name, colour and sign word,
and of a digit and a letter for its row and column. The language model takes no part and stays random.
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
from training.questions import NOTHING, Seen

BATCH, RATE, SHARPNESS = 16, 3e-3, 20.0
ROWS, COLUMNS = "12345678", "ABCDEFGH"  # words for where a cell lies


def align(
    model: FastVlmForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    pool: Sequence[Seen],
    steps: int,
    rng: np.random.Generator,
) -> float:
    """Train the projector of a model on scenes of a pool; the last loss."""
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
        seen = [pool[int(i)] for i in rng.integers(len(pool), size=BATCH)]
        tokens = projector(torch.stack([one.features for one in seen]))
        targets = [torch.stack([getattr(one, name) for one in seen]) for name in ("classes", "colours", "words")]
        targets += [places.expand(len(seen), -1) for places in (cells // GRID, cells % GRID)]
        losses = [_nearest(tokens, among, of) for among, of in zip(words, targets, strict=True)]
        loss = torch.stack(losses).sum() + (tokens.norm(dim=2) / length - 2).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    print(f"alignment, step {steps}: {' '.join(f'{float(one.detach()):.3f}' for one in losses)}", flush=True)
    return float(loss.detach())


def _direction(tokenizer: PreTrainedTokenizerBase, embeddings: torch.Tensor, text: str) -> torch.Tensor:
    """(width,): where a word inside a text lies, the mean over its tokens, of length 1."""
    ids: Sequence[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return functional.normalize(embeddings[list(ids)].mean(0), dim=0)


def _nearest(tokens: torch.Tensor, words: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy over words (W, width) of tokens (N, cells, width) by cosine; cells of `UNKNOWN` do not count."""
    logits = SHARPNESS * functional.normalize(tokens, dim=2) @ words.T
    weights = torch.where(targets == 0, 0.3, 1.0) if len(words) == len(CLASSES) else torch.ones_like(targets).float()
    losses = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=UNKNOWN, reduction="none")
    weights = weights.flatten() * (targets.flatten() != UNKNOWN)
    return (losses * weights).sum() / weights.sum().clamp(min=1)
