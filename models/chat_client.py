"""Asks a chat server (any OpenAI-compatible /chat/completions), several questions at a time, and says who is at fault.

A server that is away, busy or set up wrong is no question's fault: StageUnavailable, and the answers that came before
it are kept, so that asking the same again asks only the rest. A question without a good answer is at fault itself,
but only if the same server answers a plain question of the same form after it. An answer that got lost may have cost
tokens: it counts with the most that it could have cost.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx
from pydantic import BaseModel, Field, ValidationError

from models.base import Parameters, StageUnavailable
from strata.answers import pause_of
from strata.usage import MOST, Usage

log = logging.getLogger(__name__)

LONGEST_WAIT = 8.0  # seconds to wait here; a longer Retry-After is waited out by whoever called
LONGEST_RETRY_AFTER = 3600.0  # seconds; who asks for more is asked again after them
CONNECT_SECONDS = 10.0
TEMPLATE_TOKENS = 64  # what a chat template may write around a message
NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
REFUSED_ALL = (401, 402, 403, 404, 405)  # a wrong key, an empty purse, a wrong URL or model: not this question's fault
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


@dataclass
class _Talk:
    """A question on its way. failed_at: when its last try failed, in seconds of the monotonic clock."""

    question: Question
    body: bytes
    usage: Usage = field(default_factory=Usage)
    tries: int = 0
    failed_at: float | None = None
    fault: str = ""
    answer: Answer | None = None


class ChatClient:
    """The server at `url` (up to and including /v1). plain: a short question such as the stage's own, to try it with.

    One `ask` at a time; the requests of one go side by side.
    """

    def __init__(self, url: str, parameters: ChatParameters, plain: Question) -> None:
        self._url, self._parameters, self._plain = f"{url.rstrip('/')}/chat/completions", parameters, plain
        self._talks: dict[bytes, _Talk] = {}
        self._gone = threading.Event()
        self._proving = threading.Lock()
        self._answered_at = float("-inf")
        self._not_before = float("-inf")
        self._away = ""
        self._warned = False

    def open(self) -> None:
        """Make the connection pool; the server is asked nothing yet."""
        p = self._parameters
        key = os.environ.get(p.api_key_variable)
        # a proxy of the environment cannot reach this machine's own loopback
        near = httpx.URL(self._url).host in ("127.0.0.1", "localhost", "::1")
        self._http = httpx.Client(
            timeout=httpx.Timeout(p.timeout, connect=min(CONNECT_SECONDS, p.timeout)),
            headers={"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {}),
            limits=httpx.Limits(max_connections=p.concurrency),
            trust_env=not near,
        )
        self._pool = ThreadPoolExecutor(p.concurrency, thread_name_prefix="chat")

    def worst(self, question: Question) -> Usage:
        """The most that a question can use: every try to no avail, each with a plain question after it."""
        tries = self._parameters.retries + 1
        return question.bound * tries + self._plain_for(question).bound * tries

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """Answers in order; equal questions are asked once, and only the first is charged.

        Until `forget` is called, what was answered is not asked again. Raises StageUnavailable.
        """
        self._gone.clear()
        bodies = [self._body(question) for question in questions]
        asked: dict[bytes, _Talk] = {}
        for question, body in zip(questions, bodies, strict=True):
            asked[body] = self._talks.setdefault(body, _Talk(question, body))
        open_talks = [talk for talk in asked.values() if talk.answer is None]
        open_talks.sort(key=lambda talk: len(talk.body), reverse=True)  # so that no long one is left for the end
        for error in list(self._pool.map(self._guarded, open_talks)):
            if error is not None:
                raise error
        answers, told = [], set[bytes]()
        for body in bodies:
            answer = asked[body].answer
            assert answer is not None
            answers.append(answer if body not in told else Answer(answer.text, answer.fault, answer.cut, Usage()))
            told.add(body)
        return answers

    def forget(self) -> None:
        """The answers have gone out and will not be asked for again."""
        self._talks.clear()

    def _guarded(self, talk: _Talk) -> Exception | None:
        try:
            self._talk(talk)
        except Exception as error:
            return error
        return None

    def _talk(self, talk: _Talk) -> None:
        """Try until there is an answer, or the question is to blame. Raises StageUnavailable."""
        while talk.answer is None:
            if talk.failed_at is not None:
                self._prove(talk, talk.failed_at)
                if talk.tries > self._parameters.retries:
                    talk.answer = Answer("", talk.fault, False, talk.usage)
                    return
            self._try(talk)

    def _try(self, talk: _Talk) -> None:
        try:
            response = self._post(talk.body)
        except httpx.RequestError as error:  # it was sent: nobody knows what it cost
            self._fail(talk, f"no answer: {type(error).__name__}: {error}", talk.question.bound)
            return
        if response.status_code >= 400:
            if response.status_code < 500 and response.status_code not in (408, 409, 425):
                talk.tries = self._parameters.retries  # it would be refused again
            self._fail(talk, f"status {response.status_code}: {_start(response)}", Usage())
            return
        text, cut, fault, usage = self._read(response, talk.question)
        if fault is not None:
            self._fail(talk, fault, usage)
            return
        talk.answer = Answer(text, None, cut, talk.usage + usage)
        self._answered_at = time.monotonic()

    def _fail(self, talk: _Talk, fault: str, usage: Usage) -> None:
        talk.tries += 1
        talk.fault, talk.usage, talk.failed_at = fault, talk.usage + usage, time.monotonic()

    def _prove(self, talk: _Talk, failed_at: float) -> None:
        """Return once the server has answered anybody after `failed_at`; ask it a plain question if nobody else does.

        Raises StageUnavailable.
        """
        plain = self._plain_for(talk.question)
        body, reason = self._body(plain), ""
        with self._proving:  # one plain question is enough for all that wait for it
            for attempt in range(self._parameters.retries + 1):
                if self._answered_at <= failed_at:
                    self._pause(_backoff(attempt))
                if self._answered_at > failed_at:
                    return
                try:
                    response = self._post(body)
                except httpx.RequestError as error:
                    talk.usage += plain.bound
                    reason = f"{type(error).__name__}: {error}"
                    continue
                fault: str | None = f"status {response.status_code}: {_start(response)}"
                if response.status_code < 400:
                    _, _, fault, usage = self._read(response, plain)
                    talk.usage += usage
                if fault is None:
                    self._answered_at = time.monotonic()
                    return
                reason = fault
        raise self._unavailable(f"not even a plain question is answered: {reason}")

    def _post(self, body: bytes) -> httpx.Response:
        """The server's answer, whatever it says of the question.

        Raises StageUnavailable if it is away, busy for long or refuses everybody, httpx.RequestError if the answer
        got lost.
        """
        reason = ""
        for attempt in range(self._parameters.retries + 1):
            self._wait_for_turn()
            self._pause(_backoff(attempt) if attempt else 0.0)
            try:
                response = self._http.post(self._url, content=body)
            except NOT_SENT as error:
                reason = f"{type(error).__name__}: {error}"
                continue
            status, asked = response.status_code, pause_of(response)
            if status == 429 or asked is not None:
                reason = f"status {status}: {_start(response)}"
                self._not_before = max(self._not_before, time.monotonic() + min(asked or 0.0, LONGEST_RETRY_AFTER))
                continue
            if 300 <= status < 400 or status in REFUSED_ALL:
                raise self._unavailable(f"status {status}: {_start(response)}")
            return response
        raise self._unavailable(reason)

    def _wait_for_turn(self) -> None:
        """Keep the pause that the server asked for. Raises StageUnavailable if that is long."""
        while (left := self._not_before - time.monotonic()) > 0:
            if left > LONGEST_WAIT:
                raise self._unavailable(f"it asks to wait for {left:.0f} s")
            self._pause(left)

    def _pause(self, seconds: float) -> None:
        if self._gone.wait(seconds):  # the others need not find out for themselves
            raise StageUnavailable(self._away)

    def _unavailable(self, reason: str) -> StageUnavailable:
        self._away = f"server {self._url} cannot be used: {reason}"
        self._gone.set()
        return StageUnavailable(self._away)

    def _read(self, response: httpx.Response, question: Question) -> tuple[str, bool, str | None, Usage]:
        """Text, whether it was cut, what is wrong with it if anything, and the usage."""
        usage = self._usage(response.content, question)
        try:
            choice = _Completion.model_validate_json(response.content).choices[0]
        except ValidationError:
            return "", False, f"the server's answer is no completion: {_start(response)!r}", usage
        text = " ".join(_THOUGHT.sub("", choice.message.content or "", count=1).split())
        fault = None if text else f"the server's answer is empty (finish_reason {choice.finish_reason})"
        return text, choice.finish_reason == "length", fault, usage

    def _usage(self, content: bytes, question: Question) -> Usage:
        """As the server counted; where it does not, the most that it can have been."""
        try:
            count = _Counted.model_validate_json(content).usage
        except ValidationError:
            return question.bound
        if not self._warned and count.prompt_tokens > question.prompt_tokens:
            self._warned = True
            numbers = f"{count.prompt_tokens} tokens read, at most {question.prompt_tokens} expected"
            log.warning("%s: %s; is image_tokens of the profile too low?", self._url, numbers)
        return Usage(prompt_tokens=count.prompt_tokens, completion_tokens=count.completion_tokens, requests=1)

    def _plain_for(self, question: Question) -> Question:
        return Question(self._plain.messages, question.max_tokens, self._plain.prompt_tokens)

    def _body(self, question: Question) -> bytes:
        p = self._parameters
        fields = {"model": p.served_model, "messages": question.messages, "max_tokens": question.max_tokens}
        return json.dumps(fields | {"temperature": p.temperature} | p.request).encode()


def prompt_bound(texts: Sequence[str], images: int, parameters: ChatParameters) -> int:
    """The most tokens that messages with these texts, and so many images, can be.

    Byte-level and byte-fallback tokenizers, which chat models have, make at most one token of a byte.
    """
    return sum(len(text.encode()) + TEMPLATE_TOKENS for text in texts) + images * parameters.image_tokens


def _backoff(attempt: int) -> float:
    return min(0.5 * 2.0**attempt, LONGEST_WAIT)


def _start(response: httpx.Response) -> str:
    return " ".join(response.text.split())[:200]
