"""Who may: every route with each kind of key, and what one tenant sees of another one: nothing."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.http.prefix import V1
from app.http.scopes import NEEDED, ScopedRoute
from strata.core import FINAL_GROUP
from strata.keys import Scope, StoredKeys
from strata.queue.queue import Queue
from strata.snapshots import Selection, Snapshots
from strata.store import Part, PartsOf
from tests.fakes import jpeg, wait_for_end
from tests.service import Answer, Service, problem, running_service

OPERATIONS = sorted((method, f"/v1{path}") for (method, path), scopes in NEEDED.items() if scopes)
ALL = [Scope.ADMIN]


@dataclass
class Two:
    """A service with two tenants; `a` has described an image. places: of paths, in its job."""

    service: Service
    keys: StoredKeys
    places: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)

    def secret(self, tenant: str, *scopes: Scope, **more: Any) -> str:
        """The secret of a new key, the same for the same question."""
        name = f"{tenant} {' '.join(scopes)} {' '.join(more)}"
        if name not in self.secrets:
            self.secrets[name] = self.keys.create(name, scopes, tenant, **more)[1]
        return self.secrets[name]

    def call(self, secret: str, method: str, path: str, **more: Any) -> Answer:
        """The answer to a request with a key; a path may have the places of the job of `a`."""
        address = re.sub(r"\{(\w+)(:path)?\}", lambda found: self.places[found[1]], path)
        headers = {"Authorization": f"Bearer {secret}"} | more.pop("headers", {})
        return self.service.client.request(method, address, headers=headers, **more)

    def refresh(self) -> None:
        """Let the service read the keys again, as it does after some seconds."""
        ring = self.service.client.app.state.services.keys  # type: ignore[attr-defined]
        ring._tried_at = None


@pytest.fixture(scope="module")
def two(valkey_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    queue = Queue(valkey_url)
    with running_service(queue, tmp_path_factory.mktemp("two")) as service:
        made = Two(service, StoredKeys(service.jobs.store))
        own, picture = made.secret("a", *ALL), jpeg(31)
        for tenant in ("a", "b", "default"):
            for scopes in ([Scope.ADMIN], *([scope] for scope in Scope)):
                made.secret(tenant, *scopes)
        files, wait = {"file": ("a.jpg", picture)}, {"Prefer": "wait=120"}
        record = made.call(own, "POST", "/v1/captions", files=files, headers=wait)
        assert record.status_code == 200, record.text
        job = record.headers["Content-Location"].split("/")[3]
        parts = service.jobs.store.find("parts", FINAL_GROUP)
        (part,) = (found for path in parts if (found := Part.find(path)))
        made.places = {
            "job_id": job,
            "key": record.json()["key"],
            "fingerprint": part.fingerprint,
            "identity": part.identity,
            "part": part.name.removesuffix(".parquet"),
            "row": "0",
            "sha256": hashlib.sha256(picture).hexdigest(),
        }
        yield made


def _routes(routes: Any) -> Iterator[Any]:
    for route in routes:
        inner = getattr(route, "original_router", None)
        yield from [route] if inner is None else _routes(inner.routes)


def test_every_route_below_v1_has_a_scope(two: Two) -> None:
    app: Any = two.service.client.app
    routers = [getattr(route, "original_router", None) for route in app.routes]
    (v1,) = [router for router in routers if router is not None and router.prefix == V1]
    assert all(isinstance(route, ScopedRoute) for route in _routes(v1.routes))
    scoped = {
        (method, one.path)
        for one in _routes(app.routes)
        if isinstance(one, ScopedRoute)
        for method in one.methods or ()
    }
    assert scoped == set(NEEDED)
    # the document says it, too
    paths = app.openapi()["paths"]
    for (method, path), needed in NEEDED.items():
        operation = paths[f"/v1{path}".replace(":path", "")][method.lower()]
        ways = [{name: sorted(needed)} for name in ("HTTPBearer", "APIKeyHeader")] if needed else []
        assert operation.get("security", []) == ways and {"401", "403", "429"} <= operation["responses"].keys(), path
        assert {"Retry-After", "RateLimit"} < operation["responses"]["429"]["headers"].keys(), path
    # what needs no key is the way to sign in, and nothing else
    assert {path for (_, path), needed in NEEDED.items() if not needed} == {"/session"}


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_a_key_that_is_none(two: Two, method: str, path: str) -> None:
    past = datetime.now(UTC) - timedelta(days=1)
    expired, revoked = two.secret("a", *ALL, expires_at=past), two.secret("a", Scope.ADMIN, Scope.READ)
    two.keys.revoke(next(key.id for key in two.keys.all()[0] if key.name == "a admin read "))
    two.refresh()
    for secret, name in (
        ("", "unauthorized"),
        ("wrong", "unauthorized"),
        (expired, "key-expired"),
        (revoked, "key-revoked"),
    ):
        problem(two.call(secret, method, path, content=b"{"), 401, name)


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_a_key_without_the_scope(two: Two, method: str, path: str) -> None:
    needed = NEEDED[method, path.removeprefix("/v1")]
    for scope in Scope:
        answer = two.call(two.secret("a", scope), "GET" if method == "DELETE" else method, path, content=b"{")
        if scope.includes & needed or method == "DELETE":
            assert answer.status_code != 403 and answer.status_code != 401, answer.text
        else:
            assert "scope" in problem(answer, 403, "missing-scope")["detail"]
    if method == "DELETE":
        problem(two.call(two.secret("a", Scope.SUBMIT), method, path), 403, "missing-scope")


@pytest.mark.parametrize(("method", "path"), [one for one in OPERATIONS if "{" in one[1] and "sha256" not in one[1]])
def test_what_another_tenant_has_does_not_exist(two: Two, method: str, path: str) -> None:
    name = "unknown-record" if path.startswith("/v1/rows") else "unknown-job"
    for tenant, scopes in (("b", [Scope.ADMIN]), ("default", [Scope.SUBMIT, Scope.REVIEW])):
        secret = two.secret(tenant, *scopes)
        two.refresh()
        answer = two.call(secret, method, path)
        if answer.status_code == 403:
            assert NEEDED[method, path.removeprefix("/v1")] == {Scope.ADMIN}
            continue
        body = problem(answer, 404, name)
        # word for word as for what nobody has
        other = two.places | {"job_id": "0" * 22, "fingerprint": "0" * 16}
        real, two.places = two.places, other
        nobody = problem(two.call(secret, method, path), 404, name)
        two.places = real
        assert body["detail"].replace(real["job_id"], "0" * 22) == nobody["detail"]


def test_lists_and_searches_are_kept_apart(two: Two) -> None:
    own, other, operator = (two.secret(tenant, *ALL) for tenant in ("a", "b", "default"))
    reader = two.secret("default", Scope.READ)
    job = two.places["job_id"]
    judgment = {"id": "1" * 32, "job": job, "key": two.places["key"], "reviewer": "Ada", "verdict": "accepted"}
    sent = two.call(own, "POST", "/v1/judgments", json={"judgments": [judgment]})
    assert sent.status_code == 200, sent.text
    for secret, sees in ((own, True), (operator, True), (other, False), (reader, False)):
        listed = two.call(secret, "GET", "/v1/jobs").json()["jobs"]
        assert [one["id"] for one in listed if one["id"] == job] == [job] * sees
        assert all(one["tenant"] == "a" for one in listed if sees and secret == own)
        answer = two.call(secret, "GET", "/v1/search").json()
        assert (answer["total"] + answer["waiting"] > 0) == sees, answer
        judged = two.call(secret, "GET", "/v1/judgments").json()["judgments"]
        assert bool(judged) == sees
        for path in (f"/v1/search?job={job}", f"/v1/judgments?job={job}", f"/v1/review?reviewer=Ada&job={job}"):
            answer = two.call(secret, "GET", path)
            if "review?" in path and secret == reader:
                problem(answer, 403, "missing-scope")
            elif sees:
                assert answer.status_code == 200, answer.text
            else:
                problem(answer, 404, "unknown-job")
    problem(two.call(other, "POST", "/v1/judgments", json={"judgments": [judgment]}), 404, "unknown-job")


def test_a_snapshot_belongs_to_the_tenant_of_its_jobs(two: Two) -> None:
    store, job = two.service.jobs.store, two.places["job_id"]
    parts = PartsOf(store).sources([job])
    Snapshots(store).create("of-a", parts, Selection(method="random"), [job])
    Snapshots(store).create("of-nobody", parts, Selection(method="random"), [two.places["fingerprint"]])
    for tenant, seen in (("a", ["of-a"]), ("b", []), ("default", ["of-a", "of-nobody"])):
        for name in ("of-a", "of-nobody"):
            answer = two.call(two.secret(tenant, *ALL), "GET", f"/v1/search?snapshot={name}")
            if name in seen:
                assert answer.status_code == 200, answer.text
            else:
                detail = problem(answer, 404, "unknown-snapshot")["detail"]
                assert "of-" not in detail.replace(name, "")


def test_the_hash_of_a_picture_gives_nobody_the_picture(two: Two) -> None:
    picture = jpeg(33)
    digest = hashlib.sha256(picture).hexdigest()
    own, other = (two.secret(tenant, *ALL) for tenant in ("a", "b"))
    assert two.call(own, "PUT", f"/v1/uploads/{digest}", content=picture).status_code == 201
    asked = {"sha256": [digest], "sizes": [len(picture)]}
    missing = [two.call(one, "POST", "/v1/uploads", json=asked).json()["missing"] for one in (own, other)]
    assert missing == [[], [digest]]
    batch = {"input": {"uploads": [f"{digest} a.jpg"]}}
    problem(two.call(other, "POST", "/v1/batches", json=batch), 422, "uploads-missing")
    made = two.call(own, "POST", "/v1/batches", json=batch).json()
    assert made["tenant"] == "a"
    problem(two.call(other, "GET", f"/v1/jobs/{made['id']}"), 404, "unknown-job")


def test_idempotency_keys_and_backlogs_are_a_tenant_s_own(two: Two) -> None:
    found = []
    for tenant in ("a", "b", "a"):
        files = {"file": ("a.jpg", jpeg(34))}
        secret, headers = two.secret(tenant, *ALL), {"Idempotency-Key": "one"}
        found.append(two.call(secret, "POST", "/v1/captions", files=files, headers=headers))
        assert two.call(secret, "GET", "/v1/backlog").status_code == 200
    assert [answer.headers.get("Idempotency-Replayed") for answer in found] == [None, None, "true"]
    assert found[0].json()["id"] == found[2].json()["id"] != found[1].json()["id"]
    backlogs = [two.service.jobs.backlog(tenant).jobs for tenant in ("nobody", None)]
    assert backlogs[0] == 0 <= backlogs[1]


def test_rows_are_chosen_of_what_is_one_s_own(two: Two) -> None:
    own, other = two.secret("a", *ALL), two.secret("b", *ALL)
    job, fingerprint = two.places["job_id"], two.places["fingerprint"]
    store = two.service.jobs.store
    Snapshots(store).create("chosen-from", PartsOf(store).sources([job]), Selection(), [job])
    for path in ("/v1/batches", "/v1/batches/preview"):
        for name in (job, "chosen-from", fingerprint):
            body = {"input": {"sources": [name]}}
            problem(two.call(other, "POST", path, json=body), 422, "invalid-request")
            # a data set has the rows of all tenants
            assert (two.call(own, "POST", path, json=body).status_code < 300) == (name != fingerprint)
    described = two.call(own, "POST", "/v1/batches", json={"input": {"sources": [job]}}).json()
    assert described["tenant"] == "a" and described["chosen"] == {"sources": [job], "where": None}
    wait_for_end(two.service.jobs, described["id"])
    assert two.service.jobs.view(described["id"]).request_counts.succeeded == 1
