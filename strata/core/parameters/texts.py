"""Which texts are written from an image's layers: further variants, their language, and a prompt of one's own."""

from __future__ import annotations

from typing import Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator

from strata.core.parameters.languages import LANGUAGES
from strata.core.parameters.templates import fields_of

VariantName = Literal["short", "medium", "long", "tags", "json", "questions"]
VARIANTS: tuple[VariantName, ...] = get_args(VariantName)
LAYERED: tuple[VariantName, ...] = ("tags", "json", "questions")
"""The variants that follow from the layers by rules; the composer writes the others."""


class TextFields(BaseModel):
    """The fields by which a profile or a request says what texts it wants.

    variants: texts besides the description, all of the same evidence: its length, `tags`, `json` (the things with
    boxes, attributes and relations) and `questions` with answers. language: of all texts, a code of ISO 639-1; text
    that can be read in the image stays as it is. prompt: an instruction of one's own for the composer, in which
    `{name}` stands for a field of the sample's metadata. Null: as the profile has it.
    """

    variants: list[VariantName] | None = Field(default=None, max_length=len(VARIANTS))
    language: str | None = Field(default=None, pattern="^[a-z]{2}$")
    prompt: str | None = Field(default=None, min_length=1, max_length=4000)

    @field_validator("language")
    @classmethod
    def _known(cls, language: str | None) -> str | None:
        if language is not None and language not in LANGUAGES:
            raise ValueError(
                f"{language!r} is no language that texts can be checked in; there are {', '.join(LANGUAGES)}"
            )
        return language

    @field_validator("prompt")
    @classmethod
    def _template(cls, prompt: str | None) -> str | None:
        """Refuse a template with braces that hold no name."""
        if prompt is not None:
            fields_of(prompt)
        return prompt

    @field_validator("variants")
    @classmethod
    def _in_order(cls, variants: list[VariantName] | None) -> list[VariantName] | None:
        """Each once, in the order of VARIANTS: the same wish has the same fingerprint."""
        return None if variants is None else [name for name in VARIANTS if name in variants]


class TextSettings(TextFields):
    """What texts a job's `llm` group writes; a profile's table `[texts]`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def of(cls, fields: TextFields) -> Self:
        """The settings that a request names."""
        return cls(**{name: getattr(fields, name) for name in TextFields.model_fields})

    def over(self, base: TextSettings) -> TextSettings:
        """These settings, with those of `base` where they are null."""
        return base.model_copy(update=self.model_dump(exclude_none=True))

    def deciding(self) -> dict[str, Any]:
        """The settings that are set, for the fingerprint: a profile without any keeps the one it had."""
        return self.model_dump(exclude_none=True, exclude=None if self.variants else {"variants"})
