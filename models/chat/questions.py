"""Questions to a chat server and its answers: messages, completions, token counts."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx
from pydantic import BaseModel, Field, SecretStr, ValidationError

from strata.core import MOST, ChatParameters, Usage

TEMPLATE_TOKENS = 64  # upper bound on the tokens that a chat template adds to a message
# the reasoning that some models write before their answer; its end may be missing if the tokens ran out
_THOUGHT = re.compile(r"\s*<think>.*?(</think>|\Z)", re.S)


@dataclass(frozen=True)
class Question:
    """A chat request. max_tokens: limit of the answer; prompt_tokens: upper bound on the tokens of the messages."""

    messages: list[dict[str, Any]]
    max_tokens: int
    prompt_tokens: int

    @property
    def bound(self) -> Usage:
        """Upper bound on the usage of one try."""
        return Usage(prompt_tokens=self.prompt_tokens, completion_tokens=self.max_tokens, requests=1)


@dataclass(frozen=True)
class ChatAnswer:
    """An answer's text in one line, or its fault. cut: the text was truncated at max_tokens.

    transient: there was no answer, or an error of the server, so that the same question may have an answer later.
    counted: the response has the server's own count of tokens, so that a model has answered and not, say, a proxy.
    """

    text: str
    fault: str | None
    cut: bool
    usage: Usage
    transient: bool = False
    counted: bool = False


class _Message(BaseModel):
    content: str | None = None


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
    count = _usage(response.content)
    usage, counted = count or question.bound, count is not None
    try:
        choice = _Completion.model_validate_json(response.content).choices[0]
    except ValidationError:
        fault = f"the server's answer is not a chat completion: {start_of(response, secret)!r}"
        return ChatAnswer("", fault, False, usage, counted=counted)
    # remove the reasoning, and put the text into one line
    text = without(secret, " ".join(_THOUGHT.sub("", choice.message.content or "", count=1).split()))
    empty = without(secret, f"the server's answer is empty (finish_reason {choice.finish_reason})")
    return ChatAnswer(text, None if text else empty, choice.finish_reason == "length", usage, counted=counted)


def _usage(content: bytes) -> Usage | None:
    """The token counts in a response; None if they are missing or not valid."""
    try:
        count = _Counted.model_validate_json(content).usage
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
