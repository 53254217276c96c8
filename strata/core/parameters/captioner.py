"""Parameters of the captioner's back ends, and of Qwen3-VL, but not of chat servers."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from strata.core.parameters.base import Parameters


class CaptionerParameters(Parameters):
    """The maximum output lengths, in tokens, for whole images and for crops.

    30 for crops is the value of Monkey's data pipeline (arXiv 2311.06607); a longer text is not a phrase any more.
    """

    scene_tokens: int = Field(default=100, ge=1)
    crop_tokens: int = Field(default=30, ge=1)


class FlorenceCaptionerParameters(CaptionerParameters):
    """The Florence-2 tasks for whole images and for crops, as the model card writes them."""

    scene_task: str = "<DETAILED_CAPTION>"
    crop_task: str = "<CAPTION>"


class Blip2CaptionerParameters(CaptionerParameters):
    """The text that the model continues, for whole images and for crops; empty as in BLIP-2's own captioning.

    scene_beams: beams of the search for whole images; 1 is greedy. Crops are always decoded greedily.
    """

    scene_prompt: str = ""
    crop_prompt: str = ""
    scene_beams: int = Field(default=1, ge=1)


class ScenePrompts(Parameters):
    """The prompts for whole images and for crops, and the maximum output lengths in tokens.

    30 for crops is the value of Monkey's data pipeline; a longer text is not a phrase any more.
    """

    scene_prompt: str = "Describe this picture in one or two plain sentences: what is there, how it looks, and where."
    crop_prompt: str = (
        "What is the thing in this picture? Answer with a short noun phrase that names it and how it looks, such as "
        '"a red car". White around it is cut away and not to be mentioned.'
    )
    scene_tokens: int = Field(default=100, ge=1)
    crop_tokens: int = Field(default=30, ge=1)


class QwenVLParameters(Parameters):
    """The prompts for whole images and for crops, and the maximum output length of each, in tokens.

    min_pixels, max_pixels: an image is resized to an area between them; a token represents 32×32 of its pixels.
    The prompts have no default: they belong in the profile, and so in the fingerprint.
    """

    scene_prompt: str = Field(min_length=1)
    crop_prompt: str = Field(min_length=1)
    scene_tokens: int = Field(default=200, ge=1)
    crop_tokens: int = Field(default=30, ge=1)
    min_pixels: int = Field(default=65_536, ge=1024)
    max_pixels: int = Field(default=1_048_576, ge=1024)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_pixels > self.max_pixels:
            raise ValueError(f"min_pixels {self.min_pixels} is larger than max_pixels {self.max_pixels}")
        return self
