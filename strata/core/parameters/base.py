"""The bases of all parameter classes."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Parameters(BaseModel):
    """Base of a back end's parameters: unknown names, values of another type, NaN and infinity are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @property
    def follows_instructions(self) -> bool:
        """Of a composer: whether it can be asked for another length, another language, or anything else."""
        return False


class PromptParameters(Parameters):
    """Parameters that name a prompt file and its sha256, so that the fingerprint covers the prompt's text."""

    prompt: str
    prompt_sha256: str

    @property
    def follows_instructions(self) -> bool:
        """True: a model reads the prompt."""
        return True

    @property
    def needs_wording(self) -> bool:
        """Whether the prompt file must have a table `[wording]`."""
        return False
