"""Parameters of the composer's back ends, but not of chat servers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from strata.core.parameters.base import Parameters, PromptParameters


class TransformersComposerParameters(PromptParameters):
    """grounded: decode along the notes (for small models, see `models.demo.grounding`) instead of freely.

    precision: "int8" runs on the CPU, the others on the GPU if there is one. max_new_tokens: maximum length of a
    description. max_notes: the notes beyond this number, those with the lowest scores, are left out.
    """

    prompt: str = "small"
    grounded: bool = True
    precision: Literal["int8", "float32", "bfloat16"] = "int8"
    max_new_tokens: int = Field(default=200, ge=1)
    max_notes: int = Field(default=12, ge=1)

    @property
    def follows_instructions(self) -> bool:
        """Grounded decoding leaves the model no other words."""
        return not self.grounded

    @property
    def needs_wording(self) -> bool:
        """Grounded decoding takes the words between the notes from the prompt's table `[wording]`."""
        return self.grounded


class AskedComposerParameters(PromptParameters):
    """What is asked of a chat model, on a server or in vLLM's engine.

    with_image: the image is given with the notes; an image without any notes is then described too.

    max_new_tokens: maximum length of a description. max_notes: the notes beyond this number, those with the lowest
    scores, are left out.
    """

    prompt: str = "full"
    with_image: bool = False
    max_new_tokens: int = Field(default=400, ge=1)
    max_notes: int = Field(default=40, ge=1)


class QwenVLComposerParameters(PromptParameters):
    """max_new_tokens: maximum length of a description. max_notes: the notes beyond this number, those with the lowest
    scores, are left out. It gets the notes, not the image.
    """

    prompt: str = "full"
    max_new_tokens: int = Field(default=400, ge=1)
    max_notes: int = Field(default=60, ge=1)


class CountingComposerParameters(Parameters):
    """max_notes: the kinds beyond this number, the smallest ones, and further lines of text are left out."""

    max_notes: int = Field(default=12, ge=1)
