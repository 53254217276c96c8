"""Problem details (RFC 9457): every error response of the service has a stable type, see docs/problems.md."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any, cast

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from app.problem_types import PROBLEMS, ProblemType
from strata.addresses import without_secrets
from strata.errors import DamagedFile, QueueFull, QueueUnavailable, QuotaExceeded, StrataError, fault_line
from strata.jobs import UnknownJob
from strata.snapshots import UnknownSnapshot
from strata.store import storage_fault

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = {503: "2", 507: "30"}  # seconds
# the problem types of errors that Starlette and FastAPI raise with only a status
_OF_STATUS = {
    400: "malformed-request",
    404: "not-found",
    405: "method-not-allowed",
    413: "body-too-large",
    415: "unsupported-media-type",
    422: "invalid-request",
    503: "too-busy",
}
_DOCUMENTED: dict[str, Any] = {
    "description": "A problem",
    "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
}
PROBLEM_RESPONSES: dict[int | str, dict[str, Any]] = {
    422: {
        **_DOCUMENTED,
        "description": "A problem: the request is invalid, as with a parameter that is not known here",
    },
    "4XX": _DOCUMENTED,
    "5XX": _DOCUMENTED,
}
# of each route below /v1
KEY_RESPONSES: dict[int | str, dict[str, Any]] = {
    401: {**_DOCUMENTED, "description": "A problem: there is no key, or it is unknown, expired or revoked"},
    403: {**_DOCUMENTED, "description": "A problem: the key lacks the scope that is needed"},
    429: {
        **_DOCUMENTED,
        "description": "A problem: a quota of the key is used up, or its share of the queue or of the streams",
        "headers": {
            "Retry-After": {"description": "Seconds", "schema": {"type": "integer"}},
            "RateLimit": {"description": "How each quota stands that was asked for", "schema": {"type": "string"}},
            "RateLimit-Policy": {"description": "What these quotas are", "schema": {"type": "string"}},
        },
    },
}
LONGEST_RETRY = 86_400  # seconds, also where waiting alone does not help: somebody has to make room or raise a quota


class ProblemError(StrataError):
    """An error with a problem as its response. name: a key of PROBLEMS; detail: the cause, and how to fix it."""

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
        """The HTTP response."""
        return problem_response(PROBLEMS[self.name], self.detail, self.errors, self.headers)


def problem_response(
    kind: ProblemType,
    detail: str,
    errors: Sequence[Mapping[str, Any]] | None = None,
    headers: Mapping[str, str] | None = None,
    status: int | None = None,
) -> Response:
    """A problem as an HTTP response, without the users, passwords and queries of URLs.

    It is ASCII only, because a detail may quote text that UTF-8 cannot encode.
    """
    body: dict[str, Any] = {
        "type": kind.uri,
        "title": kind.title,
        "status": status or kind.status,
        "detail": detail,
    }
    if errors is not None:
        body["errors"] = list(errors)
    # tell clients of an unavailable service when to retry
    given = dict(headers or {})
    if body["status"] in RETRY_AFTER:
        given.setdefault("Retry-After", RETRY_AFTER[body["status"]])
    return Response(
        json.dumps(_without_secrets(body)), status_code=body["status"], headers=given, media_type=MEDIA_TYPE
    )


def _without_secrets(value: Any) -> Any:
    """The value with the secrets removed from all its texts."""
    if isinstance(value, Mapping):
        return {name: _without_secrets(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_without_secrets(inner) for inner in value]
    return without_secrets(value) if isinstance(value, str) else value


def validation_errors(errors: Sequence[Any]) -> list[dict[str, Any]]:
    """Pydantic's errors, at most 100, without the input, which may be megabytes long or a secret of the caller."""
    return [
        {"type": error["type"], "location": [str(part) for part in error["loc"]], "message": fault_line(error)}
        for error in errors[:100]
    ]


def invalid_request(errors: Sequence[Any]) -> ProblemError:
    """The problem for an invalid request; its detail is the first of pydantic's errors."""
    entries = validation_errors(errors)
    first = entries[0]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    location = ".".join(first["location"]) or "the body"
    return ProblemError("invalid-request", f"{location[:200]}: {first['message'][:300]}{more}", entries)


