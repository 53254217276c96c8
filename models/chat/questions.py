"""Questions to a chat server and its answers: messages, completions, token counts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx
from pydantic import BaseModel, Field, SecretStr, ValidationError

from models.guards import cleaned, printable
from strata.core import MOST, ChatParameters, Usage

TEMPLATE_TOKENS = 64  # upper bound on the tokens that a chat template adds to a message
# why an answer has ended; others, such as content_filter, error and abort, are no answer
_USABLE_ENDS = (None, "", "stop", "length", "eos", "eos_token", "end_turn", "stop_sequence", "max_tokens", "completed")
_CUT_ENDS = ("length", "max_tokens")


@dataclass(frozen=True)
class Question:
    """A chat request. max_tokens: limit of the answer; prompt_tokens: upper bound on the tokens of the messages.

    temperature: None for that of the parameters. fields: further fields of the request, such as `response_format`.
    """

    messages: list[dict[str, Any]]
    max_tokens: int
    prompt_tokens: int
    temperature: float | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def bound(self) -> Usage:
        """Upper bound on the usage of one try."""
        return Usage(prompt_tokens=self.prompt_tokens, completion_tokens=self.max_tokens, requests=1)


@dataclass(frozen=True)
class ChatAnswer:
    """An answer's text as it came, or its fault. cut: the text was truncated at max_tokens.

    transient: there was no answer, or an error of the server, so that the same question may have an answer later.
    counted: the response has the server's own count of tokens, so that a model has answered and not, say, a proxy.
    refused: the server refused the request itself, by a status such as 400.
    """

    text: str
    fault: str | None
    cut: bool
    usage: Usage
    transient: bool = False
    counted: bool = False
    refused: bool = False


class _Part(BaseModel):
    """A part of a content that is a list; parts of other types have no text."""

    type: str = "text"
    text: str | None = None


class _Message(BaseModel):
    content: str | list[_Part | str] | None = None
    refusal: str | None = None

    @property
    def text(self) -> str:
        """The content as one text, without parts such as `reasoning`."""
        if not isinstance(self.content, list):
            return self.content or ""
        parts = [_Part(text=part) if isinstance(part, str) else part for part in self.content]
        return "".join(part.text or "" for part in parts if part.type in ("text", "output_text"))


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Count(BaseModel):
    prompt_tokens: int = Field(ge=0, le=MOST)
    completion_tokens: int = Field(default=0, ge=0, le=MOST)


class _Counted(BaseModel):
    usage: _Count


class _Completion(BaseModel):
    choices: list[_Choice] = Field(min_length=1)


def prompt_bound(texts: Sequence[str], images: int, parameters: ChatParameters) -> int:
    """Upper bound on the tokens of messages with these texts and this number of images.

    The byte-level and byte-fallback tokenizers of chat models make at most one token per byte.
    """
    return sum(len(text.encode()) + TEMPLATE_TOKENS for text in texts) + images * parameters.image_tokens


def read_answer(response: httpx.Response, question: Question, secret: SecretStr) -> ChatAnswer:
    """Parse a response with a status of success. `fault` is set if the answer cannot be used; it never has the secret.

    The usage is the server's count, or the question's upper bound if the server gives none.
    """
    # the usage first: an answer that cannot be parsed may have been charged
    body = _parsed(response.content)
    count = _usage(body)
    usage, counted = count or question.bound, count is not None
    try:
        choice = _Completion.model_validate(body).choices[0]
    except ValidationError:
        fault = f"the server's answer is not a chat completion: {start_of(response, secret)!r}"
        return ChatAnswer("", fault, False, usage, counted=counted)
    message, end = choice.message, choice.finish_reason
    text, fault = without(secret, printable(message.text)), ""
    # a text that the server has stopped or replaced is not what the model says of the image
    if end not in _USABLE_ENDS:
        fault = f"the server gave no answer (finish_reason {end})"
    elif message.refusal and not text.strip():
        fault = f"the server refused to answer: {' '.join(message.refusal.split())[:200]}"
    elif not cleaned(text):
        fault = f"the server's answer is empty (finish_reason {end})"
    if fault:
        return ChatAnswer("", without(secret, fault), False, usage, counted=counted)
    return ChatAnswer(text, None, end in _CUT_ENDS, usage, counted=counted)


def _parsed(content: bytes) -> Any:
    """The JSON of a response, also with a byte order mark and with halves of surrogate pairs; None if it is none."""
    try:
        return json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None


def _usage(body: Any) -> Usage | None:
    """The token counts in a response; None if they are missing or not valid."""
    try:
        count = _Counted.model_validate(body).usage
    except ValidationError:
        return None
    return Usage(prompt_tokens=count.prompt_tokens, completion_tokens=count.completion_tokens, requests=1)


def start_of(response: httpx.Response, secret: SecretStr) -> str:
    """The first 200 characters of a response's text, in one line and without the secret."""
    # mask before the text is cut, or a part of the secret may remain at the end
    return without(secret, " ".join(response.text.split()))[:200]


def without(secret: SecretStr, text: str) -> str:
    """The text with three asterisks in place of the secret, also as JSON or an address writes it."""
    plain = secret.get_secret_value()
    if not plain:
        return text
    quoted = json.dumps(plain)[1:-1]
    forms = {plain, quoted, quoted.replace("/", "\\/"), repr(plain)[1:-1], quote(plain), quote(plain, safe="")}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, "***")
    return text
