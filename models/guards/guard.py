"""One text through the guards: cleaned, cut back to whole sentences, and judged."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from models.guards.cleaning import cleaned
from models.guards.faults import echo, loop, misquoted, question_back, refusal, wordless
from models.guards.languages import ENGLISH, is_foreign, language_of
from models.sentences import whole_sentences

Form = Literal["text", "phrase"]
MAX_CHARACTERS = 8000  # of a text that is read at all: 1,000 tokens are some 5,000
LONGEST_PHRASE = 25  # words; a crop's phrase names one thing

# what a rejected text is told to be in the row's note
REASONS = {
    "empty": "the model wrote nothing",
    "no words": "the model's text has no word",
    "cut": "the text has no whole sentence within its token limit",
    "refusal": "the model refused to answer, or saw no image",
    "question": "the model asked back instead of answering",
    "loop": "the model repeated itself",
    "echo": "the model repeated the prompt",
    "language": "the text is not in the language that was asked for",
    "long": "the phrase is longer than a phrase",
    "quotation": "a quotation of text in the picture is missing or changed",
}


@dataclass(frozen=True)
class Asked:
    """What a text was asked for: the form, the instructions (without notes), and the language (ISO 639-1).

    quotations: what it must quote letter by letter.
    """

    form: Form = "text"
    prompts: tuple[str, ...] = ()
    language: str = ENGLISH
    quotations: tuple[str, ...] = ()

    @classmethod
    def by(cls, prompt: str, form: Form = "text", language: str | None = None) -> Asked:
        """What a prompt asks for. language: None for the language in which the prompt is written."""
        return cls(form, (prompt,), language or language_of(prompt))


@dataclass(frozen=True)
class Guarded:
    """A text that may become part of a record, or the name of the guard that rejected it (a key of REASONS)."""

    text: str
    rejected: str | None = None

    @property
    def reason(self) -> str:
        """Why the text was rejected, and how it began."""
        return f"{REASONS[self.rejected]}: {self.text[:120]!r}" if self.rejected else ""


def guarded(text: str, asked: Asked, cut: bool = False) -> Guarded:
    """Clean a text and judge it. cut: it ended at its token limit, so that its last sentence may be incomplete."""
    answer = cleaned(text[:MAX_CHARACTERS])
    cut = cut or len(text) > MAX_CHARACTERS
    # judge the text before it is cut back, so that the reason is the true one
    for check in _checks(asked):
        if name := check(answer):
            return Guarded(answer, name)
    if asked.form == "phrase":
        return _phrase(answer, cut)
    if cut:
        whole = whole_sentences(answer)
        return Guarded(" ".join(whole)) if whole else Guarded(answer, "cut")
    return Guarded(answer)


def _phrase(answer: str, cut: bool) -> Guarded:
    """A phrase whose end is missing is none; nor is a paragraph."""
    if cut:
        return Guarded(answer, "cut")
    return Guarded(answer, "long" if len(answer.split()) > LONGEST_PHRASE else None)


def _checks(asked: Asked) -> list[Callable[[str], str | None]]:
    """The checks in their order: what is said first is the better reason."""
    return [
        wordless,
        refusal,
        question_back,
        loop,
        functools.partial(echo, prompts=asked.prompts),
        _language(asked),
        functools.partial(misquoted, quotations=asked.quotations),
    ]


def _language(asked: Asked) -> Callable[[str], str | None]:
    return lambda text: "language" if is_foreign(text, asked.language) else None
