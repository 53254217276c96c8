"""Every route refuses a parameter of the URL that it does not have, and a second value of one that takes one."""

from __future__ import annotations

import re

import pytest

from tests.app.test_openapi import OPERATIONS
from tests.service import Service, problem

PATHS = {
    "sha256": "0" * 64,
    "job_id": "0" * 22,
    "key": "a",
    "fingerprint": "0" * 16,
    "identity": "0" * 16,
    "part": "00000",
    "row": "0",
}


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_every_route_refuses_an_unknown_parameter(idle_service: Service, method: str, path: str) -> None:
    address = re.sub(r"\{(\w+)\}", lambda found: PATHS[found[1]], path)
    body = problem(idle_service.client.request(method, address, params={"nonsense": "1"}), 422, "invalid-request")
    (error,) = body["errors"]
    assert error["type"] == "unknown_parameter" and error["location"] == ["query", "nonsense"]
    # what the document has is not refused as unknown
    document = idle_service.client.get("/openapi.json").json()["paths"][path][method.lower()]
    known = [one["name"] for one in document.get("parameters", ()) if one["in"] == "query"]
    response = idle_service.client.request(method, address, params=dict.fromkeys(known, "1"))
    assert "unknown_parameter" not in response.text
    assert all(name in error["message"] for name in known) and (known or "there are: none" in error["message"])


@pytest.mark.parametrize(
    ("address", "name", "told"),
    [
        ("/v1/jobs?stauts=failed", "stauts", "did you mean 'status'?"),
        ("/v1/jobs?limit=1&limit=2", "limit", "several are given"),
        ("/v1/jobs?=1", "", "there are: "),
        ("/v1/search?job=a&thnig=dog", "thnig", "did you mean 'thing'?"),
        ("/v1/search/facets?limit=1", "limit", "unknown parameter"),
        ("/v1/search?has_text=true&has_text=false", "has_text", "several are given"),
        ("/v1/review?reviewer=a&" + "x" * 3000 + "=1", "x" * 100, "there are: "),
    ],
)
def test_the_nearest_name_is_told(idle_service: Service, address: str, name: str, told: str) -> None:
    body = problem(idle_service.client.get(address), 422, "invalid-request")
    assert body["errors"][0]["location"] == ["query", name] and told in body["errors"][0]["message"]
    assert body["detail"].startswith(f"query.{name}: ") or not name


def test_a_list_may_have_several_values(idle_service: Service) -> None:
    response = idle_service.client.get("/v1/jobs", params={"limit": 1, "status": "failed", "kind": "batch"})
    assert response.status_code == 200
    response = idle_service.client.get("/v1/search?status=failed&status=filtered&thing=a&thing=b")
    assert response.status_code in (200, 503)
