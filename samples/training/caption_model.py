"""The demo captioner's model and one step of its training, in one process or in several.

python -m torch.distributed.run --nproc-per-node 2 -m samples.training.captioner ...
"""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional
from transformers import Florence2Config, Florence2ForConditionalGeneration, Florence2Processor, GenerationConfig

from samples.sprites import COLOURS
from samples.training.caption_data import CLASSES, UNKNOWN, DenseTargets, Sample, dense_targets, pixels_of
from samples.training.tokenizer import CROP_TASK, SCENE_TASK

GRID = 8  # cells per side of the vision tower's output
WIDTH = 192
LONGEST = 96  # tokens of a caption
DENSE_WEIGHT = 0.4  # of the dense head's loss in the second phase, beside captions
AVERAGE = 0.997


class Team:
    """The processes of this training; joins them when it is made."""

    def __init__(self) -> None:
        self.rank, self.size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        if self.size > 1:
            dist.init_process_group("gloo")

    def follow(self, elapsed: float, stopped: bool) -> tuple[float, bool]:
        """Share the first process's clock and stop flag, so that all processes take the same number of steps."""
        if self.size == 1:
            return elapsed, stopped
        clock = torch.tensor([elapsed, float(stopped)], dtype=torch.float64)
        dist.broadcast(clock, src=0)
        return float(clock[0]), bool(clock[1])

    def average_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace every gradient by its mean over the processes."""
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.size
        parts = flat.split([gradient.numel() for gradient in gradients])
        torch._foreach_copy_(gradients, [p.view_as(g) for p, g in zip(parts, gradients, strict=True)])


def build_model(processor: Florence2Processor) -> Florence2ForConditionalGeneration:
    """A small Florence-2 with random weights: 128 pixels, 65 image tokens, 4.3 M parameters."""
    tokenizer = processor.tokenizer
    vision = {
        "depths": [1, 1, 2, 1],
        "embed_dim": [32, 64, 128, WIDTH],
        "num_heads": [1, 2, 4, 6],
        "num_groups": [1, 2, 4, 6],
        "patch_stride": [4, 2, 2, 1],
        "window_size": 8,
        "drop_path_rate": 0.0,
        "projection_dim": WIDTH,
        "max_position_embeddings": GRID,
        "max_temporal_embeddings": 1,
    }
    ends = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
    text = {
        "model_type": "bart",
        "vocab_size": len(tokenizer),
        "d_model": WIDTH,
        "encoder_layers": 1,
        "decoder_layers": 3,
        "encoder_ffn_dim": 512,
        "decoder_ffn_dim": 512,
        "encoder_attention_heads": 6,
        "decoder_attention_heads": 6,
        "dropout": 0.0,
        "max_position_embeddings": 128,
        "forced_eos_token_id": None,
        **ends,
    }
    config = Florence2Config(vision_config=vision, text_config=text, image_token_id=processor.image_token_id)
    # on a CPU, eager attention is faster here than torch's fused one; a loaded model uses its default
    model: Florence2ForConditionalGeneration = Florence2ForConditionalGeneration._from_config(
        config, attn_implementation="eager"
    )
    model.generation_config = GenerationConfig(max_length=LONGEST, num_beams=1, do_sample=False, **ends)
    return model


class DenseHead(nn.Module):
    """Classifies each cell of the vision tower's output; used only in training."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = (len(CLASSES), len(COLOURS), 4)
        self.layers = nn.Sequential(
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.GELU(), nn.Conv2d(WIDTH, sum(self.parts), 1)
        )

    def loss(self, features: torch.Tensor, targets: DenseTargets) -> torch.Tensor:
        """The loss, a scalar, from features (N, WIDTH, G, G)."""
        classes, colours, boxes = self.layers(features).split(self.parts, dim=1)
        weights = torch.ones(len(CLASSES))
        weights[0] = 0.3  # less for the background, which most cells show
        loss = functional.cross_entropy(classes, targets.classes, weights)
        # colours and boxes count only in cells that have them
        if (targets.colours != UNKNOWN).any():
            loss = loss + 0.5 * functional.cross_entropy(colours, targets.colours, ignore_index=UNKNOWN)
        there = (targets.classes > 0).unsqueeze(1)
        distance = functional.smooth_l1_loss(boxes, targets.boxes, reduction="none", beta=0.1)
        return loss + 2 * (distance * there).sum() / (4 * there.sum().clamp(min=1))


