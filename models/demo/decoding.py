"""Greedy decoding constrained by guides: many descriptions in a batch; their common start is computed once.

If a guide allows a single token, it is accepted without a choice of the model and passes through the model together
with the next tokens. Only the logits of the allowed tokens are computed. The rows of a batch are concatenated to one
sequence instead of being padded to the longest, and their keys and values are written in place into one block of
memory. So a row costs as much as its own tokens, and its attention is computed as for a batch of one.

The memory is bounded, whatever the prompts are: rows are written in groups of at most SLOTS_AT_ONCE, and the model gets
at most TOKENS_AT_ONCE new tokens in one pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PretrainedConfig, PreTrainedModel

from models.demo.grounding import Guide

ATTENTION = "strata_packed"
# tokens whose keys and values are in memory: 46 kB each in SmolLM2-135M in float32, 377 MB together
SLOTS_AT_ONCE = 8192
TOKENS_AT_ONCE = 1024  # new tokens in one pass; the mask of as many in a row of 8,192 takes 100 MB


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
        # compute the keys and values of the prefix once
        with torch.inference_mode():
            self._run([(list(prefix), 0, 0)], self._prefix)

    def longest(self, most: int) -> int:
        """How many tokens a prompt may have after the prefix, if `most` are written.

        The limits are the longest text that the model was trained on, and SLOTS_AT_ONCE.
        """
        window = int(getattr(self._model.config, "max_position_embeddings", SLOTS_AT_ONCE))
        return max(1, min(window, SLOTS_AT_ONCE) - self._length - most)

    @torch.inference_mode()
    def write(self, prompts: Sequence[Sequence[int]], guides: Sequence[Guide], most: int) -> None:
        """Continue each prompt (its tokens after the prefix) until its guide is done or `most` tokens are written.

        The result is in the guides' `tokens`.
        """
        # reserve slots for the longest possible result of each row
        slot_counts = [self._length + len(prompt) + most for prompt in prompts]
        for group in parts(slot_counts, SLOTS_AT_ONCE):
            memory = _KeyValues(self._model.config, sum(slot_counts[i] for i in group), self._head)
            rows: list[_Row] = []
            first = 0
            # each row starts with the prefix's keys and values; the tokens of its prompt are pending
            for i in group:
                memory.copy_start(self._prefix, first)
                pending = [*prompts[i], *_forced(guides[i], most)]
                rows.append(_Row(guides[i], pending, first, first + self._length))
                first += slot_counts[i]
            # one token or more for every row per turn; complete rows leave the batch
            while rows := [row for row in rows if not row.guide.done and len(row.guide.tokens) < most]:
                self._advance(rows, memory, most)

    def _advance(self, rows: list[_Row], memory: _KeyValues, most: int) -> None:
        """Run the model for all rows, and let each guide accept the chosen token."""
        # of a long prompt all but the last tokens pass alone
        for row in rows:
            while len(row.pending) > TOKENS_AT_ONCE:
                passing, row.pending = row.pending[:TOKENS_AT_ONCE], row.pending[TOKENS_AT_ONCE:]
                self._run([(passing, row.first, row.last)], memory)
                row.last += TOKENS_AT_ONCE
        # many rows together, as far as their tokens fit into one pass
        for part in parts([len(row.pending) for row in rows], TOKENS_AT_ONCE):
            chosen = [rows[i] for i in part]
            hidden = self._run([(row.pending, row.first, row.last) for row in chosen], memory)
            for row, state in zip(chosen, hidden, strict=True):
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


def parts(sizes: Sequence[int], most: int) -> Iterator[range]:
    """The indices of things of these sizes, in order, in parts of at most `most` together; one alone may be larger."""
    start = total = 0
    for i, size in enumerate(sizes):
        if i > start and total + size > most:
            yield range(start, i)
            start, total = i, 0
        total += size
    if start < len(sizes):
        yield range(start, len(sizes))
