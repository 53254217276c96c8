"""Parameters of the tagger's back ends."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from strata.core.parameters.base import Parameters


class OpenClipTaggerParameters(Parameters):
    """words: those that can be tags; null: those of word_list, a file in `models/stages`. template: the text that is
    compared with the image, in which {} stands for the word; the default is CLIP's (arXiv 2103.00020, section 3.1.4).

    An image gets at most max_tags words that score at least threshold. What a good threshold is depends on the model:
    a model with a bias scores each word by itself (SigLIP often less than 0.1 even if the word is right, open_clip
    issue 716), a model without one divides a sum of 1 among all words.
    """

    words: list[str] | None = Field(default=None, min_length=1)
    word_list: Literal["coco-80"] = "coco-80"
    template: str = "a photo of a {}."
    max_tags: int = Field(default=10, ge=1)
    threshold: float = Field(default=0.1, ge=0, le=1)

    @field_validator("words")
    @classmethod
    def _distinct(cls, words: list[str] | None) -> list[str] | None:
        if words is not None and (len(set(words)) < len(words) or not all(word.strip() for word in words)):
            raise ValueError("a word is empty or stands there twice")
        return words

    @field_validator("template")
    @classmethod
    def _with_place(cls, template: str) -> str:
        if template.count("{}") != 1:
            raise ValueError("{} must stand in the template once, in the place of the word")
        return template


class ImageNetTaggerParameters(Parameters):
    """An image gets at most max_tags of ImageNet's 1000 classes, those with a probability of at least threshold."""

    max_tags: int = Field(default=5, ge=1, le=1000)
    threshold: float = Field(default=0.5, ge=0, le=1)
