"""Whatever the OpenAPI document allows, and much that it does not, gets an answer that is no server error."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings

from bench.hostile.api_cases import cases_of
from tests.fakes import jpeg, wait_for_end
from tests.service import Service

EXAMPLES = 15
OPERATIONS = [
    ("POST", "/v1/captions"),
    ("POST", "/v1/batches"),
    ("POST", "/v1/batches/preview"),
    ("POST", "/v1/uploads"),
    ("PUT", "/v1/uploads/{sha256}"),
    ("GET", "/v1/jobs"),
    ("GET", "/v1/jobs/{job_id}"),
    ("DELETE", "/v1/jobs/{job_id}"),
    ("POST", "/v1/jobs/{job_id}/cancel"),
    ("POST", "/v1/jobs/{job_id}/retry"),
    ("GET", "/v1/jobs/{job_id}/results"),
    ("GET", "/v1/jobs/{job_id}/failures"),
    ("GET", "/v1/jobs/{job_id}/events"),
    ("GET", "/v1/profiles"),
    ("GET", "/v1/backlog"),
    ("GET", "/v1/workers"),
    ("GET", "/v1/webhooks"),
    ("GET", "/v1/jobs/{job_id}/webhook"),
    ("POST", "/v1/jobs/{job_id}/webhook/redeliver"),
    ("POST", "/v1/judgments"),
    ("GET", "/v1/judgments"),
    ("GET", "/v1/review"),
    ("GET", "/v1/records/{job_id}/{key}"),
    ("GET", "/v1/records/{job_id}/{key}/image"),
    ("GET", "/v1/records/{job_id}/{key}/overlay.png"),
    ("GET", "/v1/search"),
    ("GET", "/v1/search/facets"),
    ("GET", "/v1/rows/{fingerprint}/{identity}/{part}/{row}"),
    ("GET", "/v1/rows/{fingerprint}/{identity}/{part}/{row}/image"),
    ("GET", "/v1/rows/{fingerprint}/{identity}/{part}/{row}/preview.jpg"),
    ("GET", "/v1/records/{job_id}/{key}/preview.jpg"),
]


@pytest.fixture(scope="module")
def ended_job(idle_service: Service) -> str:
    """A job that exists, and whose events end."""
    job = str(idle_service.caption(jpeg(), wait=None).json()["id"])
    idle_service.client.post(f"/v1/jobs/{job}/cancel")
    wait_for_end(idle_service.jobs, job)
    return job


def test_the_document_has_every_operation(idle_service: Service) -> None:
    document = idle_service.client.get("/openapi.json").json()
    there = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    assert there == {*OPERATIONS, ("GET", "/healthz"), ("GET", "/readyz")}


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_no_request_is_a_server_error(idle_service: Service, ended_job: str, method: str, path: str) -> None:
    schema: Any = schemathesis.openapi.from_asgi("/openapi.json", idle_service.client.app)

    @given(case=cases_of(schema[path][method], ended_job))
    @settings(
        max_examples=EXAMPLES,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def check(case: Any) -> None:
        response = case.call()
        assert response.status_code < 500, (response.status_code, response.text)
        if response.status_code >= 400:
            assert response.headers["content-type"] == ["application/problem+json"]

    check()
