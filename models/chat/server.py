"""A chat server as a client sees it: requests are sent again, it is waited for as it asks, and found unavailable."""

from __future__ import annotations

import os
import threading
import time

import httpx
from pydantic import SecretStr

from models.base import StageRefused, StageUnavailable
from models.chat.questions import start_of, without
from strata.addresses import clean_key
from strata.client import pause_of, proxied
from strata.core import ChatParameters, growing_pause
from strata.errors import InvalidInput

FIRST_PAUSE = 0.5  # seconds before a second attempt
PATIENCE = 2.0  # seconds of pauses without any answer, or of a Retry-After, before StageUnavailable is raised
LONGEST_RETRY_AFTER = 3600.0  # seconds; the upper limit of a Retry-After
CONNECT_SECONDS = 5.0  # timeout of a connection attempt
# errors after which the server has certainly not received the request, so it cost nothing
NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
REFUSED_ALL = (401, 403, 404, 405, 407, 410)  # wrong key, URL or model: not the fault of a question
MAX_RESPONSE = 4 * 2**20  # bytes; a completion has some kilobytes
NO_CREDIT = 402  # nor is this, but it may pass without a change of settings


class ChatServer:
    """The server at `url` (up to and including /v1). Safe to use from several threads.

    stage: the name of the stage, for its errors. The key is in no error and no text. answered_at: when it last gave a
    usable answer, in seconds of the monotonic clock; doubted: it did not work when it was asked last. The caller tells
    of usable answers by `note_answer`.
    """

    def __init__(self, url: str, parameters: ChatParameters, stage: str) -> None:
        self.url, self._parameters, self._stage = f"{url.rstrip('/')}/chat/completions", parameters, stage
        self.secret = SecretStr("")
        self.answered_at = float("-inf")
        self.doubted = False
        self._tries = parameters.retries + 1
        self._not_before = float("-inf")  # the end of its Retry-After, in seconds of the monotonic clock
        self._stopped = threading.Event()  # set when one thread finds the server unavailable, to stop the others
        self._stop: StageUnavailable | None = None  # why the threads shall stop
        self._troubled_since: float | None = None  # time of the first pause since the last usable answer

    def open(self) -> None:
        """Create the connection pool. It sends no request yet. Raises InvalidInput if the key cannot be sent."""
        p = self._parameters
        key = _key(p.api_key_variable)
        self.secret = SecretStr(key)
        # a compressed response could expand to any size
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        self._http = httpx.Client(
            headers=headers | ({"Authorization": f"Bearer {key}"} if key else {}),
            limits=httpx.Limits(max_connections=p.concurrency),
            trust_env=proxied(self.url),
        )

    def begin(self) -> None:
        """New questions are asked: no thread is stopped any more."""
        self._stopped.clear()
        self._troubled_since = None

    def note_answer(self) -> None:
        """It has given a usable answer."""
        self.answered_at, self._troubled_since, self.doubted = time.monotonic(), None, False

    def post(self, body: bytes, seconds: float | None = None) -> httpx.Response:
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
                reason = self.masked(error)
                continue
            status, pause = response.status_code, pause_of(response)
            # the server asks for a pause: all threads wait before their next request
            if status == 429 or pause is not None:
                reason = self.words_of(response)
                self._not_before = max(self._not_before, time.monotonic() + min(pause or 0.0, LONGEST_RETRY_AFTER))
                continue
            # these concern every request: a redirect (wrong URL), a wrong key, no credit
            if 300 <= status < 400 or status in REFUSED_ALL:
                raise self.unavailable(self.words_of(response), refused=True)
            if status == NO_CREDIT:
                raise self.unavailable(self.words_of(response))
            return response
        raise self.unavailable(reason)

    def _response(self, body: bytes, seconds: float) -> httpx.Response:
        """Send a request once. Raises httpx.RequestError if its whole response is not there in time, or is too long."""
        deadline = time.monotonic() + seconds
        timeout = httpx.Timeout(seconds, connect=min(CONNECT_SECONDS, seconds))
        # httpx limits the time between two pieces of a response, and not that of the whole
        with self._http.stream("POST", self.url, content=body, timeout=timeout) as response:
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
                raise self.unavailable(f"it asks to wait for {left:.0f} s", pause=left)
            self._pause(left)

    def pause_after(self, attempt: int, reason: str = "") -> None:
        """Wait before it is asked again, the longer the more attempts have failed before this one (0: the first).

        Raises as `_pause`.
        """
        self._pause(growing_pause(attempt, FIRST_PAUSE, PATIENCE), reason)

    def _pause(self, seconds: float, reason: str = "") -> None:
        """Sleep. Raises StageUnavailable at once when another thread finds the server unavailable.

        reason: why the last attempt failed; then it is also raised if the pauses would last longer than PATIENCE.
        """
        if seconds > 0:
            now = time.monotonic()
            self._troubled_since = now if self._troubled_since is None else self._troubled_since
            if reason and now + seconds > self._troubled_since + PATIENCE:
                raise self.unavailable(reason)
        if self._stopped.wait(seconds):
            assert self._stop is not None
            raise type(self._stop)(self._stop.reason, self._stage, pause=self._stop.pause)

    def unavailable(self, reason: str, refused: bool = False, pause: float = 0.0) -> StageUnavailable:
        """Make the error, and stop all other threads."""
        kind = StageRefused if refused else StageUnavailable
        # the address without a password or a query
        url = httpx.URL(self.url)
        address = f"{url.scheme}://{url.host}{f':{url.port}' if url.port else ''}{url.path}"
        self._stop = kind(f"server {address} cannot be used: {reason}", self._stage, pause=pause)
        self.doubted = True
        self._stopped.set()
        return self._stop

    def masked(self, error: Exception) -> str:
        """An error as one line without the key."""
        return without(self.secret, f"{type(error).__name__}: {error}")

    def words_of(self, response: httpx.Response) -> str:
        """The status and the text of an error response, without the key."""
        return f"status {response.status_code}: {start_of(response, self.secret)}"


def _key(variable: str) -> str:
    """The key in an environment variable, without white space around it; empty if there is none.

    Raises InvalidInput, without the key, if it has characters that a header cannot have.
    """
    key = clean_key(os.environ.get(variable, ""), variable)
    if not key.isascii():
        raise InvalidInput(f"{variable} contains a character that is not ASCII")
    return key