class CaptionTrainer:
    """The model, the average of its weights over the last steps, the dense head and the optimizer."""

    def __init__(self, model: Florence2ForConditionalGeneration, processor: Florence2Processor, team: Team) -> None:
        self.model, self.processor, self.head, self.team = model, processor, DenseHead(), team
        self.average = copy.deepcopy(model).eval()
        # weight decay for matrices only
        decayed = [p for p in self._parameters() if p.ndim > 1]
        plain = [p for p in self._parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": 0.03}, {"params": plain, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)
        self.prompts = {task: self._prompt(task) for task in (SCENE_TASK, CROP_TASK)}

    def _parameters(self) -> list[nn.Parameter]:
        return [*self.model.parameters(), *self.head.parameters()]

    def _prompt(self, task: str) -> torch.Tensor:
        """The token ids of a task's question, with the processor's start and end tokens."""
        question = self.processor._construct_prompts(task)[0]
        tokenizer = self.processor.tokenizer
        text = f"{tokenizer.bos_token}{question}{tokenizer.eos_token}"
        return torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"])

    def step(
        self, scenes: Sequence[Sample], crops: Sequence[Sample], rate: float, *, dense_only: bool
    ) -> dict[str, float]:
        """Do one optimizer step; return the losses by name."""
        self.model.train()
        samples = [*scenes, *crops]
        # the vision tower is shared by both losses
        features = self.model.model.vision_tower(pixels_of(samples, GRID * 16)).last_hidden_state
        losses = {"dense": self.head.loss(features, dense_targets(samples, GRID))}
        total = losses["dense"]
        if not dense_only:
            # in the second phase, captions of scenes and of crops
            tokens = self.model.model.multi_modal_projector(features)
            losses["scenes"] = self._caption_loss(tokens[: len(scenes)], scenes, SCENE_TASK)
            losses["crops"] = self._caption_loss(tokens[len(scenes) :], crops, CROP_TASK)
            total = DENSE_WEIGHT * total + losses["scenes"] + 0.3 * losses["crops"]
        # the optimizer step; with several processes, on the mean of their gradients
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        total.backward()
        self.team.average_gradients(self._parameters())
        torch.nn.utils.clip_grad_norm_(self._parameters(), 1.0)
        self.optimizer.step()
        self._follow()
        return {name: float(loss.detach()) for name, loss in losses.items()}

    def _caption_loss(self, tokens: torch.Tensor, samples: Sequence[Sample], task: str) -> torch.Tensor:
        # image tokens, then the embedded question, as in Florence-2's forward
        prompt = self.model.get_input_embeddings()(self.prompts[task]).expand(len(samples), -1, -1)
        tokenizer = self.processor.tokenizer
        texts = [sample.text + tokenizer.eos_token for sample in samples]
        ids = tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt")["input_ids"]
        # padding has no loss
        labels = ids.masked_fill(ids == tokenizer.pad_token_id, UNKNOWN)
        loss: torch.Tensor = self.model(inputs_embeds=torch.cat([tokens, prompt], dim=1), labels=labels).loss
        return loss

    @torch.no_grad()
    def _follow(self) -> None:
        torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), 1 - AVERAGE)

    def state(self) -> dict[str, Any]:
        """The state that `restore` needs."""
        parts = ("model", "average", "head", "optimizer")
        return {name: getattr(self, name).state_dict() for name in parts}

    def restore(self, state: dict[str, Any]) -> None:
        """Load a state from `state`."""
        for name, part in state.items():
            getattr(self, name).load_state_dict(part)

    def export(self, folder: Path) -> None:
        """Save the averaged model in half precision, and the processor, as transformers loads them."""
        copy.deepcopy(self.average).half().save_pretrained(folder)
        self.processor.save_pretrained(folder)
