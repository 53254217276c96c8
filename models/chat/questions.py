"""What is asked of a chat server, and what its answers are: parameters, questions, completions, usage."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from pydantic import BaseModel, Field, ValidationError

from strata.core.parameters import ChatParameters
from strata.core.usage import MOST, Usage

TEMPLATE_TOKENS = 64  # what a chat template may write around a message
_THOUGHT = re.compile(r"\s*<think>.*?(</think>|\Z)", re.S)


@dataclass(frozen=True)
class Question:
    """Chat messages, and the most tokens of their answer. prompt_tokens: the most that the messages can be."""

    messages: list[dict[str, Any]]
    max_tokens: int
    prompt_tokens: int

    @property
    def bound(self) -> Usage:
        """The most that one try can use."""
        return Usage(prompt_tokens=self.prompt_tokens, completion_tokens=self.max_tokens, requests=1)


@dataclass(frozen=True)
class Answer:
    """One line of text, or why there is none. cut: it ends where the most tokens were reached."""

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
    """The most tokens that messages with these texts, and so many images, can be.

    Byte-level and byte-fallback tokenizers, which chat models have, make at most one token of a byte.
    """
    return sum(len(text.encode()) + TEMPLATE_TOKENS for text in texts) + images * parameters.image_tokens


def read_answer(response: httpx.Response, question: Question) -> Answer:
    """A successful response as an answer: its fault is what is wrong with it, if anything.

    The usage is as the server counted it; where it did not, the most that it can have been.
    """
    usage = _usage(response.content, question)
    try:
        choice = _Completion.model_validate_json(response.content).choices[0]
    except ValidationError:
        return Answer("", f"the server's answer is no completion: {start_of(response)!r}", False, usage)
    text = " ".join(_THOUGHT.sub("", choice.message.content or "", count=1).split())
    fault = None if text else f"the server's answer is empty (finish_reason {choice.finish_reason})"
    return Answer(text, fault, choice.finish_reason == "length", usage)


def _usage(content: bytes, question: Question) -> Usage:
    try:
        count = _Counted.model_validate_json(content).usage
    except ValidationError:
        return question.bound
    return Usage(prompt_tokens=count.prompt_tokens, completion_tokens=count.completion_tokens, requests=1)


def start_of(response: httpx.Response) -> str:
    """The beginning of a response's text, in one line."""
    return " ".join(response.text.split())[:200]
