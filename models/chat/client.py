"""Client of a chat server (any OpenAI-compatible /chat/completions): parallel questions, and whose fault an error is.

- The server is away, busy or set up wrong: StageUnavailable. Answers that came before are kept, so that asking the
  same questions again sends only the others.
- A question has no usable answer, but the server then answers a plain question of the same form: the question's own
  fault, which its answer states.
- The server answers plain questions without a usable answer, and charges for them: StageUnfit, do not retry.
- An answer that was lost on the way may have cost tokens: the upper bound of its cost is counted.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import httpx

from models.base import StageUnavailable, StageUnfit
from models.chat.questions import ChatAnswer, Question, read_answer, start_of
from strata.client import pause_of, proxied
from strata.core import ChatParameters, Usage, growing_pause

log = logging.getLogger(__name__)

FIRST_PAUSE = 0.5  # seconds before a second attempt
LONGEST_WAIT = 8.0  # seconds; for a longer Retry-After StageUnavailable is raised, and the caller waits
LONGEST_RETRY_AFTER = 3600.0  # seconds; a larger Retry-After counts as this
CONNECT_SECONDS = 10.0
NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
REFUSED_ALL = (401, 402, 403, 404, 405)  # wrong key, no credit, wrong URL or model: no question's fault


@dataclass
class _Talk:
    """The state of a question. failed_at: when its last try failed, in seconds of the monotonic clock.

    plain: number of plain questions that were paid because of it and had no usable answer.
    """

    question: Question
    body: bytes
    usage: Usage = field(default_factory=Usage)
    tries: int = 0
    plain: int = 0
    failed_at: float | None = None
    fault: str = ""
    answer: ChatAnswer | None = None


class ChatClient:
    """The server at `url` (up to and including /v1). plain: a short question of the stage's form, to test the server.

    One `ask` at a time; its requests run in parallel.
    """

    def __init__(self, url: str, parameters: ChatParameters, plain: Question) -> None:
        self._url, self._parameters, self._plain = f"{url.rstrip('/')}/chat/completions", parameters, plain
        self._talks: dict[bytes, _Talk] = {}
        self._gone = threading.Event()
        self._proving = threading.Lock()
        self._tries = parameters.retries + 1
        self._unfit = 0  # plain questions in a row that were answered badly
        self._answered_at = float("-inf")
        self._not_before = float("-inf")
        self._away = ""
        self._warned = False

    def open(self) -> None:
        """Make the connection pool; nothing is sent yet."""
        p = self._parameters
        key = os.environ.get(p.api_key_variable)
        self._http = httpx.Client(
            timeout=httpx.Timeout(p.timeout, connect=min(CONNECT_SECONDS, p.timeout)),
            headers={"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {}),
            limits=httpx.Limits(max_connections=p.concurrency),
            trust_env=proxied(self._url),
        )
        self._pool = ThreadPoolExecutor(p.concurrency, thread_name_prefix="chat")

    def worst(self, question: Question) -> Usage:
        """Upper bound on what a question uses: every try fails, and after each one all tries of a plain question."""
        return question.bound * self._tries + self._plain_for(question).bound * self._tries**2

    def ask(self, questions: Sequence[Question]) -> list[ChatAnswer]:
        """Answers in order; equal questions are sent once, and only the first is charged.

        Until `forget` is called, answered questions are not sent again. Raises StageUnavailable and StageUnfit.
        """
        # one talk for equal questions; one that was answered by an interrupted call is not asked again
        self._gone.clear()
        bodies = [self._body(question) for question in questions]
        asked: dict[bytes, _Talk] = {}
        for question, body in zip(questions, bodies, strict=True):
            asked[body] = self._talks.setdefault(body, _Talk(question, body))
        # all others at once, the longest first, so that no long one is left for the end
        open_talks = [talk for talk in asked.values() if talk.answer is None]
        open_talks.sort(key=lambda talk: len(talk.body), reverse=True)
        errors = [error for error in self._pool.map(self._guarded, open_talks) if error is not None]
        if errors:
            raise min(errors, key=lambda error: isinstance(error, StageUnavailable))  # any other error comes first
        # only the first of equal questions carries their usage
        answers, charged = [], set[bytes]()
        for body in bodies:
            answer = asked[body].answer
            assert answer is not None
            answers.append(replace(answer, usage=Usage()) if body in charged else answer)
            charged.add(body)
        return answers

    def forget(self) -> None:
        """Forget all answers: the questions will not be asked again."""
        self._talks.clear()

    def _guarded(self, talk: _Talk) -> Exception | None:
        try:
            self._talk(talk)
        except Exception as error:
            return error
        return None

    def _talk(self, talk: _Talk) -> None:
        """Try until there is an answer or the question is at fault. Raises StageUnavailable and StageUnfit."""
        while talk.answer is None:
            if talk.failed_at is not None:
                self._prove(talk, talk.failed_at)
                if talk.tries >= self._tries:
                    talk.answer = ChatAnswer("", talk.fault, False, talk.usage)
                    return
            self._try(talk)

    def _try(self, talk: _Talk) -> None:
        try:
            response = self._post(talk.body)
        except httpx.RequestError as error:  # it was sent, and what it cost is unknown
            self._fail(talk, f"no answer: {type(error).__name__}: {error}", talk.question.bound)
            return
        if response.status_code >= 400:
            if response.status_code < 500 and response.status_code not in (408, 409, 425):
                talk.tries = self._tries  # the server would refuse it again
            self._fail(talk, f"status {response.status_code}: {start_of(response)}", Usage())
            return
        answer = read_answer(response, talk.question)
        self._check(answer.usage, talk.question)
        if answer.fault is not None:
            self._fail(talk, answer.fault, answer.usage)
            return
        talk.answer = replace(answer, usage=talk.usage + answer.usage)
        self._good()

    def _good(self) -> None:
        self._answered_at, self._unfit = time.monotonic(), 0

    def _fail(self, talk: _Talk, fault: str, usage: Usage) -> None:
        talk.tries += 1
        talk.fault, talk.usage, talk.failed_at = fault, talk.usage + usage, time.monotonic()

    def _prove(self, talk: _Talk, failed_at: float) -> None:
        """Return once the server has answered any question after `failed_at`; send a plain one if none is answered.

        Raises StageUnavailable and StageUnfit.
        """
        reason = ""
        with self._proving:  # one plain question serves all talks that wait
            for attempt in range(self._tries):
                if self._answered_at <= failed_at:
                    self._pause(growing_pause(attempt, FIRST_PAUSE, LONGEST_WAIT))
                if self._answered_at > failed_at or not (reason := self._ask_plainly(talk)):
                    return
        raise self._unavailable(f"not even a plain question is answered: {reason}")

    def _ask_plainly(self, talk: _Talk) -> str:
        """What is wrong with the answer to a plain question of the talk's form; empty if nothing is."""
        plain = self._plain_for(talk.question)
        try:
            response = self._post(self._body(plain))
        except httpx.RequestError as error:
            self._charge(talk, plain.bound)
            return f"{type(error).__name__}: {error}"
        if response.status_code >= 400:
            return f"status {response.status_code}: {start_of(response)}"
        answer = read_answer(response, plain)
        if answer.fault is None:
            talk.usage += answer.usage
            self._good()
            return ""
        self._charge(talk, answer.usage)
        self._unfit += 1
        if self._unfit >= self._tries:
            reason = self._unavailable(f"plain questions have no good answer either: {answer.fault}")
            raise StageUnfit(str(reason))
        return answer.fault

    def _charge(self, talk: _Talk, usage: Usage) -> None:
        """Count a plain question without a usable answer; no more of them than `worst` has in its bound."""
        talk.plain += 1
        if talk.plain <= self._tries**2:
            talk.usage += usage

    def _post(self, body: bytes) -> httpx.Response:
        """The server's response, whatever its status says of the question.

        Raises StageUnavailable if the server is away, busy for long or refuses all requests, and httpx.RequestError
        if the response was lost.
        """
        reason = ""
        for attempt in range(self._tries):
            self._wait_for_turn()
            self._pause(growing_pause(attempt, FIRST_PAUSE, LONGEST_WAIT) if attempt else 0.0)
            try:
                response = self._http.post(self._url, content=body)
            except NOT_SENT as error:
                reason = f"{type(error).__name__}: {error}"
                continue
            status, asked = response.status_code, pause_of(response)
            if status == 429 or asked is not None:
                reason = f"status {status}: {start_of(response)}"
                self._not_before = max(self._not_before, time.monotonic() + min(asked or 0.0, LONGEST_RETRY_AFTER))
                continue
            if 300 <= status < 400 or status in REFUSED_ALL:
                raise self._unavailable(f"status {status}: {start_of(response)}")
            return response
        raise self._unavailable(reason)

    def _wait_for_turn(self) -> None:
        """Wait as long as the server asked. Raises StageUnavailable if that is long."""
        while (left := self._not_before - time.monotonic()) > 0:
            if left > LONGEST_WAIT:
                raise self._unavailable(f"it asks to wait for {left:.0f} s")
            self._pause(left)

    def _pause(self, seconds: float) -> None:
        if self._gone.wait(seconds):  # another talk has found the server away
            raise StageUnavailable(self._away)

    def _unavailable(self, reason: str) -> StageUnavailable:
        self._away = f"server {self._url} cannot be used: {reason}"
        self._gone.set()
        return StageUnavailable(self._away)

    def _check(self, usage: Usage, question: Question) -> None:
        if usage.prompt_tokens > question.prompt_tokens and not self._warned:
            self._warned = True
            numbers = f"{usage.prompt_tokens} tokens read, at most {question.prompt_tokens} expected"
            log.warning("%s: %s; is image_tokens of the profile too low?", self._url, numbers)

    def _plain_for(self, question: Question) -> Question:
        return Question(self._plain.messages, question.max_tokens, self._plain.prompt_tokens)

    def _body(self, question: Question) -> bytes:
        p = self._parameters
        fields = {"model": p.served_model, "messages": question.messages, "max_tokens": question.max_tokens}
        return json.dumps(fields | {"temperature": p.temperature} | p.request).encode()
