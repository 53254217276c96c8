"""Client of a chat server (any OpenAI-compatible /chat/completions). It sends questions in parallel.

After an error it sends a probe, a short test question of the same form, to find out whether the question or the server
is at fault:

- The server is unreachable or busy for longer than PATIENCE: StageUnavailable. The caller shall do other work and call
  again later. Earlier answers are kept, so a second call with the same questions sends only the unanswered ones; it
  sends a probe before them.
- The server refuses every request, because the key, the address or the model is wrong: StageRefused.
- The question has no usable answer, but the probe has one: the question is at fault, and its answer states the fault.
- The probes have no usable answer either, and the server counts their tokens: StageUnfit, do not retry. Without a
  count no model has answered, but a proxy, for example: StageUnavailable.
- A response that was lost in transit may have cost tokens: its upper bound is counted as usage.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import httpx

from models.base import StageUnavailable, StageUnfit
from models.chat.questions import ChatAnswer, Question, read_answer
from models.chat.server import CONNECT_SECONDS, PATIENCE, ChatServer
from models.deadlines import DEADLINES
from strata.core import ChatParameters, Usage

log = logging.getLogger(__name__)

MAX_KEPT = 512  # answers of interrupted calls
PROBE_SECONDS = 30.0  # timeout of a probe: its answer is one word


@dataclass(eq=False)
class _Exchange:
    """The state of a question. failed_at: time of its last failed try, in seconds of the monotonic clock.

    tries: number of failed tries; failed_probes: probes that were sent for it and had no usable answer; usage: of all
    its tries and probes so far; transient: whether the fault of its last try may pass.
    """

    question: Question
    body: bytes
    usage: Usage = field(default_factory=Usage)
    tries: int = 0
    failed_probes: int = 0
    failed_at: float | None = None
    fault: str = ""
    transient: bool = False
    refused: bool = False  # by a client error in its last try
    answer: ChatAnswer | None = None
    delivered: bool = False  # its answer was returned since the last `clear`, and no call was interrupted since


class ChatClient:
    """A client of the server at `url` (up to and including /v1). probe: a short question of the stage's form.

    stage: the name of the stage, for its errors. The key is in no error, no answer and no log. Call `ask` from one
    thread at a time; its requests run in parallel.
    """

    def __init__(self, url: str, parameters: ChatParameters, probe: Question, stage: str) -> None:
        self._server, self._parameters, self._probe = ChatServer(url, parameters, stage), parameters, probe
        self._exchanges: dict[bytes, _Exchange] = {}
        self._probe_lock = threading.Lock()
        self._tries = parameters.retries + 1
        self._failed_probes = 0  # successive probes without a usable answer
        self._warned = False

    def open(self) -> None:
        """Create the connection pool. It sends no request yet. Raises InvalidInput if the key cannot be sent."""
        self._server.open()
        self._pool = ThreadPoolExecutor(self._parameters.concurrency, thread_name_prefix="chat")

    def upper_bound(self, question: Question) -> Usage:
        """Upper bound on the usage of a question: every try fails, and so do all probes after each try."""
        return question.bound * self._tries + self._probe_for(question).bound * self._tries**2

    def seconds_at_most(self, questions: int) -> float:
        """What `ask` may take by its own rules: every question and every probe fails as late as it can."""
        p = self._parameters
        post = self._tries * (p.timeout + CONNECT_SECONDS + 2 * PATIENCE)
        probes = self._tries**2 * (PROBE_SECONDS + CONNECT_SECONDS + 2 * PATIENCE)
        rounds = -(-questions // p.concurrency)
        return DEADLINES.limits.floor + rounds * self._tries * (post + p.concurrency * probes)

    def ask(self, questions: Sequence[Question]) -> list[ChatAnswer]:
        """Ask questions; returns the answers in order. Equal questions are sent once, and only the first has the usage.

        Until `clear` is called, answered questions are not sent again. Raises StageUnavailable and StageUnfit.
        """
        # one exchange for equal questions; an answer from an interrupted earlier call is used again
        self._server.begin()
        bodies = [self._body(question) for question in questions]
        by_body: dict[bytes, _Exchange] = {}
        for question, body in zip(questions, bodies, strict=True):
            by_body[body] = self._exchanges.setdefault(body, _Exchange(question, body))
        # send all others in parallel, the longest first: a long one at the end would be waited for alone
        unanswered = [exchange for exchange in by_body.values() if exchange.answer is None]
        unanswered.sort(key=lambda exchange: len(exchange.body), reverse=True)
        # a server that did not work is asked a probe before any question
        if self._server.doubted:
            for exchange in unanswered:
                exchange.failed_at = time.monotonic()
        # all threads have ended here; an error of the program has priority over an unavailable server
        errors = [error for error in self._pool.map(self._run_caught, unanswered) if error is not None]
        if errors:
            error = min(errors, key=lambda error: isinstance(error, StageUnavailable))
            if isinstance(error, StageUnavailable):
                error.usage = self._interrupt(by_body.values())
            raise error
        # only the first of equal questions gets their usage
        answers, charged = [], set[bytes]()
        for body in bodies:
            answer = by_body[body].answer
            assert answer is not None
            by_body[body].delivered = True
            answers.append(replace(answer, usage=Usage()) if body in charged else answer)
            charged.add(body)
        return answers

    def clear(self) -> None:
        """Drop the answers that were returned: their questions will not be asked again.

        Answers of interrupted calls are kept, at most MAX_KEPT.
        """
        kept = [(body, exchange) for body, exchange in self._exchanges.items() if not exchange.delivered]
        self._exchanges = dict(kept[-MAX_KEPT:])

    def keep(self) -> Usage:
        """Keep the answers since the last `clear` for another attempt, which reports them again. Gives their usage."""
        return self._interrupt(())

    def _interrupt(self, asked: Collection[_Exchange]) -> Usage:
        """Keep all answers for the next attempt. Returns the usage of these questions, and of those since `clear`."""
        before = [one for one in self._exchanges.values() if one.delivered and one not in asked]
        for exchange in (*asked, *before):
            exchange.delivered = False
        return sum(((one.answer or one).usage for one in (*asked, *before)), Usage())

    def _run_caught(self, exchange: _Exchange) -> Exception | None:
        """Run an exchange and return its error: raised in the pool, it would hide the others."""
        try:
            self._run(exchange)
        except Exception as error:
            return error
        return None

    def _run(self, exchange: _Exchange) -> None:
        """Try until there is an answer, or a fault of the question. Raises StageUnavailable and StageUnfit."""
        while exchange.answer is None:
            # after a failed try, check the server first: if it works, the question itself may be at fault
            if exchange.failed_at is not None:
                self._check_server(exchange, exchange.failed_at)
                if exchange.tries >= self._tries:
                    exchange.answer = ChatAnswer(
                        "", exchange.fault, False, exchange.usage, exchange.transient, refused=exchange.refused
                    )
                    return
            self._try_once(exchange)

    def _try_once(self, exchange: _Exchange) -> None:
        """Send the question once, and store its answer or its fault. Raises StageUnavailable."""
        try:
            response = self._server.post(exchange.body)
        except httpx.RequestError as error:  # it was sent, and its cost is unknown
            self._fail(exchange, f"no answer: {self._server.masked(error)}", exchange.question.bound, transient=True)
            return
        # an error status costs nothing; a client error (but 408, 409, 425) would be the same in the next try
        if response.status_code >= 400:
            lasting = response.status_code < 500 and response.status_code not in (408, 409, 425)
            if lasting:
                exchange.tries, exchange.refused = self._tries, True
            self._fail(exchange, self._server.words_of(response), Usage(), transient=not lasting)
            return
        # a success status, which was charged; the answer may still be unusable
        answer = read_answer(response, exchange.question, self._server.secret)
        self._check_usage(answer.usage, exchange.question)
        if answer.fault is not None:
            self._fail(exchange, answer.fault, answer.usage)
            return
        exchange.answer = replace(answer, usage=exchange.usage + answer.usage)
        self._note_success()

    def _note_success(self) -> None:
        self._failed_probes = 0
        self._server.note_answer()

    def _fail(self, exchange: _Exchange, fault: str, usage: Usage, transient: bool = False) -> None:
        exchange.tries += 1
        exchange.transient = transient
        exchange.fault, exchange.usage, exchange.failed_at = fault, exchange.usage + usage, time.monotonic()

    def _check_server(self, exchange: _Exchange, failed_at: float) -> None:
        """Return once the server has given a usable answer after `failed_at`, if necessary to a probe.

        Raises StageUnavailable and StageUnfit.
        """
        reason = ""
        with self._probe_lock:  # one probe serves all exchanges that wait here
            for attempt in range(self._tries):
                # another thread's question may be answered during the pause; then no probe is needed
                if self._server.answered_at <= failed_at:
                    self._server.pause_after(attempt, reason)
                if self._server.answered_at > failed_at or not (fault := self._send_probe(exchange)):
                    return
                reason = f"it does not answer a test question either: {fault}"
        raise self._server.unavailable(reason)

    def _send_probe(self, exchange: _Exchange) -> str:
        """Send a probe; returns what is wrong with its answer, or "". Raises StageUnavailable and StageUnfit."""
        probe = self._probe_for(exchange.question)
        try:
            response = self._server.post(self._body(probe), min(PROBE_SECONDS, self._parameters.timeout))
        except httpx.RequestError as error:
            self._charge(exchange, probe.bound)
            return self._server.masked(error)
        if response.status_code >= 400:
            return self._server.words_of(response)
        # a usable answer: the server works
        answer = read_answer(response, probe, self._server.secret)
        if answer.fault is None:
            exchange.usage += answer.usage
            self._note_success()
            return ""
        # charged, but not usable: after as many in a row as a question has tries, the stage is unfit
        self._charge(exchange, answer.usage)
        self._failed_probes += answer.counted
        if self._failed_probes >= self._tries:
            reason = self._server.unavailable(f"test questions have no usable answer either: {answer.fault}")
            raise StageUnfit(str(reason))
        return answer.fault

    def _charge(self, exchange: _Exchange, usage: Usage) -> None:
        """Count the usage of a failed probe, but of no more probes than `upper_bound` includes."""
        exchange.failed_probes += 1
        if exchange.failed_probes <= self._tries**2:
            exchange.usage += usage

    def _check_usage(self, usage: Usage, question: Question) -> None:
        """Log a warning, once, if a question used more than its upper bound: the budget may then be exceeded."""
        if usage.prompt_tokens > question.prompt_tokens and not self._warned:
            self._warned = True
            numbers = f"{usage.prompt_tokens} tokens read, at most {question.prompt_tokens} expected"
            log.warning("%s: %s; is image_tokens of the profile too low?", self._server.url, numbers)

    def _probe_for(self, question: Question) -> Question:
        """The probe with the token limit of the question: a server may refuse the limit itself."""
        return replace(self._probe, max_tokens=question.max_tokens)

    def _body(self, question: Question) -> bytes:
        p = self._parameters
        fields: dict[str, Any] = {
            "model": p.served_model,
            "messages": question.messages,
            p.token_limit: question.max_tokens,
        }
        # models that reason accept no temperature but their own
        if p.temperature != "default":
            fields["temperature"] = p.temperature if question.temperature is None else question.temperature
        return json.dumps(fields | dict(question.fields) | p.request).encode()
