"""What is asked of a chat server, and what its answers are: parameters, questions, completions, usage."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from pydantic import BaseModel, Field, ValidationError, field_validator

from models.base import Parameters
from strata.core.usage import MOST, Usage

TEMPLATE_TOKENS = 64  # what a chat template may write around a message
_OURS = {"model", "messages", "max_tokens", "max_completion_tokens", "n", "stream", "tools"}
_THOUGHT = re.compile(r"\s*<think>.*?(</think>|\Z)", re.S)


class ChatParameters(Parameters):
    """How a stage asks its server. served_model: the name to ask the server for; request: further fields of a request.

    concurrency: requests in flight; timeout: seconds a request; retries: how often a question, or a server that is
    busy, is tried again. api_key_variable names the environment variable with the key, so that no key stands in a
    profile. Images are sent as image_format with at most longest_side pixels; image_tokens: the most tokens that the
    model makes of one. Prices are money for a million tokens; null: not known.
    """

    served_model: str
    request: dict[str, Any] = Field(default_factory=dict)
    temperature: float = 0.0
    timeout: float = Field(default=120.0, gt=0)
    concurrency: int = Field(default=8, ge=1)
    retries: int = Field(default=3, ge=0)
    api_key_variable: str = "OPENAI_API_KEY"
    longest_side: int = Field(default=1024, ge=16)
    image_format: str = Field(default="jpeg", pattern="^(jpeg|png)$")
    image_tokens: int = Field(default=1536, ge=1)
    price_per_million_prompt_tokens: float | None = Field(default=None, ge=0)
    price_per_million_completion_tokens: float | None = Field(default=None, ge=0)

    @field_validator("request")
    @classmethod
    def _leave_the_bounds(cls, request: dict[str, Any]) -> dict[str, Any]:
        if taken := _OURS & request.keys():
            raise ValueError(f"{', '.join(sorted(taken))} cannot be set: what a request may cost depends on it")
        return request


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
