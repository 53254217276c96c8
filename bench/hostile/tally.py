"""What was seen while a service was attacked: statuses, hangs, undocumented errors, and what was lost."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx

DEADLINE = 30.0  # seconds for a response of the service, whatever is asked; a request that waits has its time besides
KEPT = 20  # texts of each kind that are printed

PROBLEM = "application/problem+json"


@dataclass
class Tally:
    """Counts of everything; its methods may be called from several threads.

    hangs: what had no answer, or no end, by its deadline; errors: responses of 500 and above that docs/problems.md does
    not allow to happen here; wrong: rows that were lost, damage that was not noticed, secrets that were told; crashes:
    processes that ended. statuses: by attack and status.
    """

    hangs: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    crashes: list[str] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    statuses: Counter[tuple[str, str]] = field(default_factory=Counter)
    slowest: tuple[float, str] = (0.0, "")
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_lock"}  # locks stay in their process

    def count(self, attack: str, what: str, seconds: float, status: int | str) -> None:
        """Count a response, or the word for what came instead of one."""
        with self._lock:
            self.statuses[attack, str(status)] += 1
            self.slowest = max(self.slowest, (seconds, f"{attack}: {what[:150]}"))

    def add(self, kind: list[str], text: str) -> None:
        """Note a hang, an error, a wrong row or a crash, and print the first ones of each kind."""
        with self._lock:
            kind.append(text)
            if len(kind) <= KEPT:
                name = next(name for name, each in vars(self).items() if each is kind)
                print(f"  {name}: {' '.join(text.split())[:600]}", flush=True)

    def judge(self, attack: str, what: str, seconds: float, response: httpx.Response, deadline: float) -> None:
        """Count a response, and note it if it came late or is an undocumented error."""
        status = response.status_code
        self.count(attack, what, seconds, status)
        if seconds > deadline:
            self.add(self.hangs, f"{attack}: {what}: {status} after {seconds:.1f} s")
        if status >= 500 and not (status == 503 and response.headers.get("content-type") == PROBLEM):
            self.add(self.errors, f"{attack}: {what}: {status} {response.text[:300]}")

    @property
    def clean(self) -> bool:
        """Whether nothing of what must not happen has happened."""
        return not (self.hangs or self.errors or self.wrong or self.crashes)


class Caller:
    """Sends requests with a deadline and tallies their responses."""

    def __init__(self, url: str, tally: Tally, key: str | None = None) -> None:
        self.headers = {"Authorization": f"Bearer {key}"} if key else {}
        limits = httpx.Limits(max_connections=64, max_keepalive_connections=16)
        self._client = httpx.Client(
            base_url=url, headers=self.headers, trust_env=False, timeout=DEADLINE, limits=limits
        )
        self.tally, self.url = tally, url

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def send(
        self, attack: str, method: str, path: str, *, what: str = "", wait: float = 0.0, **options: object
    ) -> httpx.Response | None:
        """The response, of which status and time are tallied; None if there is none. wait: seconds that it may wait."""
        what, began, deadline = what or f"{method} {path}", time.monotonic(), DEADLINE + wait
        try:
            response = self._client.request(method, path, timeout=deadline, **options)  # type: ignore[arg-type]
        except httpx.TimeoutException as error:
            self.tally.add(self.tally.hangs, f"{attack}: {what}: {type(error).__name__} after {deadline:g} s")
            return None
        except (httpx.TransportError, httpx.InvalidURL) as error:
            # a server may close a connection whose request it does not want; that it lives is checked elsewhere
            self.tally.count(attack, what, time.monotonic() - began, type(error).__name__)
            return None
        self.tally.judge(attack, what, time.monotonic() - began, response, deadline)
        return response

    def patiently(self, attack: str, method: str, path: str, **options: object) -> httpx.Response | None:
        """As `send`, but sent again while the service says that it is busy, as clients do that heed Retry-After."""
        until = time.monotonic() + 4 * DEADLINE
        while True:
            response = self.send(attack, method, path, **options)  # type: ignore[arg-type]
            if response is None or response.status_code not in (429, 503):
                return response
            if time.monotonic() > until:
                self.tally.add(self.tally.hangs, f"{attack}: {method} {path}: busy for {4 * DEADLINE:g} s")
                return response
            time.sleep(min(float(response.headers.get("retry-after", "1")), 5.0))
