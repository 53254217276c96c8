"""Whatever the OpenAPI document allows, and much that it does not, gets an answer that is no server error."""

from __future__ import annotations

import re
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings

from app.http.document import PROGRESS
from bench.hostile.api_cases import cases_of
from bench.processes import CHECKOUT
from tests.fakes import jpeg, wait_for_end
from tests.service import Service

EXAMPLES = 15
CONFIGURATION = CHECKOUT / "bench" / "clients" / "openapi-python-client.yml"
OPERATIONS = [
    ("POST", "/v1/captions"),
    ("POST", "/v1/batches"),
    ("POST", "/v1/batches/preview"),
    ("POST", "/v1/batches/estimate"),
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
    ("GET", "/v1/jobs/{job_id}/estimate"),
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
    ("POST", "/v1/records/{job_id}/{key}/links"),
    ("GET", "/v1/search"),
    ("GET", "/v1/search/facets"),
    ("GET", "/v1/rows/{fingerprint}/{identity}/{part}/{row}"),
    ("GET", "/v1/rows/{fingerprint}/{identity}/{part}/{row}/image"),
    ("GET", "/v1/rows/{fingerprint}/{identity}/{part}/{row}/preview.jpg"),
    ("GET", "/v1/records/{job_id}/{key}/preview.jpg"),
    ("GET", "/v1/session"),
    ("POST", "/v1/session"),
    ("DELETE", "/v1/session"),
]


@pytest.fixture(scope="module")
def ended_job(idle_service: Service) -> str:
    """A job that exists, and whose events end."""
    job = str(idle_service.caption(jpeg(), wait=None).json()["id"])
    idle_service.client.post(f"/v1/jobs/{job}/cancel")
    wait_for_end(idle_service.jobs, job)
    return job


@pytest.fixture(scope="module")
def schema(idle_service: Service) -> Any:
    """The operations of the document, by path and method, as schemathesis reads it."""
    return schemathesis.openapi.from_asgi("/openapi.json", idle_service.client.app)


def test_the_document_has_every_operation(idle_service: Service) -> None:
    document = idle_service.client.get("/openapi.json").json()
    there = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    assert there == {*OPERATIONS, ("GET", "/healthz"), ("GET", "/readyz")}


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_no_request_is_a_server_error(schema: Any, ended_job: str, method: str, path: str) -> None:
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


def test_generators_find_names_for_everything(idle_service: Service) -> None:
    """Names of functions as ids, one tag each, and every JSON body a schema of the components."""
    document = idle_service.client.get("/openapi.json").json()
    operations = [one for item in document["paths"].values() for one in item.values()]
    ids = [one["operationId"] for one in operations]
    assert len(set(ids)) == len(ids) and all(name.isidentifier() and "v1" not in name for name in ids)
    assert all(len(one["tags"]) == 1 for one in operations)
    named = set(document["components"]["schemas"])
    assert {"Problem", "FailureRow", "Record", "CaptionBody", "CaptionForm", "JobProgress", "LayersSoFar"} <= named
    for one in operations:
        for answer in (one.get("requestBody", {}), *one["responses"].values()):
            for kind, content in answer.get("content", {}).items():
                if "json" in kind or kind.startswith("multipart"):
                    told = content["itemSchema"] if kind == "application/x-ndjson" else content["schema"]
                    assert told["$ref"].rpartition("/")[2] in named, (one["operationId"], kind)
        # errors are documented with a schema, and a parameter in a header is one text
        if one["tags"] != ["health"]:
            assert {"4XX", "5XX", "422"} <= set(one["responses"])
        headers = [given["schema"] for given in one.get("parameters", ()) if given["in"] == "header"]
        assert all({kind.get("type") for kind in schema["anyOf"]} == {"string", "null"} for schema in headers)


def test_generators_know_every_media_type_and_name(idle_service: Service) -> None:
    """What openapi-python-client does not know is in the configuration that docs/api.md gives."""
    document = idle_service.client.get("/openapi.json").json()
    told = set(re.findall(r"^  (\S+):", CONFIGURATION.read_text(encoding="utf-8"), re.M))
    operations = [one for item in document["paths"].values() for one in item.values()]
    bodies = [body for one in operations for body in (one.get("requestBody", {}), *one["responses"].values())]
    used = {kind for body in bodies for kind in body.get("content", {})}
    known = {"application/json", "application/octet-stream", "multipart/form-data", "text/event-stream"}
    assert {kind for kind in used if not kind.endswith("+json")} == known | told
    assert all(re.fullmatch(r"[A-Z][A-Za-z0-9]*", name) for name in document["components"]["schemas"])


def test_every_reference_of_the_document_leads_somewhere(idle_service: Service) -> None:
    text = idle_service.client.get("/openapi.json").text
    named = idle_service.client.get("/openapi.json").json()["components"]["schemas"]
    used = set(re.findall(r'"\$ref": ?"#/components/schemas/([^"]+)"', text))
    assert {"Problem", "JobProgress"} <= used <= set(named)


def test_events_have_what_their_schemas_say(idle_service: Service, ended_job: str) -> None:
    schemas = idle_service.client.get("/openapi.json").json()["components"]["schemas"]
    assert set(schemas["JobProgress"]["properties"]) == set(PROGRESS) < set(schemas["JobView"]["properties"])
    layers = schemas["LayersSoFar"]["properties"]["layers"]["properties"]
    assert {"caption", "regions", "description"} <= set(layers) <= set(schemas["Record"]["properties"])
