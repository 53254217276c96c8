"""Generation with transformers: its settings for a first and a second try, and whether a text was cut.

It imports torch only where it is used: a worker whose composer has no model of torch does without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_SEED = 0  # of a second try, so that the same batch gives the same texts


def search_settings(variation: float, beams: int = 1) -> dict[str, Any]:
    """The arguments of `generate` for greedy or beam search; with a variation (a temperature) for sampling.

    The sampling settings of a checkpoint are unset in a search, or transformers would warn about them.
    """
    if not variation:
        return {"num_beams": beams, "do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    import torch

    torch.manual_seed(_SEED)
    return {"num_beams": 1, "do_sample": True, "temperature": variation, "top_p": 0.9, "top_k": 50}


def were_cut(tokens: Tensor, model: Any) -> list[bool]:
    """Whether each row of generated tokens (N, L), without the start token, has no end token.

    model: that whose `generate` ran; BLIP-2's passes the call on to its language model, which has settings of its own.
    """
    import torch

    writer = getattr(model, "language_model", model)
    found = getattr(writer, "generation_config", model.generation_config).eos_token_id
    if found is None:  # then nobody knows where a text ends
        return [False] * len(tokens)
    ends = torch.tensor(found if isinstance(found, list) else [found], device=tokens.device)
    cut: list[bool] = (~torch.isin(tokens, ends).any(dim=1)).tolist()
    return cut
