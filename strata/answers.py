"""How the client reads an answer: as a model, as a problem, or as a wish to be asked again later."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from strata.schemas import Problem

Model = TypeVar("Model", bound=BaseModel)


class ApiError(Exception):
    """The service's refusal, as one line. `problem` holds it whole."""

    def __init__(self, problem: Problem) -> None:
        detail = " ".join(problem.detail.split())
        super().__init__(f"{problem.title}: {detail}" if detail else f"{problem.title} ({problem.status})")
        self.problem = problem


def parse_answer(model: type[Model], response: httpx.Response, text: str | None = None) -> Model:
    """The answer (or one line of it) as a model. Raises ApiError where it is something else."""
    try:
        return model.model_validate_json(response.content if text is None else text)
    except ValidationError as error:
        detail = f"{response.url} did not give a {model.__name__}; is this Strata's address, and its version?"
        title, status = "Unexpected answer", response.status_code
        raise ApiError(Problem(type="about:blank", title=title, status=status, detail=detail)) from error


def pause_of(response: httpx.Response) -> float | None:
    """Seconds the service asks to wait before another try, or None."""
    value = response.headers.get("Retry-After")
    if response.status_code not in (429, 503) or value is None:
        return None
    try:
        seconds = float(value) if value.strip().isdigit() else _until(parsedate_to_datetime(value))
    except (ValueError, OverflowError):
        return None
    return max(0.0, seconds)


def _until(moment: datetime) -> float:
    return (moment.astimezone(UTC) - datetime.now(UTC)).total_seconds()


def problem_of(response: httpx.Response) -> Problem:
    """The problem of an answer, or one made for an answer that carries none, such as a proxy's page."""
    try:
        return Problem.model_validate_json(response.content)
    except ValidationError:
        text = " ".join(response.text.split())[:200]
        title = f"HTTP {response.status_code} {response.reason_phrase}".strip()
        return Problem(type="about:blank", title=title, status=response.status_code, detail=text)
