"""Greedy decoding constrained by guides: many descriptions in a batch; their common start is computed once.

If a guide allows a single token, it is accepted without a choice of the model and passes through the model together
with the next tokens. Only the logits of the allowed tokens are computed. The rows of a batch are concatenated to one
sequence instead of being padded to the longest, and their keys and values are written in place into one block of
memory. So a row costs as much as its own tokens, and its attention is computed as for a batch of one.
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
    """The new tokens of one row: `start:stop` of the sequence. The row's slots are `first:last`, the new ones last.

    mask: (query heads per key head x tokens, slots), added to the attention scores; None for a single token.
    """

    start: int
    stop: int
    first: int
    last: int
    mask: torch.Tensor | None


class _KeyValues:
    """The keys and values of all rows. values: float (layers, 2, slots, key heads, head size)."""

    def __init__(self, config: PretrainedConfig, slots: int, like: torch.Tensor) -> None:
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        shape = (config.num_hidden_layers, 2, slots, config.num_key_value_heads, size)
        self.values = like.new_empty(shape)
        self.slots = slots

    def copy_start(self, other: _KeyValues, first: int) -> None:
        """Copy all slots of `other` into the slots from `first` on."""
        self.values[:, :, first : first + other.slots] = other.values


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float,
    memory: _KeyValues,
    slots: torch.Tensor,
    spans: Sequence[_Span],
    **unused: object,
) -> tuple[torch.Tensor, None]:
    """An attention function of transformers' AttentionInterface for concatenated rows.

    query, key, value: (1, heads, tokens, head size). The query heads that share a key head (grouped-query attention)
    are folded into the token axis, so that keys need not be repeated. slots: the slot for each token's key and value.
    Returns (1, tokens, heads, head size).
    """
    # store the new keys and values
    keys, values = memory.values[module.layer_idx]  # type: ignore[index]  # an int that torch's module types as a tensor
    keys.index_copy_(0, slots, key[0].transpose(0, 1))
    values.index_copy_(0, slots, value[0].transpose(0, 1))
    # each row attends to its own slots only
    _, heads, tokens, size = query.shape
    shared = key.shape[1]
    output = query.new_empty(tokens, heads, size)
    for span in spans:
        result = scaled_dot_product_attention(
            query[:, :, span.start : span.stop].reshape(1, shared, -1, size),
            keys[None, span.first : span.last].transpose(1, 2),
            values[None, span.first : span.last].transpose(1, 2),
            attn_mask=span.mask,
            scale=scaling,
        )
        output[span.start : span.stop] = result.reshape(heads, -1, size).transpose(0, 1)
    return output[None], None


@dataclass
class _Row:
    """A description in progress: its guide, the tokens that have not passed through the model yet, its slots."""

    guide: Guide
    pending: list[int]
    first: int
    last: int


class GuidedDecoder:
    """A causal language model with a fixed prompt start; `write` continues prompts as guides allow.

    It sets the model's attention to `packed_attention`, so the model cannot be used otherwise. It supports only models
    whose layers all attend to all previous tokens, such as Llama. prefix: the tokens that every prompt starts with.
    """

    def __init__(self, model: PreTrainedModel, prefix: Sequence[int]) -> None:
        AttentionInterface.register(ATTENTION, packed_attention)
        model.set_attn_implementation(ATTENTION)
        self._model = model
        # the output layer's weights (vocabulary, hidden); many models share them with the embeddings
        self._head: torch.Tensor = model.get_output_embeddings().weight.detach()
        self._groups: int = model.config.num_attention_heads // model.config.num_key_value_heads
        self._length = len(prefix)
        self._prefix = _KeyValues(model.config, self._length, self._head)
        self._memory = self._prefix  # grows with the batches, and is reused
        # compute the keys and values of the prefix once
        with torch.inference_mode():
            self._run([(list(prefix), 0, 0)], self._prefix)

    def write(self, prompts: Sequence[Sequence[int]], guides: Sequence[Guide], most: int) -> None:
        """Continue each prompt (its tokens after the prefix) until its guide is done or `most` tokens are written.

        The result is in the guides' `tokens`.
        """
        # reserve slots for the longest possible result of each row
        slot_counts = [self._length + len(prompt) + most for prompt in prompts]
        if sum(slot_counts) > self._memory.slots:
            self._memory = _KeyValues(self._model.config, sum(slot_counts), self._head)
        rows: list[_Row] = []
        with torch.inference_mode():
            # each row starts with the prefix's keys and values; the tokens of its prompt are pending
            for i, (prompt, guide) in enumerate(zip(prompts, guides, strict=True)):
                first = sum(slot_counts[:i])
                self._memory.copy_start(self._prefix, first)
                rows.append(_Row(guide, [*prompt, *_forced(guide, most)], first, first + self._length))
            # one token or more for every row per turn; complete rows leave the batch
            while rows := [row for row in rows if not row.guide.done and len(row.guide.tokens) < most]:
                self._advance(rows, most)

    def _advance(self, rows: list[_Row], most: int) -> None:
        """Run the model once for all rows, and let each guide accept the chosen token."""
        hidden = self._run([(row.pending, row.first, row.last) for row in rows], self._memory)
        for row, state in zip(rows, hidden, strict=True):
            row.last += len(row.pending)
            choice = self._choose(state, row.guide.allowed())
            row.guide.accept(choice)
            row.pending = [choice, *_forced(row.guide, most)]

    def _choose(self, hidden: torch.Tensor, allowed: list[int]) -> int:
        """The allowed token with the highest logit. hidden: (hidden,)."""
        logits = self._head[allowed].float() @ hidden.float()
        return allowed[int(logits.argmax())]

    def _run(self, rows: Sequence[tuple[list[int], int, int]], memory: _KeyValues) -> torch.Tensor:
        """Pass new tokens through the model. rows: tokens, the row's first slot, the slot after its last token.

        Returns the hidden state after each row's last token: float (rows, hidden).
        """
        # concatenate the rows' tokens; positions count from the start of each row
        device = self._head.device
        tokens = [token for new, _, _ in rows for token in new]
        slots = [slot for new, _, last in rows for slot in range(last, last + len(new))]
        positions = [slot for new, first, last in rows for slot in range(last - first, last - first + len(new))]
        # the part of the sequence and the slots that belong to each row
        spans: list[_Span] = []
        stop = 0
        for new, first, last in rows:
            start, stop = stop, stop + len(new)
            spans.append(_Span(start, stop, first, last + len(new), self._mask(len(new), last + len(new) - first)))
        # transformers passes unknown arguments on to the attention function
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
        """The causal mask of the last `new` of `length` tokens: each attends to itself and to all tokens before it."""
        if new == 1:
            return None
        hidden = self._head.new_full((new, length), float("-inf")).triu(length - new + 1)
        return hidden.repeat(self._groups, 1)


def _forced(guide: Guide, most: int) -> list[int]:
    """Accept tokens as long as the guide allows a single one, and return them."""
    taken: list[int] = []
    while not guide.done and len(guide.tokens) < most and len(allowed := guide.allowed()) == 1:
        guide.accept(allowed[0])
        taken.append(allowed[0])
    return taken
