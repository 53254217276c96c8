"""Problem details (RFC 9457): every error of the service, each with a stable type that docs/problems.md documents."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any, cast

import redis
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from app.problem_types import PROBLEMS, ProblemType
from strata.core.errors import StrataError
from strata.core.schemas import Problem

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = "2"  # seconds
_OF_STATUS = {
    400: "malformed-request",
    404: "not-found",
    405: "method-not-allowed",
    413: "body-too-large",
    415: "unsupported-media-type",
}
_DOCUMENTED: dict[str, Any] = {
    "description": "A problem",
    "content": {MEDIA_TYPE: {"schema": Problem.model_json_schema()}},
}
PROBLEM_RESPONSES: dict[int | str, dict[str, Any]] = {
    422: _DOCUMENTED,
    "4XX": _DOCUMENTED,
    "5XX": _DOCUMENTED,
}


class ProblemError(StrataError):
    """An answer that is a problem. name: one of PROBLEMS; detail: what is wrong here, and what would be right."""

    def __init__(
        self,
        name: str,
        detail: str,
        errors: Sequence[Mapping[str, Any]] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.name, self.detail, self.errors, self.headers = name, detail, errors, dict(headers or {})

    def response(self) -> Response:
        """As an HTTP answer."""
        return problem_response(PROBLEMS[self.name], self.detail, self.errors, self.headers)


def problem_response(
    kind: ProblemType,
    detail: str,
    errors: Sequence[Mapping[str, Any]] | None = None,
    headers: Mapping[str, str] | None = None,
    status: int | None = None,
) -> Response:
    """A problem as an HTTP answer. ASCII only, because a detail may quote text that UTF-8 cannot encode."""
    body: dict[str, Any] = {
        "type": kind.uri,
        "title": kind.title,
        "status": status or kind.status,
        "detail": detail,
    }
    if errors is not None:
        body["errors"] = list(errors)
    given = dict(headers or {})
    if body["status"] == 503:
        given.setdefault("Retry-After", RETRY_AFTER)
    return Response(json.dumps(body), status_code=body["status"], headers=given, media_type=MEDIA_TYPE)


def validation_errors(errors: Sequence[Any]) -> list[dict[str, Any]]:
    """Pydantic's errors without the input, which may be megabytes long or the caller's secret."""
    return [
        {"type": error["type"], "location": [str(part) for part in error["loc"]], "message": error["msg"]}
        for error in errors[:100]
    ]


def invalid_request(errors: Sequence[Any]) -> ProblemError:
    """The problem of a request that does not validate; its detail names the first of pydantic's errors."""
    told = validation_errors(errors)
    first = told[0]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    place = ".".join(first["location"]) or "the body"
    return ProblemError("invalid-request", f"{place[:200]}: {first['message'][:300]}{more}", told)


def install(app: FastAPI) -> None:
    """Make every error of the application a problem."""
    app.add_exception_handler(ProblemError, _problem)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(redis.ConnectionError, _redis)
    app.add_exception_handler(redis.TimeoutError, _redis)
    app.add_exception_handler(redis.exceptions.OutOfMemoryError, _redis)
    app.add_exception_handler(Exception, _unexpected)


def _problem(request: Request, error: Exception) -> Response:
    return cast(ProblemError, error).response()


def _http(request: Request, error: Exception) -> Response:
    http = cast(HTTPException, error)
    kind = PROBLEMS[
        _OF_STATUS.get(http.status_code, "malformed-request" if http.status_code < 500 else "internal-error")
    ]
    details = {
        404: f"there is nothing at {request.url.path}",
        405: f"{request.method} is not possible at {request.url.path}",
    }
    return problem_response(
        kind, details.get(http.status_code, str(http.detail)), headers=http.headers, status=http.status_code
    )


def _validation(request: Request, error: Exception) -> Response:
    return invalid_request(cast(RequestValidationError, error).errors()).response()


def _redis(request: Request, error: Exception) -> Response:
    log.warning("%s %s: Redis cannot be used: %s", request.method, request.url.path, error)
    return ProblemError("redis-unavailable", "the queue cannot be reached now; please try again").response()


def _unexpected(request: Request, error: Exception) -> Response:
    # Starlette raises the error again after the answer is sent, so the server logs the trace
    log.error("%s %s failed: %r", request.method, request.url.path, error)
    return ProblemError("internal-error", "an unexpected error; the service's log has the details").response()