def install(app: FastAPI) -> None:
    """Register the handlers that convert every error of the application to a problem.

    They are asynchronous, because Starlette runs any other in a thread: a refusal must not wait for one.
    """
    app.add_exception_handler(ProblemError, _problem)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(QueueUnavailable, _queue_unavailable)
    app.add_exception_handler(QueueFull, _queue_full)
    app.add_exception_handler(QuotaExceeded, _quota_exceeded)
    app.add_exception_handler(UnknownJob, _unknown_job)
    app.add_exception_handler(UnknownSnapshot, _unknown_snapshot)
    app.add_exception_handler(DamagedFile, _damaged_file)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(OSError, _storage)
    app.add_exception_handler(Exception, _unexpected)


async def _problem(request: Request, error: Exception) -> Response:
    return cast(ProblemError, error).response()


async def _http(request: Request, error: Exception) -> Response:
    # keep the status of the exception, but choose the problem type that describes it
    http = cast(HTTPException, error)
    kind = PROBLEMS[
        _OF_STATUS.get(http.status_code, "malformed-request" if http.status_code < 500 else "internal-error")
    ]
    # Starlette's own texts name neither the path nor the method
    details = {
        404: f"nothing exists at {request.url.path}",
        405: f"{request.url.path} does not support {request.method}",
    }
    return problem_response(
        kind, details.get(http.status_code, str(http.detail)), headers=http.headers, status=http.status_code
    )


async def _validation(request: Request, error: Exception) -> Response:
    return invalid_request(cast(RequestValidationError, error).errors()).response()


async def _unknown_job(request: Request, error: Exception) -> Response:
    # at any point of a request: another one may have deleted the job
    return ProblemError("unknown-job", str(error)).response()


async def _unknown_snapshot(request: Request, error: Exception) -> Response:
    return ProblemError("unknown-snapshot", str(error)).response()


async def _damaged_file(request: Request, error: Exception) -> Response:
    log.error("%s %s: %s", request.method, request.url.path, error)
    return ProblemError("damaged-file", str(error)).response()


async def _queue_unavailable(request: Request, error: Exception) -> Response:
    log.warning("%s %s: Redis is not available: %s", request.method, request.url.path, _one_line(error))
    return ProblemError("redis-unavailable", "the queue is not available now; please try again later").response()


async def _queue_full(request: Request, error: Exception) -> Response:
    full = cast(QueueFull, error)
    name = "share-used" if full.own else "queue-full"
    return ProblemError(name, str(full), headers={"Retry-After": str(full.seconds)}).response()


def quota_problem(error: QuotaExceeded) -> ProblemError:
    """The problem of a quota that is used up."""
    seconds = LONGEST_RETRY if error.seconds is None else min(error.seconds, LONGEST_RETRY)
    return ProblemError("quota-exceeded", str(error), headers={"Retry-After": str(seconds)})


async def _quota_exceeded(request: Request, error: Exception) -> Response:
    return quota_problem(cast(QuotaExceeded, error)).response()


def tell_storage_fault(request: Request, error: Exception, fault: str) -> None:
    """Tell a fault of the storage that a request has met in the log, and for `/readyz`."""
    log.warning("%s %s: the storage is %s: %s", request.method, request.url.path, fault, _one_line(error))
    request.app.state.services.store_probe.report(error)


async def _storage(request: Request, error: Exception) -> Response:
    """The problem for a storage that is full or away. Any other OSError is a programming error, and is raised again."""
    fault = storage_fault(error)
    if fault is None:
        raise error
    tell_storage_fault(request, error, fault)
    full = "the storage of the service is full; nothing of the request was kept"
    away = "the storage of the service is not available now; please try again later"
    return ProblemError(f"storage-{fault}", full if fault == "full" else away).response()


async def _gone(request: Request, error: Exception) -> Response:
    """The client went away while its body was read: nobody gets this response, and it is no error of the service."""
    return problem_response(PROBLEMS["malformed-request"], "the body of the request is incomplete")


def _one_line(error: Exception) -> str:
    """The text of an error for the log, without the secrets of its URLs."""
    return " ".join(without_secrets(str(error)).split())[:500]


async def _unexpected(request: Request, error: Exception) -> Response:
    # Starlette raises the error again after the response is sent, so that the server logs its traceback
    log.error("%s %s failed: %r", request.method, request.url.path, error)
    return ProblemError("internal-error", "an unexpected error; the log of the service has the details").response()
