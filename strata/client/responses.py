"""Responses of the service: how they are parsed, and the errors that are raised for error responses."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from strata.core import Problem
from strata.errors import RequestRefused, ServiceUnavailable

Model = TypeVar("Model", bound=BaseModel)


class ApiError(RequestRefused):
    """An error response of the service; the message is one line, and `problem` has all fields."""

    def __init__(self, problem: Problem) -> None:
        # a proxy's page may have many lines
        detail = " ".join(problem.detail.split())
        super().__init__(f"{problem.title}: {detail}" if detail else f"{problem.title} ({problem.status})")
        self.problem = problem

    @classmethod
    def of(cls, problem: Problem) -> ApiError:
        """The error for a problem: ApiUnavailable for a failure of the service (5xx), else ApiError."""
        return (ApiUnavailable if problem.status >= 500 else cls)(problem)


class ApiUnavailable(ServiceUnavailable, ApiError):
    """The service responded that it cannot serve the request now."""


def parse_response(model: type[Model], response: httpx.Response, text: str | None = None) -> Model:
    """Parse a response's body, or one line of it, as a model. Raises ApiError if it is not one."""
    try:
        return model.model_validate_json(response.content if text is None else text)
    except ValidationError as error:
        raise unexpected(response, f"a {model.__name__}") from error


def unexpected(response: httpx.Response, wanted: str) -> ApiError:
    """The error for a response in another format, such as a page of another server at this address."""
    detail = f"{response.url} did not return {wanted}; check the address, and the version of the service"
    title, status = "Unexpected response", response.status_code
    return ApiError.of(Problem(type="about:blank", title=title, status=status, detail=detail))


def pause_of(response: httpx.Response) -> float | None:
    """The seconds of a 429 or 503 response's Retry-After, or None."""
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
    """Parse the problem of an error response. A response without one, such as a proxy's page, is converted to one."""
    try:
        return Problem.model_validate_json(response.content)
    except ValidationError:
        text = " ".join(response.text.split())[:200]
        title = f"HTTP {response.status_code} {response.reason_phrase}".strip()
        return Problem(type="about:blank", title=title, status=response.status_code, detail=text)
