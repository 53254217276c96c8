"""Parameters of the matcher's back ends, which the second matcher has too."""

from __future__ import annotations

from pydantic import Field, field_validator

from strata.core.parameters.base import Parameters


class OpenClipParameters(Parameters):
    """calibration: (scale, bias) for CLIP models, which have no bias of their own: their cosines were trained for
    ranking, so a probability needs a line fitted to the log odds of labelled pairs (Platt scaling). It is an
    error for models that have their own bias.
    """

    # a TOML array is a list, which strict mode does not accept as a tuple; its numbers are checked strictly
    calibration: tuple[float, float] | None = Field(default=None, strict=False)


class Question(Parameters):
    """question: what a model that sees images is asked about a crop; {} stands for the phrase."""

    question: str = "Does this picture show {}? Answer with yes or no."

    @field_validator("question")
    @classmethod
    def _with_place(cls, question: str) -> str:
        if question.count("{}") != 1:
            raise ValueError("{} must stand in the question once, in the place of the phrase")
        return question


class YesParameters(Question):
    """The probability of "Yes" that a model which sees images gives to a question about a crop.

    min_pixels, max_pixels: as for the captioner; a crop needs fewer than an image.
    """

    min_pixels: int = Field(default=65_536, ge=1024)
    max_pixels: int = Field(default=262_144, ge=1024)
