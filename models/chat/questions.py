"""Questions to a chat server, and its answers: messages, completions, token counts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from pydantic import BaseModel, Field, ValidationError

from strata.core import MOST, ChatParameters, Usage

TEMPLATE_TOKENS = 64  # an upper bound on what a chat template adds to a message
_THOUGHT = re.compile(r"\s*<think>.*?(</think>|\Z)", re.S)


@dataclass(frozen=True)
class Question:
    """Chat messages. max_tokens: limit of the answer; prompt_tokens: upper bound on the tokens of the messages."""

    messages: list[dict[str, Any]]
    max_tokens: int
    prompt_tokens: int

    @property
    def bound(self) -> Usage:
        """Upper bound on what one try uses."""
        return Usage(prompt_tokens=self.prompt_tokens, completion_tokens=self.max_tokens, requests=1)


@dataclass(frozen=True)
class ChatAnswer:
    """The answer's text in one line, or its fault. cut: the text ends because max_tokens was reached."""

    text: str
    fault: str | None
    cut: bool
    usage: Usage


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

    The byte-level and byte-fallback tokenizers of chat models make at most one token of a byte.
    """
    return sum(len(text.encode()) + TEMPLATE_TOKENS for text in texts) + images * parameters.image_tokens


def read_answer(response: httpx.Response, question: Question) -> ChatAnswer:
    """The answer in a response with a status of success; `fault` says what is wrong with it, if anything.

    The usage is the server's count, or the question's upper bound if the server gives none.
    """
    usage = _usage(response.content, question)
    try:
        choice = _Completion.model_validate_json(response.content).choices[0]
    except ValidationError:
        return ChatAnswer("", f"the server's answer is no completion: {start_of(response)!r}", False, usage)
    text = " ".join(_THOUGHT.sub("", choice.message.content or "", count=1).split())
    fault = None if text else f"the server's answer is empty (finish_reason {choice.finish_reason})"
    return ChatAnswer(text, fault, choice.finish_reason == "length", usage)


def _usage(content: bytes, question: Question) -> Usage:
    try:
        count = _Counted.model_validate_json(content).usage
    except ValidationError:
        return question.bound
    return Usage(prompt_tokens=count.prompt_tokens, completion_tokens=count.completion_tokens, requests=1)


def start_of(response: httpx.Response) -> str:
    """The first 200 characters of a response's text, in one line."""
    return " ".join(response.text.split())[:200]
