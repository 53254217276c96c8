"""Signed links to images: good for one picture and for a time, and for nothing else."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from urllib.parse import parse_qsl, unquote, urlsplit

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.http.access.links import KEPT_SECONDS, LONGEST_SECONDS
from app.http.audit import audit_file
from strata.client import Client
from strata.keys import Scope, StoredKeys
from strata.queue.queue import Queue
from tests.app.access.test_audit import lines
from tests.app.access.test_sessions import OPERATOR, forget_keys
from tests.fakes import jpeg
from tests.service import Answer, Service, problem, running_service

FILES = ("image", "preview", "overlay")
# as the page of another site asks for an image
FOREIGN = {"Origin": "https://wiki.example", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "image"}


@dataclass
class Shown:
    """A service with two described images of the tenant `a`. secret: of a key of `a` that reads; made: its links."""

    service: Service
    keys: StoredKeys
    places: list[str]
    secret: str
    made: list[str] = field(default_factory=list)

    def links(self, place: int = 0, secret: str | None = None, **query: Any) -> Any:
        """The links to an image, for a key."""
        headers = {"X-API-Key": secret or self.secret}
        answer = self.service.client.post(f"{self.places[place]}/links", headers=headers, params=query)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def get(self, url: str, **headers: str) -> Answer:
        return self.service.client.get(url, headers=headers)


@pytest.fixture(scope="module")
def shown(valkey_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    folder = tmp_path_factory.mktemp("links")
    audit = audit_file(folder / "audit.jsonl")
    with audit, running_service(Queue(valkey_url), folder, api_key=OPERATOR, audit_reads=True) as service:
        keys = StoredKeys(service.jobs.store)
        writer, secret = (keys.create(scope.value, [scope], "a")[1] for scope in (Scope.SUBMIT, Scope.READ))
        places = []
        for seed in (41, 42):
            headers = {"X-API-Key": writer, "Prefer": "wait=120"}
            answer = service.client.post("/v1/captions", files={"file": ("a.jpg", jpeg(seed))}, headers=headers)
            assert answer.status_code == 200, answer.text
            places.append(answer.headers["Content-Location"])
        found = Shown(service, keys, places, secret)
        found.made = [found.links()[name] for name in FILES]
        yield found


def audited(shown: Shown) -> dict[str, Any]:
    """The last line of the audit log."""
    return lines(shown.service.settings.data_dir.parent / "audit.jsonl")[-1]


def test_a_link_shows_what_a_key_shows_and_other_sites_may_too(shown: Shown) -> None:
    made = shown.links(expires_in=3600, side=64)
    assert abs(datetime.fromisoformat(made["expires_at"]).timestamp() - time.time() - 3600) < 60
    for name, file in zip(FILES, ("image", "preview.jpg?side=64", "overlay.png"), strict=True):
        own = shown.get(f"{shown.places[0]}/{file}", **{"X-API-Key": shown.secret})
        for headers in ({}, FOREIGN, FOREIGN | {"X-API-Key": "wrong", "Cookie": "strata_session=x"}):
            answer = shown.get(made[name], **headers)
            assert answer.status_code == 200 and answer.content == own.content, answer.text
            assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
            assert answer.headers["cache-control"] == f"private, max-age={KEPT_SECONDS}"
        assert own.headers["cache-control"] == "private, no-cache"
        assert own.headers["cross-origin-resource-policy"] == "same-origin"
    # without the signature such a page gets nothing, whatever key the browser may have
    problem(shown.get(made["image"].partition("&signature")[0], **FOREIGN), 403, "origin-not-allowed")
    # a link in a mail, which a person follows
    followed = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert shown.get(made["image"], **followed).status_code == 200


def test_no_browser_keeps_the_image_longer_than_the_link_is_valid(shown: Shown) -> None:
    answer = shown.get(shown.links(expires_in=60)["preview"])
    kept = re.fullmatch(r"private, max-age=(\d+)", answer.headers["cache-control"])
    assert kept and 0 < int(kept[1]) <= 60


def test_a_link_has_an_end(shown: Shown) -> None:
    for wrong in (0, -1, LONGEST_SECONDS + 1, "x", 1.5, "9" * 30):
        headers = {"X-API-Key": shown.secret}
        answer = shown.service.client.post(f"{shown.places[0]}/links", headers=headers, params={"expires_in": wrong})
        problem(answer, 422, "invalid-request")
    soon = datetime.now(UTC) + timedelta(minutes=5)
    _, secret = shown.keys.create("soon", [Scope.READ], "a", soon)
    forget_keys(shown.service.client)
    made = shown.links(secret=secret, expires_in=LONGEST_SECONDS)
    assert soon - timedelta(seconds=2) <= datetime.fromisoformat(made["expires_at"]) <= soon
    # one whose time is over; only who has a right link is told that
    services: Any = shown.service.client.app.state.services  # type: ignore[attr-defined]
    access = services.keys.find([shown.secret.encode()])
    job, key = shown.places[0].split("/")[3:5]
    over = services.links.make(access, job, key, "image", {}, int(time.time()))
    problem(shown.get(over), 403, "link-expired")
    problem(shown.get(over.replace("image?", "overlay.png?")), 403, "link-invalid")


def test_a_link_is_good_for_its_image_alone(shown: Shown) -> None:
    made, other = shown.links(), shown.links(1)
    query = urlsplit(made["image"]).query
    for name in FILES:
        assert shown.get(made[name]).status_code == 200
        for path in {urlsplit(links[one]).path for links in (made, other) for one in FILES}:
            if path != urlsplit(made[name]).path:
                problem(shown.get(f"{path}?{urlsplit(made[name]).query}"), 403, "link-invalid")
    for path in (shown.places[0], f"{shown.places[0]}/links", "/v1/jobs", "/v1/search", "/v1/session"):
        answer = shown.get(f"{path}?{query}")
        assert answer.status_code in (401, 422)
        problem(shown.get(f"{path}?{query}", **FOREIGN), 403, "origin-not-allowed")
    for method in ("POST", "DELETE", "PUT"):
        problem(shown.service.client.request(method, made["image"]), 401, "unauthorized")
    # the parameters of a link are signed, and none can be added
    for more in ("&side=2048", "&identity=00", "&uri=file%3A%2F", f"&expires={2**40}", "&key_id=operator", "&x="):
        for link in (made["image"], made["preview"]):
            problem(shown.get(link + more), 403, "link-invalid")
    for name in ("expires", "key_id"):
        problem(shown.get(re.sub(rf"{name}=[^&]*&", "", made["image"])), 403, "link-invalid")


def test_a_link_may_be_encoded_in_another_way(shown: Shown) -> None:
    path, _, query = shown.links(side=128)["preview"].partition("?")
    pairs = query.split("&")
    assert shown.get(f"{path}?{'&'.join(reversed(pairs))}").status_code == 200
    assert shown.get(f"{path.replace('preview', 'p%72eview')}?{query.replace('128', '%31%32%38')}").status_code == 200


@given(data=st.data())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_altered_link_shows_nothing(shown: Shown, data: st.DataObject) -> None:
    link = data.draw(st.sampled_from(shown.made))
    place = data.draw(st.integers(len("/v1/"), len(link)))
    kind = data.draw(st.sampled_from(["replace", "insert", "delete", "swap"]))
    new = data.draw(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="#"))
    rest = {"replace": new + link[place + 1 :], "insert": new + link[place:], "delete": link[place + 1 :]}
    altered = link[:place] + (rest[kind] if kind != "swap" else link[place : place + 2][::-1] + link[place + 2 :])
    if _read(altered) == _read(link):  # nothing was changed, or a letter of %2f
        return
    answer = shown.get(altered)
    assert answer.status_code in (401, 403, 404, 422), (altered, answer.status_code)
    assert not answer.headers["content-type"].startswith("image/")


def _read(link: str) -> object:
    parts = urlsplit(link)
    return unquote(parts.path), sorted(parse_qsl(parts.query, keep_blank_values=True))


def test_the_key_that_has_made_a_link_ends_it(shown: Shown) -> None:
    key, secret = shown.keys.create("short", [Scope.READ], "a")
    forget_keys(shown.service.client)
    made = shown.links(secret=secret)
    assert audited(shown)["key"] == key.id and audited(shown)["operation"].endswith("/{key}/links")
    assert shown.get(made["image"]).status_code == 200
    assert (audited(shown)["key"], audited(shown)["via"]) == (key.id, "link")
    shown.keys.revoke(key.id)
    forget_keys(shown.service.client)
    body = problem(shown.get(made["image"]), 403, "link-invalid")
    # who has a link is not told more than that, and the log tells whose it was
    assert "revoked" not in body["detail"] and key.id not in body["detail"] and audited(shown)["key"] == key.id
    problem(shown.get(made["image"].replace(key.id, "operator")), 403, "link-invalid")
    problem(shown.get(made["image"].replace(key.id, "0" * 12)), 403, "link-invalid")
    assert audited(shown)["key"] is None


def test_only_who_sees_a_record_makes_links_to_it(shown: Shown) -> None:
    _, other = shown.keys.create("other", [Scope.ADMIN], "b")
    forget_keys(shown.service.client)
    answer = shown.service.client.post(f"{shown.places[0]}/links", headers={"X-API-Key": other})
    problem(answer, 404, "unknown-job")
    absent = shown.places[0].rpartition("/")[0] + "/absent/links"
    problem(shown.service.client.post(absent, headers={"X-API-Key": shown.secret}), 404, "unknown-record")
    # the operator sees all tenants, and so do the operator's links
    assert shown.get(shown.links(secret=OPERATOR)["overlay"]).status_code == 200


def test_links_below_a_prefix_that_the_server_knows(shown: Shown) -> None:
    outer = FastAPI()
    outer.mount("/tools/strata", cast(Any, shown.service.client.app))
    client = TestClient(outer)
    made = client.post(f"/tools/strata{shown.places[0]}/links", headers={"X-API-Key": shown.secret}).json()
    assert made["image"].startswith("/tools/strata/v1/records/")
    assert client.get(made["image"], headers=FOREIGN).status_code == 200
    # a proxy may strip the prefix
    assert shown.get(made["image"].removeprefix("/tools/strata"), **FOREIGN).status_code == 200


def test_the_client_gives_whole_addresses(shown: Shown) -> None:
    """Also below a prefix, which a proxy strips."""
    asked: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        path = request.url.raw_path.decode().removeprefix("/tools/strata")
        answer = shown.service.client.request(request.method, path, headers=dict(request.headers))
        return httpx.Response(answer.status_code, content=answer.content)

    job, key = shown.places[0].split("/")[3:5]
    base = "http://testserver/tools/strata"
    with Client(base, shown.secret, transport=httpx.MockTransport(handle)) as client:
        made = client.image_links(job, key, 60, side=32)
    assert asked == [f"{base}{shown.places[0]}/links?expires_in=60&side=32"]
    for link in (made.image, made.preview, made.overlay):
        assert link.startswith(f"{base}/v1/records/")
        assert shown.get(link.removeprefix(base)).status_code == 200
