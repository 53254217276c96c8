"""Greedy decoding along guides: many descriptions at once, the fixed start of the prompt computed once.

Where a guide leaves no choice, its tokens are taken without asking the model and go through it together with the
next question, and only the allowed tokens' logits are computed. The rows of a batch stand behind one another in one
sequence instead of being padded to the longest, and the keys and values stay in one block of memory, written in place.
So a row costs what its own tokens cost, and its attention is computed as it would be alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PretrainedConfig, PreTrainedModel

from models.demo.grounding import Guide

ATTENTION = "strata_packed"


@dataclass(frozen=True)
class _Span:
    """New tokens of one row: `start:stop` of the sequence; the row's slots are `first:last`, the new ones at the end.

    mask: (query heads of a key head x tokens, slots), added to the scores; None for a single token.
    """

    start: int
    stop: int
    first: int
    last: int
    mask: torch.Tensor | None


class _Memory:
    """Keys and values of all rows: for each layer and both, float (slots, key heads, head size)."""

    def __init__(self, config: PretrainedConfig, slots: int, like: torch.Tensor) -> None:
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        shape = (config.num_hidden_layers, 2, slots, config.num_key_value_heads, size)
        self.kept = like.new_empty(shape)
        self.slots = slots

    def copy_start(self, other: _Memory, first: int) -> None:
        """Write all that `other` keeps into the slots from `first` on."""
        self.kept[:, :, first : first + other.slots] = other.kept


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float,
    memory: _Memory,
    slots: torch.Tensor,
    spans: Sequence[_Span],
    **unused: object,
) -> tuple[torch.Tensor, None]:
    """Attention of transformers' AttentionInterface, for rows behind one another: (1, heads, tokens, head size) each.

    The query heads that share a key head are folded into the tokens, so that no key is copied for them. slots: where
    each token's key and value go. Returns (1, tokens, heads, head size).
    """
    keys, values = memory.kept[module.layer_idx]  # type: ignore[index]  # an int that torch's module types as a tensor
    keys.index_copy_(0, slots, key[0].transpose(0, 1))
    values.index_copy_(0, slots, value[0].transpose(0, 1))
    _, heads, tokens, size = query.shape
    shared = key.shape[1]
    told = query.new_empty(tokens, heads, size)
    for span in spans:
        result = scaled_dot_product_attention(
            query[:, :, span.start : span.stop].reshape(1, shared, -1, size),
            keys[None, span.first : span.last].transpose(1, 2),
            values[None, span.first : span.last].transpose(1, 2),
            attn_mask=span.mask,
            scale=scaling,
        )
        told[span.start : span.stop] = result.reshape(heads, -1, size).transpose(0, 1)
    return told[None], None


@dataclass
class _Row:
    """A description in the making: its guide, the tokens the model has not seen yet, its slots in memory."""

    guide: Guide
    pending: list[int]
    first: int
    last: int


class GuidedDecoder:
    """A causal language model with a fixed prompt start, which `write` continues along guides.

    It changes the model's attention to `packed_attention`, so the model serves nothing else. Only for models whose
    layers all attend to everything before, such as Llama. prefix: the tokens that every prompt starts with.
    """

    def __init__(self, model: PreTrainedModel, prefix: Sequence[int]) -> None:
        AttentionInterface.register(ATTENTION, packed_attention)
        model.set_attn_implementation(ATTENTION)
        self._model = model
        # the output layer; many models share it with the embeddings
        self._head: torch.Tensor = model.get_output_embeddings().weight.detach()
        self._groups: int = model.config.num_attention_heads // model.config.num_key_value_heads
        self._length = len(prefix)
        self._prefix = _Memory(model.config, self._length, self._head)
        self._memory = self._prefix  # grows with the batches, and is used again
        with torch.inference_mode():
            self._run([(list(prefix), 0, 0)], self._prefix)

    def write(self, prompts: Sequence[Sequence[int]], guides: Sequence[Guide], most: int) -> None:
        """Continue each prompt (tokens after the prefix) along its guide, until done or `most` tokens are written."""
        rooms = [self._length + len(prompt) + most for prompt in prompts]
        if sum(rooms) > self._memory.slots:
            self._memory = _Memory(self._model.config, sum(rooms), self._head)
        rows: list[_Row] = []
        with torch.inference_mode():
            for i, (prompt, guide) in enumerate(zip(prompts, guides, strict=True)):
                first = sum(rooms[:i])
                self._memory.copy_start(self._prefix, first)
                rows.append(_Row(guide, [*prompt, *_forced(guide, most)], first, first + self._length))
            while rows := [row for row in rows if not row.guide.done and len(row.guide.tokens) < most]:
                self._advance(rows, most)

    def _advance(self, rows: list[_Row], most: int) -> None:
        """Ask the model once for every row, and take what it chooses."""
        hidden = self._run([(row.pending, row.first, row.last) for row in rows], self._memory)
        for row, state in zip(rows, hidden, strict=True):
            row.last += len(row.pending)
            choice = self._choose(state, row.guide.allowed())
            row.guide.take(choice)
            row.pending = [choice, *_forced(row.guide, most)]

    def _choose(self, hidden: torch.Tensor, allowed: list[int]) -> int:
        logits = self._head[allowed].float() @ hidden.float()
        return allowed[int(logits.argmax())]

    def _run(self, rows: Sequence[tuple[list[int], int, int]], memory: _Memory) -> torch.Tensor:
        """Let the model see new tokens: (tokens, the row's first slot, the slot after its last one) for each row.

        Returns the hidden state after each row's last token: float (rows, hidden).
        """
        device = self._head.device
        tokens = [token for new, _, _ in rows for token in new]
        slots = [slot for new, _, last in rows for slot in range(last, last + len(new))]
        positions = [slot for new, first, last in rows for slot in range(last - first, last - first + len(new))]
        spans: list[_Span] = []
        stop = 0
        for new, first, last in rows:
            start, stop = stop, stop + len(new)
            spans.append(_Span(start, stop, first, last + len(new), self._mask(len(new), last + len(new) - first)))
        output = self._model.base_model(
            input_ids=torch.tensor([tokens], device=device),
            position_ids=torch.tensor([positions], device=device),
            use_cache=False,
            memory=memory,
            slots=torch.tensor(slots, device=device),
            spans=spans,
        )
        hidden: torch.Tensor = output.last_hidden_state[0, [span.stop - 1 for span in spans]]
        return hidden

    def _mask(self, new: int, length: int) -> torch.Tensor | None:
        """Each of the last `new` of `length` tokens sees itself and what stands before it."""
        if new == 1:
            return None
        hidden = self._head.new_full((new, length), float("-inf")).triu(length - new + 1)
        return hidden.repeat(self._groups, 1)


def _forced(guide: Guide, most: int) -> list[int]:
    """Take the tokens that the guide leaves no choice about, and return them."""
    taken: list[int] = []
    while not guide.done and len(guide.tokens) < most and len(allowed := guide.allowed()) == 1:
        guide.take(allowed[0])
        taken.append(allowed[0])
    return taken
