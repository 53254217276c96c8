"""The composer's back end for chat servers: any OpenAI-compatible /chat/completions."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx
from pydantic import BaseModel, Field, ValidationError

from models.base import ComposerStage, Failure, Parameters, StageUnavailable
from models.prompts import full_notes, load_prompt, small_notes
from strata.profiles import StageSettings
from strata.records import Record

LONGEST_WAIT = 60.0  # seconds; a server that asks for more is as good as gone


class RequestRefused(RuntimeError):
    """The server refused this request (4xx) or answered something that is no completion."""


class OpenAIParameters(Parameters):
    """served_model: the name to ask the server for. concurrency: requests in flight. timeout: seconds a request.

    api_key_variable names the environment variable with the key, so that no key stands in a profile.
    """

    served_model: str
    prompt: str = "full"
    prompt_sha256: str
    max_new_tokens: int = 400
    max_notes: int = 40
    temperature: float = 0.0
    timeout: float = 120.0
    concurrency: int = Field(default=8, ge=1)
    retries: int = Field(default=3, ge=0)
    api_key_variable: str = "OPENAI_API_KEY"


class _Message(BaseModel):
    content: str


class _Choice(BaseModel):
    message: _Message


class _Completion(BaseModel):
    choices: list[_Choice] = Field(min_length=1)


class OpenAIComposer(ComposerStage):
    """Descriptions from a server: settings.model is "server:URL", with the URL up to and including /v1."""

    name = "composer"

    def __init__(self, settings: StageSettings) -> None:
        super().__init__(settings)
        self._parameters = OpenAIParameters.model_validate(settings.parameters)
        self._prompt = load_prompt(self._parameters.prompt, self._parameters.prompt_sha256)
        kind, _, url = settings.model.partition(":")
        if kind != "server" or not url.startswith(("http://", "https://")):
            raise ValueError(f"{settings.model!r} is no chat server: expected server:http://HOST:PORT/v1")
        self._url = f"{url.rstrip('/')}/chat/completions"
        self._gone = threading.Event()

    def load(self) -> None:
        """Open the connection pool; the server is asked nothing yet."""
        key = os.environ.get(self._parameters.api_key_variable)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        limits = httpx.Limits(max_connections=self._parameters.concurrency)
        self._client = httpx.Client(timeout=self._parameters.timeout, headers=headers, limits=limits)

    def compute(self, batch: Sequence[Record]) -> list[str]:
        """A description for each record, several requests at a time. Raises what the first bad one raised."""
        results = self._all(batch)
        for result in results:
            if isinstance(result, Exception):
                raise result
        return [result for result in results if isinstance(result, str)]

    def run(self, batch: Sequence[Record]) -> list[str | Failure]:
        """As the contract says; each request stands alone, so a refused one is not found by asking all again."""
        results: list[str | Failure] = []
        for result in self._all(batch):
            if isinstance(result, StageUnavailable):
                raise result
            if isinstance(result, Exception):
                results.append(Failure(self.name, type(result).__name__, str(result)))
            else:
                results.append(result)
        return results

    def _all(self, batch: Sequence[Record]) -> list[str | Exception]:
        self._gone.clear()
        with ThreadPoolExecutor(self._parameters.concurrency) as pool:
            return list(pool.map(self._guarded, batch))

    def _guarded(self, record: Record) -> str | Exception:
        try:
            return self._compose(record)
        except StageUnavailable as error:
            self._gone.set()  # the others need not wait for their own retries
            return error
        except Exception as error:
            return error

    def _compose(self, record: Record) -> str:
        limit = self._parameters.max_notes
        notes = small_notes(record, limit) if self._prompt.wording else full_notes(record, limit)
        if not notes:
            return ""
        body = {
            "model": self._parameters.served_model,
            "messages": self._prompt.messages(notes),
            "max_tokens": self._parameters.max_new_tokens,
            "temperature": self._parameters.temperature,
        }
        return self._text_of(self._ask(body))

    def _ask(self, body: dict[str, object]) -> httpx.Response:
        """The server's answer. Raises StageUnavailable after the last retry, RequestRefused for another 4xx."""
        reason = "another request found it gone"
        for attempt in range(self._parameters.retries + 1):
            wait = min(0.5 * 2**attempt, 8.0)
            if self._gone.is_set():
                break
            try:
                response = self._client.post(self._url, json=body)
            except httpx.TransportError as error:
                reason = f"{type(error).__name__}: {error}"
            else:
                if response.status_code < 400:
                    return response
                reason = f"status {response.status_code}"
                if response.status_code in (401, 403, 404):
                    break  # wrong key or URL: no image's fault, and no retry helps
                if response.status_code != 429 and response.status_code < 500:
                    raise RequestRefused(f"{reason}: {' '.join(response.text.split())[:200]}")
                wait = _retry_after(response, wait)
            if attempt < self._parameters.retries:
                time.sleep(wait)
        raise StageUnavailable(f"composer's server {self._url} cannot be used: {reason}")

    def _text_of(self, response: httpx.Response) -> str:
        try:
            completion = _Completion.model_validate_json(response.content)
        except ValidationError as error:
            start = " ".join(response.text.split())[:100]
            raise RequestRefused(f"the server's answer is no completion: {start!r}") from error
        text = " ".join(completion.choices[0].message.content.split())
        if not text:
            raise RequestRefused("the server's description is empty")
        return text


def _retry_after(response: httpx.Response, default: float) -> float:
    """Seconds that the server asks to wait; the HTTP-date form is rare enough to count as none."""
    try:
        return min(max(0.0, float(response.headers["Retry-After"])), LONGEST_WAIT)
    except (KeyError, ValueError):
        return default
