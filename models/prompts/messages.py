"""The chat messages of a request: for a description, at a length, with a job's own prompt; or for a translation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from models.guards import Asked, quotations
from models.items import ComposeRequest
from models.prompts import Prompt
from models.prompts.lengths import LENGTHS
from strata.core import LANGUAGES

NO_NOTES = "There are no notes on this picture."
_TRANSLATE = (
    "You translate the caption of a picture into {language}. Answer with the translation alone, in as many sentences "
    "as the caption has. Add nothing and leave nothing out. What stands in quotation marks is text in the picture: "
    "copy it letter by letter, in straight quotation marks, and do not translate it."
)


def system_of(prompt: Prompt, request: ComposeRequest) -> str:
    """The system message of a request."""
    if request.original:
        return _TRANSLATE.format(language=LANGUAGES[request.language])
    instruction = LENGTHS[request.length].instruction
    return f"{prompt.system}\n- {instruction}" if instruction else prompt.system


def messages_of(prompt: Prompt, request: ComposeRequest, notes: str) -> list[dict[str, str]]:
    """The chat messages of a request. notes: of its record; "" for those of a translation."""
    system = system_of(prompt, request)
    if request.original:
        return [{"role": "system", "content": system}, {"role": "user", "content": request.original}]
    # what an earlier text said wrongly, and what the job asks for, come after the notes
    notes = with_prompt(with_errors(notes or NO_NOTES, request.errors), request.prompt)
    return prompt.messages(notes, system)


def with_errors(notes: str, errors: Sequence[str]) -> str:
    """The notes with what an earlier text said wrongly, each in one line; without errors the notes themselves."""
    if not errors:
        return notes
    lines = [f"- {' '.join(error.split())}" for error in errors]
    return "\n".join([f"{notes}\n\nAn earlier text said these things, which are wrong. Do not say them:", *lines])


def with_prompt(notes: str, prompt: str) -> str:
    """The notes with a job's own instruction after them."""
    return f"{notes}\n\nWhat is asked beside the rules, as far as the notes support it:\n{prompt}" if prompt else notes


def asked_by(prompt: Prompt, request: ComposeRequest, language: str | None = None) -> Asked:
    """What the guards compare the text of a request with. language: of the prompt's texts, None for its own."""
    system = system_of(prompt, request)
    prompts = (system, request.prompt) if request.prompt else (system,)
    if request.original:
        return Asked("text", prompts, request.language, quotations(request.original))
    return replace(Asked.by(prompt.system, "text", language), prompts=prompts)
