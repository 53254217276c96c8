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
import os
import threading
import time
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
from pydantic import SecretStr

from models.base import StageRefused, StageUnavailable, StageUnfit
from models.chat.questions import ChatAnswer, Question, read_answer, start_of, without
from models.deadlines import DEADLINES
from strata.addresses import clean_key
from strata.client import pause_of, proxied
from strata.core import ChatParameters, Usage, growing_pause
from strata.errors import InvalidInput

log = logging.getLogger(__name__)

FIRST_PAUSE = 0.5  # seconds before a second attempt
MAX_KEPT = 512  # answers of interrupted calls
PATIENCE = 2.0  # seconds of pauses without any answer, or of a Retry-After, before StageUnavailable is raised
LONGEST_RETRY_AFTER = 3600.0  # seconds; the upper limit of a Retry-After
CONNECT_SECONDS = 5.0  # timeout of a connection attempt
PROBE_SECONDS = 30.0  # timeout of a probe: its answer is one word
# errors after which the server has certainly not received the request, so it cost nothing
NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
REFUSED_ALL = (401, 403, 404, 405, 407, 410)  # wrong key, URL or model: not the fault of a question
MAX_RESPONSE = 4 * 2**20  # bytes; a completion has some kilobytes
NO_CREDIT = 402  # nor is this, but it may pass without a change of settings


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
        self._url, self._parameters, self._probe = f"{url.rstrip('/')}/chat/completions", parameters, probe
        self._stage, self._secret = stage, SecretStr("")
        self._exchanges: dict[bytes, _Exchange] = {}
        self._stopped = threading.Event()  # set when one thread finds the server unavailable, to stop the others
        self._probe_lock = threading.Lock()
        self._tries = parameters.retries + 1
        self._failed_probes = 0  # successive probes without a usable answer
        # both in seconds of the monotonic clock: the last usable answer, and the end of the server's Retry-After
        self._answered_at = float("-inf")
        self._not_before = float("-inf")
        self._stop: StageUnavailable | None = None  # why the threads shall stop
        self._troubled_since: float | None = None  # time of the first pause since the last usable answer
        self._doubted = False  # the server did not work when it was asked last
        self._warned = False

    def open(self) -> None:
        """Create the connection pool. It sends no request yet. Raises InvalidInput if the key cannot be sent."""
        p = self._parameters
        key = _key(p.api_key_variable)
        self._secret = SecretStr(key)
        # a compressed response could expand to any size
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        self._http = httpx.Client(
            headers=headers | ({"Authorization": f"Bearer {key}"} if key else {}),
            limits=httpx.Limits(max_connections=p.concurrency),
            trust_env=proxied(self._url),
        )
        self._pool = ThreadPoolExecutor(p.concurrency, thread_name_prefix="chat")

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
        self._stopped.clear()
        self._troubled_since = None
        bodies = [self._body(question) for question in questions]
        by_body: dict[bytes, _Exchange] = {}
        for question, body in zip(questions, bodies, strict=True):
            by_body[body] = self._exchanges.setdefault(body, _Exchange(question, body))
        # send all others in parallel, the longest first: a long one at the end would be waited for alone
        unanswered = [exchange for exchange in by_body.values() if exchange.answer is None]
        unanswered.sort(key=lambda exchange: len(exchange.body), reverse=True)
        # a server that did not work is asked a probe before any question
        if self._doubted:
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
            response = self._post(exchange.body)
        except httpx.RequestError as error:  # it was sent, and its cost is unknown
            self._fail(exchange, f"no answer: {self._masked(error)}", exchange.question.bound, transient=True)
            return
        # an error status costs nothing; a client error (but 408, 409, 425) would be the same in the next try
        if response.status_code >= 400:
            lasting = response.status_code < 500 and response.status_code not in (408, 409, 425)
            if lasting:
                exchange.tries, exchange.refused = self._tries, True
            self._fail(exchange, self._words_of(response), Usage(), transient=not lasting)
            return
        # a success status, which was charged; the answer may still be unusable
        answer = read_answer(response, exchange.question, self._secret)
        self._check_usage(answer.usage, exchange.question)
        if answer.fault is not None:
            self._fail(exchange, answer.fault, answer.usage)
            return
        exchange.answer = replace(answer, usage=exchange.usage + answer.usage)
        self._note_success()

    def _note_success(self) -> None:
        self._answered_at, self._failed_probes = time.monotonic(), 0
        self._troubled_since, self._doubted = None, False

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
                if self._answered_at <= failed_at:
                    self._pause(growing_pause(attempt, FIRST_PAUSE, PATIENCE), reason)
                if self._answered_at > failed_at or not (fault := self._send_probe(exchange)):
                    return
                reason = f"it does not answer a test question either: {fault}"
        raise self._unavailable(reason)

    def _send_probe(self, exchange: _Exchange) -> str:
        """Send a probe; returns what is wrong with its answer, or "". Raises StageUnavailable and StageUnfit."""
        probe = self._probe_for(exchange.question)
        try:
            response = self._post(self._body(probe), min(PROBE_SECONDS, self._parameters.timeout))
        except httpx.RequestError as error:
            self._charge(exchange, probe.bound)
            return self._masked(error)
        if response.status_code >= 400:
            return self._words_of(response)
        # a usable answer: the server works
        answer = read_answer(response, probe, self._secret)
        if answer.fault is None:
            exchange.usage += answer.usage
            self._note_success()
            return ""
        # charged, but not usable: after as many in a row as a question has tries, the stage is unfit
        self._charge(exchange, answer.usage)
        self._failed_probes += answer.counted
        if self._failed_probes >= self._tries:
            reason = self._unavailable(f"test questions have no usable answer either: {answer.fault}")
            raise StageUnfit(str(reason))
        return answer.fault

    def _charge(self, exchange: _Exchange, usage: Usage) -> None:
        """Count the usage of a failed probe, but of no more probes than `upper_bound` includes."""
        exchange.failed_probes += 1
        if exchange.failed_probes <= self._tries**2:
            exchange.usage += usage

    def _post(self, body: bytes, seconds: float | None = None) -> httpx.Response:
        """Send a request and return the response, which may have an error status that concerns the question.

        seconds: the timeout of the answer; None: the parameters'. Raises StageUnavailable if the server is unreachable
        or busy for long, StageRefused if it refuses all requests, and httpx.RequestError if the response was lost.
        """
        reason = ""
        for attempt in range(self._tries):
            self._wait_for_turn()
            self._pause(growing_pause(attempt, FIRST_PAUSE, PATIENCE) if attempt else 0.0, reason)
            # not delivered: try again, it cost nothing
            try:
                response = self._response(body, seconds or self._parameters.timeout)
            except NOT_SENT as error:
                reason = self._masked(error)
                continue
            status, pause = response.status_code, pause_of(response)
            # the server asks for a pause: all threads wait before their next request
            if status == 429 or pause is not None:
                reason = self._words_of(response)
                self._not_before = max(self._not_before, time.monotonic() + min(pause or 0.0, LONGEST_RETRY_AFTER))
                continue
            # these concern every request: a redirect (wrong URL), a wrong key, no credit
            if 300 <= status < 400 or status in REFUSED_ALL:
                raise self._unavailable(self._words_of(response), refused=True)
            if status == NO_CREDIT:
                raise self._unavailable(self._words_of(response))
            return response
        raise self._unavailable(reason)

    def _response(self, body: bytes, seconds: float) -> httpx.Response:
        """Send a request once. Raises httpx.RequestError if its whole response is not there in time, or is too long."""
        deadline = time.monotonic() + seconds
        timeout = httpx.Timeout(seconds, connect=min(CONNECT_SECONDS, seconds))
        # httpx limits the time between two pieces of a response, and not that of the whole
        with self._http.stream("POST", self._url, content=body, timeout=timeout) as response:
            data = bytearray()
            for piece in response.iter_bytes():
                data += piece
                if len(data) > MAX_RESPONSE:
                    raise httpx.ReadError(f"the response has more than {MAX_RESPONSE:,} bytes")
                if time.monotonic() > deadline:
                    raise httpx.ReadTimeout(f"the response had not ended after {seconds:g} s")
        headers = [(name, value) for name, value in response.headers.items() if name != "content-encoding"]
        return httpx.Response(response.status_code, headers=headers, content=bytes(data), request=response.request)

    def _wait_for_turn(self) -> None:
        """Wait for the end of the server's Retry-After. Raises StageUnavailable if it is further than PATIENCE."""
        while (left := self._not_before - time.monotonic()) > 0:
            if left > PATIENCE:
                raise self._unavailable(f"it asks to wait for {left:.0f} s", pause=left)
            self._pause(left)

    def _pause(self, seconds: float, reason: str = "") -> None:
        """Sleep. Raises StageUnavailable at once when another thread finds the server unavailable.

        reason: why the last attempt failed; then it is also raised if the pauses would last longer than PATIENCE.
        """
        if seconds > 0:
            now = time.monotonic()
            self._troubled_since = now if self._troubled_since is None else self._troubled_since
            if reason and now + seconds > self._troubled_since + PATIENCE:
                raise self._unavailable(reason)
        if self._stopped.wait(seconds):
            assert self._stop is not None
            raise type(self._stop)(self._stop.reason, self._stage, pause=self._stop.pause)

    def _unavailable(self, reason: str, refused: bool = False, pause: float = 0.0) -> StageUnavailable:
        """Make the error, and stop all other threads."""
        kind = StageRefused if refused else StageUnavailable
        # the address without a password or a query
        url = httpx.URL(self._url)
        address = f"{url.scheme}://{url.host}{f':{url.port}' if url.port else ''}{url.path}"
        self._stop = kind(f"server {address} cannot be used: {reason}", self._stage, pause=pause)
        self._doubted = True
        self._stopped.set()
        return self._stop

    def _masked(self, error: Exception) -> str:
        """An error as one line without the key."""
        return without(self._secret, f"{type(error).__name__}: {error}")

    def _words_of(self, response: httpx.Response) -> str:
        """The status and the text of an error response, without the key."""
        return f"status {response.status_code}: {start_of(response, self._secret)}"

    def _check_usage(self, usage: Usage, question: Question) -> None:
        """Log a warning, once, if a question used more than its upper bound: the budget may then be exceeded."""
        if usage.prompt_tokens > question.prompt_tokens and not self._warned:
            self._warned = True
            numbers = f"{usage.prompt_tokens} tokens read, at most {question.prompt_tokens} expected"
            log.warning("%s: %s; is image_tokens of the profile too low?", self._url, numbers)

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


def _key(variable: str) -> str:
    """The key in an environment variable, without white space around it; empty if there is none.

    Raises InvalidInput, without the key, if it has characters that a header cannot have.
    """
    key = clean_key(os.environ.get(variable, ""), variable)
    if not key.isascii():
        raise InvalidInput(f"{variable} contains a character that is not ASCII")
    return key
