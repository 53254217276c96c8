"""Pre-train the ablation's initial model, so that it can name things in an image, as the paper's Qwen-VL can.

First the projector is aligned with the word embeddings, then projector and language model are trained to answer short
questions on new scenes (`questions.py`). The vision tower is frozen.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, FastVlmForConditionalGeneration, LlavaProcessor

from samples.training.caption_data import UNKNOWN
from training.ablation.alignment import align
from training.ablation.questions import Seen, look
from training.tiny import ASSISTANT, END, USER

BATCH, RATE, WARM_UP = 8, 2e-3, 0.1
POOL = 4000  # scenes; each use of a scene draws new questions
SHOW_STEPS = 100


def pretrain(folder: Path, steps: int, seed: int, align_steps: int = 1500) -> None:
    """Train the projector and language model of a model's folder, in place, on scenes of training seeds."""
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(folder)
    # the tower is frozen, so the features of all scenes are computed once
    rng = np.random.default_rng((seed, 1))
    batches = min(POOL // BATCH, steps)
    pool = [one for _ in range(batches) for one in look(model.model.vision_tower, BATCH, rng)]
    print(f"pre-training on {len(pool)} scenes", flush=True)
    align(model, processor.tokenizer, pool, align_steps, rng)
    answer(model, processor, pool, steps, rng)
    model.save_pretrained(folder)


def answer(
    model: FastVlmForConditionalGeneration,
    processor: LlavaProcessor,
    pool: Sequence[Seen],
    steps: int,
    rng: np.random.Generator,
) -> None:
    """Train the projector and language model on questions about the scenes of a pool."""
    model.model.vision_tower.requires_grad_(False)
    # everything but the vision tower is trained
    parameters = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(parameters, weight_decay=0.05, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=WARM_UP)
    total = 0.0
    for step in range(1, steps + 1):
        seen = [pool[int(i)] for i in rng.integers(len(pool), size=BATCH)]
        # each use of a scene asks new questions
        loss = loss_of(model, processor, seen, [one.questions(rng) for one in seen])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        total += float(loss.detach())
        if step % SHOW_STEPS == 0:
            print(f"questions, step {step} of {steps}: loss {total / SHOW_STEPS:.3f}", flush=True)
            total = 0.0


def loss_of(
    model: FastVlmForConditionalGeneration,
    processor: LlavaProcessor,
    seen: Sequence[Seen],
    asked: Sequence[Sequence[tuple[str, str]]],
) -> torch.Tensor:
    """The mean loss of the answers' tokens. Image tokens stand after the first `USER`, as in the chat template."""
    # tokenize the conversations; answers are the tokens from after ASSISTANT up to and with END
    texts = [USER + USER.join(f"{question}{ASSISTANT}{answer}{END}" for question, answer in turns) for turns in asked]
    tokenizer = processor.tokenizer
    batch = tokenizer(texts, add_special_tokens=False, padding=True, padding_side="right", return_tensors="pt")
    ids, mask = batch["input_ids"], batch["attention_mask"]
    begun, ended = ((ids == tokenizer.convert_tokens_to_ids(token)).cumsum(1) for token in (ASSISTANT, END))
    answers = torch.cat([torch.zeros_like(ids[:, :1]), (begun - ended)[:, :-1]], dim=1) * mask > 0
    # insert the projected features after the first token; they have no labels
    words = model.get_input_embeddings()(ids)
    tokens = model.model.multi_modal_projector(torch.stack([one.features for one in seen]))
    labels = ids.masked_fill(~answers, UNKNOWN)
    blank = labels.new_full(tokens.shape[:2], UNKNOWN)
    loss: torch.Tensor = model(
        inputs_embeds=torch.cat([words[:, :1], tokens, words[:, 1:]], dim=1),
        attention_mask=torch.cat([mask[:, :1], torch.ones_like(blank), mask[:, 1:]], dim=1),
        labels=torch.cat([labels[:, :1], blank, labels[:, 1:]], dim=1),
    ).loss
    return loss
