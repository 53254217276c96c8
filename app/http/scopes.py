"""Which scope each operation needs: one of those in the table. A route that is not in the table cannot be made.

It is checked once the route is known and before the body is read; the OpenAPI document has it too.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response, Security
from fastapi.routing import APIRoute

from app.http.audit import note_audit
from app.http.prefix import SESSION, V1
from app.http.security import access_of, documented_key
from app.problems import KEY_RESPONSES, ProblemError
from strata.core import is_job_id
from strata.keys import Scope

_SUBMIT, _READ, _REVIEW, _ADMIN = (frozenset({scope}) for scope in Scope)
# whoever submits sees how far it is, and not what was described
_STATE = _READ | _SUBMIT

_NO_KEY: frozenset[Scope] = frozenset()

# by method and path below /v1; `review` includes `read`, and `admin` includes all
NEEDED: dict[tuple[str, str], frozenset[Scope]] = {
    ("GET", SESSION): _NO_KEY,
    ("POST", SESSION): _NO_KEY,
    ("DELETE", SESSION): _NO_KEY,
    ("POST", "/captions"): _SUBMIT,
    ("POST", "/batches"): _SUBMIT,
    ("POST", "/batches/preview"): _SUBMIT,
    ("POST", "/batches/estimate"): _SUBMIT,
    ("POST", "/uploads"): _SUBMIT,
    ("PUT", "/uploads/{sha256}"): _SUBMIT,
    ("GET", "/jobs"): _STATE,
    ("GET", "/jobs/{job_id}"): _STATE,
    ("GET", "/jobs/{job_id}/estimate"): _STATE,
    ("DELETE", "/jobs/{job_id}"): _ADMIN,
    ("POST", "/jobs/{job_id}/cancel"): _SUBMIT,
    ("POST", "/jobs/{job_id}/retry"): _SUBMIT,
    ("GET", "/jobs/{job_id}/results"): _READ,
    ("GET", "/jobs/{job_id}/failures"): _READ,
    ("GET", "/jobs/{job_id}/events"): _READ,
    ("GET", "/jobs/{job_id}/webhook"): _STATE,
    ("POST", "/jobs/{job_id}/webhook/redeliver"): _SUBMIT,
    ("GET", "/webhooks"): _STATE,
    ("GET", "/records/{job_id}/{key:path}"): _READ,
    ("GET", "/records/{job_id}/{key:path}/image"): _READ,
    ("GET", "/records/{job_id}/{key:path}/preview.jpg"): _READ,
    ("GET", "/records/{job_id}/{key:path}/overlay.png"): _READ,
    ("POST", "/records/{job_id}/{key:path}/links"): _READ,
    ("GET", "/rows/{fingerprint}/{identity}/{part}/{row}"): _READ,
    ("GET", "/rows/{fingerprint}/{identity}/{part}/{row}/image"): _READ,
    ("GET", "/rows/{fingerprint}/{identity}/{part}/{row}/preview.jpg"): _READ,
    ("GET", "/search"): _READ,
    ("GET", "/search/facets"): _READ,
    ("GET", "/judgments"): _READ,
    ("POST", "/judgments"): _REVIEW,
    ("GET", "/review"): _REVIEW,
    ("GET", "/profiles"): _STATE,
    ("GET", "/backlog"): _STATE,
    ("GET", "/workers"): _STATE,
}


class ScopedRoute(APIRoute):
    """A route below /v1. Its handler refuses a key without the scope that the table has for it."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        methods = {str(method) for method in options.get("methods") or ("GET",)}
        (self.needed,) = {NEEDED[method, path] for method in methods}
        if self.needed:
            scopes = sorted(scope.value for scope in self.needed)
            options["dependencies"] = [Security(documented_key, scopes=scopes), *(options.get("dependencies") or ())]
        options["responses"] = {**(options.get("responses") or {}), **KEY_RESPONSES}
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The route's handler, which first checks the scopes of the request's key."""
        handle = super().get_route_handler()

        async def handle_allowed(request: Request) -> Response:
            self.check(request)
            return await handle(request)

        return handle_allowed

    def check(self, request: Request) -> None:
        """Tell the audit log what is asked for. Raises ProblemError unless the request's key has a needed scope."""
        job = request.path_params.get("job_id", "")
        operation = f"{request.method} {V1}{self.path_format}"
        note_audit(request.scope, operation=operation, job=job if is_job_id(job) else None)
        if not self.needed:
            return
        access = access_of(request)
        if not access.may(self.needed):
            names = " or ".join(f"`{scope.value}`" for scope in sorted(self.needed))
            detail = f"this needs a key with the scope {names}; the key {access.key_id} has {_listed(access.scopes)}"
            raise ProblemError("missing-scope", detail)


def _listed(scopes: frozenset[Scope]) -> str:
    return ", ".join(f"`{scope.value}`" for scope in sorted(scopes))
