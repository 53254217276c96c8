"""Sessions: the flags of their cookie, the token that changes need, and all that ends one."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.message import Message
from http.cookiejar import CookieJar
from http.cookies import Morsel, SimpleCookie
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from app.http.access.attempts import FORGOTTEN, FREE, LONGEST_PAUSE, Attempts
from app.http.audit import audit_file
from app.main import create_app
from app.problems import ProblemError
from strata.keys import ApiKey, Scope, StoredKeys
from strata.keys.stored_sessions import SESSION_TIME
from strata.queue.queue import Queue
from tests.fakes import jpeg
from tests.keys.test_stored_keys import Clock
from tests.service import Answer, Service, problem, running_service

OPERATOR = "open-sesame"


@pytest.fixture
def service(queue: Queue, tmp_path: Path) -> Iterator[Service]:
    """A service that needs a key, without workers."""
    with running_service(queue, tmp_path, workers=False, api_key=OPERATOR) as running:
        yield running


@pytest.fixture
def keys(service: Service) -> StoredKeys:
    return StoredKeys(service.jobs.store)


class Browser:
    """Sends the cookie of its session, and the token if it is told to. `client` keeps no cookies itself."""

    def __init__(self, client: TestClient, secret: str, **headers: str) -> None:
        client.cookies.clear()
        self.client = client
        self.answer = client.post("/v1/session", json={"key": secret}, headers=headers)
        client.cookies.clear()
        self.view = self.answer.json()
        self.cookie = f"{morsel(self.answer).key}={morsel(self.answer).value}" if self.answer.status_code == 200 else ""

    def call(self, method: str, path: str, token: str | None = None, **more: Any) -> Answer:
        headers = {"Cookie": self.cookie} | ({"X-CSRF-Token": token} if token is not None else {})
        return self.client.request(method, path, headers=headers | more.pop("headers", {}), **more)

    def change(self, token: str | None = None, **more: Any) -> Answer:
        """A request that changes something, if it is let through: then there is no such job."""
        return self.call("POST", "/v1/jobs/none/cancel", token, **more)


def morsel(answer: Answer) -> Morsel[str]:
    (found,) = SimpleCookie(answer.headers["set-cookie"]).values()
    return found


def another_process(service: Service, **changes: Any) -> TestClient:
    """Another API process over the same store and Redis."""
    altered = service.settings.model_copy(update=changes)
    return TestClient(create_app(altered, service.jobs.queue, service.jobs.store), raise_server_exceptions=False)


def forget_keys(client: TestClient) -> None:
    """Let a process read the list of keys again, as it does after some seconds."""
    cast(Any, client.app).state.services.keys._tried_at = None


def test_the_cookie(service: Service, keys: StoredKeys) -> None:
    key, secret = keys.create("Ada", [Scope.REVIEW], "vision", datetime.now(UTC) + timedelta(hours=1))
    browser = Browser(service.client, secret)
    cookie, view = morsel(browser.answer), browser.view
    assert browser.answer.status_code == 200, browser.answer.text
    assert cookie.key == "strata_session" and cookie["httponly"] and cookie["samesite"] == "strict"
    # the key's end is the session's; without a path the browser takes that of the request, below every prefix
    assert 3500 < int(cookie["max-age"]) <= 3600 and cookie["path"] == "" == cookie["domain"] and not cookie["secure"]
    assert view["state"] == "signed_in" and view["name"] == "Ada" and view["tenant"] == "vision"
    assert view["key"] == key.id and view["scopes"] == ["read", "review"] and secret not in browser.answer.text
    assert browser.answer.headers["cache-control"] == "no-store" and cookie.value not in browser.answer.text
    # the page that is loaded again gets the same
    assert browser.call("GET", "/v1/session").json() == view
    assert browser.call("GET", "/v1/jobs").status_code == 200
    operator = Browser(service.client, f" {OPERATOR}\n")
    assert int(morsel(operator.answer)["max-age"]) > SESSION_TIME.total_seconds() - 60
    assert operator.view["name"] == "operator" and operator.view["key"] == "operator"


def test_the_cookie_is_secure_over_tls_and_has_the_port(service: Service) -> None:
    client = service.client
    # TLS to the service itself or to a declared proxy; a proxy that tells nothing; none
    assert morsel(client.post("https://testserver/v1/session", json={"key": OPERATOR}))["secure"]
    for origin, secure in (("https://testserver", True), ("http://testserver", False)):
        made = Browser(client, OPERATOR, Origin=origin)
        assert bool(morsel(made.answer)["secure"]) == secure
    assert morsel(Browser(client, OPERATOR, Host="localhost:8081").answer).key == "strata_session_8081"


@pytest.mark.parametrize("prefix", ["", "/tools/strata"])
def test_the_cookie_is_sent_below_v1_alone(service: Service, prefix: str) -> None:
    """As a browser keeps it that calls the service below a prefix, which a proxy strips."""
    header = Message()
    header["Set-Cookie"] = Browser(service.client, OPERATOR).answer.headers["set-cookie"]
    jar = CookieJar()
    request = urllib.request.Request(f"http://strata.example.org{prefix}/v1/session")
    jar.extract_cookies(cast(Any, SimpleNamespace(info=lambda: header)), request)
    assert [one.path for one in jar] == [f"{prefix}/v1"]


def test_below_a_prefix_that_the_server_knows(service: Service) -> None:
    outer = FastAPI()
    outer.mount("/tools/strata", cast(Any, service.client.app))
    client = TestClient(outer)
    assert client.get("/tools/strata/v1/jobs").status_code == 401
    assert client.get("/tools/strata/v1/session").json()["state"] == "signed_out"
    view = client.post("/tools/strata/v1/session", json={"key": OPERATOR}).json()
    assert client.get("/tools/strata/v1/jobs").status_code == 200
    answer = client.post("/tools/strata/v1/jobs/none/cancel", headers={"X-CSRF-Token": view["csrf_token"]})
    problem(answer, 404, "unknown-job")


def test_changes_need_the_token_of_the_session(service: Service) -> None:
    browser, other = Browser(service.client, OPERATOR), Browser(service.client, OPERATOR)
    token = browser.view["csrf_token"]
    for wrong in (None, "", "x", token[:-1], f"{token} ", other.view["csrf_token"], token.upper()):
        problem(browser.change(wrong), 403, "wrong-csrf-token")
    problem(browser.change(token), 404, "unknown-job")
    assert browser.call("GET", "/v1/jobs").status_code == 200
    # who sends a key in a header needs no token: another page cannot make a browser do that
    problem(browser.change(headers={"Authorization": f"Bearer {OPERATOR}"}), 404, "unknown-job")
    problem(browser.change(headers={"X-API-Key": "wrong"}), 401, "unauthorized")
    # nor does the token alone help, or a page of another origin that has it
    problem(service.client.post("/v1/jobs/none/cancel", headers={"X-CSRF-Token": token}), 401, "unauthorized")
    problem(browser.change(token, headers={"Origin": "https://evil.example"}), 403, "origin-not-allowed")


def test_a_revoked_key_ends_its_sessions(service: Service, keys: StoredKeys) -> None:
    key, secret = keys.create("Ada", [Scope.ADMIN], "vision")
    browser = Browser(service.client, secret)
    keys.revoke(key.id)
    forget_keys(service.client)
    problem(browser.call("GET", "/v1/jobs"), 401, "key-revoked")
    problem(browser.change(browser.view["csrf_token"]), 401, "key-revoked")
    view = browser.call("GET", "/v1/session").json()
    assert view["state"] == "signed_out" and "revoked" in view["reason"] and view["csrf_token"] is None
    problem(Browser(service.client, secret).answer, 401, "key-revoked")


def test_a_key_that_expires_ends_its_sessions(service: Service, keys: StoredKeys) -> None:
    key, secret = keys.create("Ada", [Scope.READ], "vision", datetime.now(UTC) + timedelta(hours=1))
    browser = Browser(service.client, secret)
    assert browser.call("GET", "/v1/jobs").status_code == 200
    path = Path(service.jobs.store.path("keys", f"{key.id}.json"))
    old = ApiKey.model_validate_json(path.read_bytes())
    expired = old.model_copy(update={"expires_at": datetime.now(UTC) - timedelta(seconds=1)})
    path.write_text(expired.model_dump_json(), encoding="utf-8")
    elsewhere = another_process(service)
    problem(Browser(elsewhere, secret).answer, 401, "key-expired")
    problem(elsewhere.get("/v1/jobs", headers={"Cookie": browser.cookie}), 401, "key-expired")


def test_processes_share_sessions_and_another_operator_s_key_ends_them(service: Service) -> None:
    browser = Browser(service.client, OPERATOR)
    cookie = {"Cookie": browser.cookie}
    assert another_process(service).get("/v1/jobs", headers=cookie).status_code == 200
    changed = another_process(service, api_key=SecretStr("another"))
    problem(changed.get("/v1/jobs", headers=cookie), 401, "unauthorized")


def test_signing_out(service: Service) -> None:
    browser = Browser(service.client, OPERATOR)
    problem(browser.call("DELETE", "/v1/session"), 403, "wrong-csrf-token")
    answer = browser.call("DELETE", "/v1/session", browser.view["csrf_token"])
    assert answer.status_code == 204 and morsel(answer)["max-age"] == "0" and morsel(answer).value == ""
    # the cookie that somebody may have kept is worth nothing, and the store has forgotten it
    problem(browser.call("GET", "/v1/jobs"), 401, "unauthorized")
    assert service.jobs.store.names("sessions") == []
    assert browser.call("GET", "/v1/session").json()["state"] == "signed_out"
    assert browser.call("DELETE", "/v1/session").status_code == 204


def test_a_session_sees_its_tenant_alone_and_may_what_its_key_may(service: Service, keys: StoredKeys) -> None:
    secrets = {name: keys.create(name, [Scope.SUBMIT], name)[1] for name in ("a", "b")}
    reader = keys.create("reader", [Scope.READ], "a")[1]
    files = {"file": ("a.jpg", jpeg())}
    one = Browser(service.client, secrets["a"])
    made = one.call("POST", "/v1/captions", one.view["csrf_token"], files=files)
    assert made.status_code == 202 and made.json()["tenant"] == "a"
    path = f"/v1/jobs/{made.json()['id']}"
    assert one.call("GET", path).status_code == 200
    problem(Browser(service.client, secrets["b"]).call("GET", path), 404, "unknown-job")
    narrow = Browser(service.client, reader)
    problem(narrow.call("POST", f"{path}/cancel", narrow.view["csrf_token"]), 403, "missing-scope")


def test_wrong_keys(service: Service) -> None:
    body = problem(Browser(service.client, "strata_wrong").answer, 401, "unauthorized")
    assert "no such key" in body["detail"] and "Authorization" not in body["detail"] and "wrong" not in body["detail"]
    for wrong in ({}, {"key": ""}, {"key": 1}, {"key": "x" * 1001}, {"key": "x", "more": 1}):
        answer = service.client.post("/v1/session", json=wrong)
        assert answer.status_code in (401, 422) and "set-cookie" not in answer.headers
    answers = [Browser(service.client, f"wrong-{number}").answer for number in range(FREE)]
    assert {answer.status_code for answer in answers} == {401, 429}
    problem(answers[-1], 429, "too-many-sign-ins")
    # also the right one has to wait, else trying would go on as before
    problem(Browser(service.client, OPERATOR).answer, 429, "too-many-sign-ins")
    assert service.client.get("/v1/jobs", headers={"X-API-Key": OPERATOR}).status_code == 200


def test_attempts_while_the_store_is_away_are_no_wrong_keys(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any) -> None:
        raise OSError(5, "away")

    with monkeypatch.context() as patched:
        patched.setattr("strata.keys.StoredKeys.all", away)
        for number in range(FREE + 2):
            forget_keys(service.client)
            problem(Browser(service.client, f"unknown-{number}").answer, 503, "storage-unavailable")
    forget_keys(service.client)
    assert Browser(service.client, OPERATOR).answer.status_code == 200


def test_pauses_grow_and_end() -> None:
    clock = Clock()
    attempts = Attempts(clock)
    for _ in range(FREE):
        attempts.begin("10.0.0.1")
    waited = []
    for _ in range(10):
        with pytest.raises(ProblemError) as caught:
            attempts.begin("10.0.0.1")
        waited.append(int(caught.value.headers["Retry-After"]))
        attempts.begin("10.0.0.2")
        attempts.succeeded("10.0.0.2")
        clock.now += waited[-1]
        attempts.begin("10.0.0.1")
    assert waited == sorted(waited) and waited[:3] == [1, 2, 4] and waited[-1] == LONGEST_PAUSE
    clock.now += FORGOTTEN
    for _ in range(FREE):
        attempts.begin("10.0.0.1")
    clock.now += 1
    attempts.begin("10.0.0.1")
    attempts.succeeded("10.0.0.1")
    attempts.begin("10.0.0.1")
    for number in range(20_000):
        attempts.begin(str(number))
    assert len(attempts._networks) <= 10_000


def test_an_open_service_needs_no_session(idle_service: Service) -> None:
    assert idle_service.client.get("/v1/session").json()["state"] == "open"
    answer = idle_service.client.post("/v1/session", json={"key": "anything"})
    assert answer.json()["state"] == "open" and "set-cookie" not in answer.headers
    stale = {"Cookie": f"strata_session={'9' * 10}-{'0' * 16}.{'a' * 43}.{'0' * 32}"}
    assert idle_service.client.post("/v1/jobs/none/cancel", headers=stale).status_code == 404


def test_a_service_that_needs_no_key_makes_links_too(queue: Queue, tmp_path: Path) -> None:
    foreign = {"Origin": "https://wiki.example", "Sec-Fetch-Site": "cross-site"}
    with running_service(queue, tmp_path) as service:
        place = service.caption(jpeg(43)).headers["Content-Location"]
        made = service.client.post(f"{place}/links").json()
        assert service.client.get(made["image"], headers=foreign).status_code == 200
        # a link that is none is none here too: for pages of other sites it is the only way
        problem(service.client.get(f"{place}/image?signature=x", headers=foreign), 403, "link-invalid")
        _, secret = StoredKeys(service.jobs.store).create("first", [Scope.ADMIN])
        forget_keys(service.client)
        assert service.client.get("/v1/jobs", headers={"X-API-Key": secret}).status_code == 200
        problem(service.client.get(made["image"]), 403, "link-invalid")


@given(text=st.text(st.characters(codec="latin-1", categories=("L", "N", "P", "S", "Zs")), max_size=90))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_other_cookie_is_none(service: Service, text: str) -> None:
    headers = {"Cookie": f"strata_session={text}".encode("latin-1")}
    problem(service.client.get("/v1/jobs", headers=cast(Any, headers)), 401, "unauthorized")


def test_an_altered_token_is_none(service: Service) -> None:
    browser = Browser(service.client, OPERATOR)
    for place in range(len("strata_session="), len(browser.cookie)):
        other = "b" if browser.cookie[place] == "a" else "a"
        altered = browser.cookie[:place] + other + browser.cookie[place + 1 :]
        problem(service.client.get("/v1/jobs", headers={"Cookie": altered}), 401, "unauthorized")


def test_the_audit_log_tells_the_way(queue: Queue, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with audit_file(path), running_service(queue, tmp_path, workers=False, api_key=OPERATOR) as service:
        key, secret = StoredKeys(service.jobs.store).create("Ada", [Scope.SUBMIT], "vision")
        browser = Browser(service.client, secret)
        browser.change(browser.view["csrf_token"])
        browser.change()
        Browser(service.client, "strata_wrong")
        service.client.post("/v1/jobs/none/cancel", headers={"X-API-Key": secret})
        browser.call("DELETE", "/v1/session", browser.view["csrf_token"])
    text = path.read_text(encoding="utf-8")
    told = [
        [line[name] for name in ("key", "via", "operation", "status")] for line in map(json.loads, text.splitlines())
    ]
    cancel = "POST /v1/jobs/{job_id}/cancel"
    assert told == [
        [key.id, "session", "POST /v1/session", 200],
        [key.id, "session", cancel, 404],
        [key.id, "session", "POST", 403],
        [None, None, "POST /v1/session", 401],
        [key.id, "key", cancel, 404],
        [key.id, "session", "DELETE /v1/session", 204],
    ]
    assert not any(word in text for word in (secret, "strata_wrong", browser.cookie, browser.view["csrf_token"]))
