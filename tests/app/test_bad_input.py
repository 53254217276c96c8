"""Everything that can be wrong with a request gets a problem that helps; nothing gets a 500."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import jpeg
from tests.service import MAX_BODY, Service, png, problem

CAPTIONS, BATCHES = "/v1/captions", "/v1/batches"


def test_no_image(idle_service: Service) -> None:
    body = problem(idle_service.client.post(CAPTIONS), 422, "invalid-request")
    assert "multipart/form-data" in body["detail"]
    problem(idle_service.client.post(CAPTIONS, json={}), 422, "invalid-request")
    problem(idle_service.client.post(CAPTIONS, files={"image": ("a.jpg", jpeg())}), 422, "invalid-request")
    problem(
        idle_service.client.post(CAPTIONS, data={"alt_text": "x"}, files={"file": (None, "text")}),
        422,
        "invalid-request",
    )


def test_two_images(idle_service: Service) -> None:
    two = [("file", ("a.jpg", jpeg())), ("file", ("b.jpg", jpeg()))]
    assert "2 images" in problem(idle_service.client.post(CAPTIONS, files=two), 422, "invalid-request")["detail"]
    both = {"image_url": "http://example.com/a.jpg", "image_base64": "aaaa"}
    problem(idle_service.client.post(CAPTIONS, json=both), 422, "invalid-request")
    many = [("file", (f"{i}.jpg", b"x")) for i in range(20)]
    problem(idle_service.client.post(CAPTIONS, files=many), 400, "malformed-request")


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "empty"),
        (b"this is a text file\n" * 10, "not_an_image"),
        (jpeg()[:300], "truncated"),
        (png(30_000, 30_000), "too_many_pixels"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
    ],
    ids=["empty", "text", "truncated", "bomb", "svg"],
)
def test_an_image_that_is_none(idle_service: Service, data: bytes, word: str) -> None:
    assert len(data) < MAX_BODY
    assert word in problem(idle_service.caption(data), 422, "invalid-image")["detail"]
    encoded = base64.b64encode(data).decode()
    problem(idle_service.client.post(CAPTIONS, json={"image_base64": encoded}), 422, "invalid-image")


def test_base64_that_is_none(idle_service: Service) -> None:
    problem(idle_service.client.post(CAPTIONS, json={"image_base64": "*no*"}), 422, "invalid-request")
    problem(idle_service.client.post(CAPTIONS, json={"image_base64": "ü"}), 422, "invalid-request")


def test_a_body_over_the_limit(idle_service: Service) -> None:
    problem(idle_service.caption(b"x" * MAX_BODY), 413, "body-too-large")
    problem(idle_service.client.post(BATCHES, content=b" " * (MAX_BODY + 1)), 413, "body-too-large")


@pytest.mark.parametrize("path", [CAPTIONS, BATCHES])
@pytest.mark.parametrize("media_type", ["application/json", "multipart/form-data; boundary=x"])
def test_a_streamed_body_over_the_limit(idle_service: Service, path: str, media_type: str) -> None:
    def pieces() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(10):
            yield b"a" * (MAX_BODY // 8)

    answer = idle_service.client.post(path, content=pieces(), headers={"Content-Type": media_type})
    problem(answer, 413, "body-too-large")


@pytest.mark.parametrize("path", [CAPTIONS, BATCHES])
@pytest.mark.parametrize("text", ["{", "", "[1", "nul", "[" * 5000, '{"a":' * 3000, "\xff\xfe", '"\\ud800"', "[]"])
def test_json_that_is_none(idle_service: Service, path: str, text: str) -> None:
    answer = idle_service.client.post(
        path, content=text.encode("latin-1"), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code in (400, 422)
    problem(answer, answer.status_code, "invalid-request" if answer.status_code == 422 else "malformed-request")


def test_a_multipart_body_that_is_none(idle_service: Service) -> None:
    for media_type in ("multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=x"):
        answer = idle_service.client.post(CAPTIONS, content=b"nothing", headers={"Content-Type": media_type})
        assert answer.status_code in (400, 422)
        problem(answer, answer.status_code, "malformed-request" if answer.status_code == 400 else "invalid-request")


def test_a_media_type_that_is_not_taken(idle_service: Service) -> None:
    answer = idle_service.client.post(CAPTIONS, content=jpeg(), headers={"Content-Type": "image/jpeg"})
    problem(answer, 415, "unsupported-media-type")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"input": {}},
        {"input": {"shards": []}},
        {"input": {"shards": [1]}},
        {"input": {"shards": ["a"]}, "priority": "urgent"},
        {"input": {"shards": ["a"]}, "colour": "red"},
        {"input": {"shards": ["a"]}, "metadata": {"a": {"b": 1}}},
        {"input": {"shards": ["a"]}, "\ud800": 1},
        {"input": {"shards": ["\ud800"]}},
        {"input": {"shards": ["a"]}, "metadata": {"\ud800": "b"}},
    ],
)
def test_a_batch_with_wrong_fields(idle_service: Service, body: Any) -> None:
    answer = idle_service.client.post(
        BATCHES, content=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
    )
    told = problem(answer, 422, "invalid-request")
    assert told["errors"] and all({"type", "location", "message"} <= set(error) for error in told["errors"])


def test_an_unknown_profile(idle_service: Service) -> None:
    told = problem(idle_service.caption(jpeg(), profile="none"), 422, "unknown-profile")
    assert "fake" in told["detail"]
    problem(idle_service.submit("a.tar", profile="../fake"), 422, "unknown-profile")
    problem(
        idle_service.client.post(CAPTIONS, json={"image_base64": "aaaa", "profile": "a\0b"}), 422, "unknown-profile"
    )


def test_a_profile_with_faults(idle_service: Service) -> None:
    path = Path(idle_service.settings.profiles_dir) / "faulty.toml"
    text = (path.parent / "fake.toml").read_text()
    before = idle_service.client.get("/v1/jobs").json()["jobs"]
    path.write_text(f"{text}\n[stages.orc]\n[evidence]\ntxet = 0.5\n")
    for answer in (idle_service.caption(jpeg(), profile="faulty"), idle_service.submit("a.tar", profile="faulty")):
        told = problem(answer, 422, "invalid-profile")
        assert told["errors"][-1] == {
            "type": "unknown_stage",
            "location": ["stages", "orc"],
            "message": "unknown stage; did you mean 'ocr'?",
        }
        assert ["evidence", "txet"] in [error["location"] for error in told["errors"]]
        assert "faulty.toml: evidence.txet: unknown key; did you mean 'text'?" in told["detail"]
        assert str(path.parent) not in told["detail"]
    assert idle_service.client.get("/v1/jobs").json()["jobs"] == before


@pytest.mark.parametrize("job", ["none", "%2e%2e", "a%00b", "%ff", "a" * 64, "ü", "*"])
@pytest.mark.parametrize("path", ["", "/results", "/failures", "/events"])
def test_an_unknown_job(idle_service: Service, job: str, path: str) -> None:
    answer = idle_service.client.get(f"/v1/jobs/{job}{path}")
    problem(answer, 404, "unknown-job")


def test_unknown_jobs_and_records_elsewhere(idle_service: Service) -> None:
    problem(idle_service.client.post("/v1/jobs/none/cancel"), 404, "unknown-job")
    problem(idle_service.client.get("/v1/records/none/key"), 404, "unknown-job")
    job = idle_service.caption(jpeg(), wait=None).headers["Location"].rpartition("/")[2]
    for path in ("none", "none/image", "none/overlay.png", "a/b", "%00"):
        problem(idle_service.client.get(f"/v1/records/{job}/{path}"), 404, "unknown-record")
    problem(idle_service.client.get(f"/v1/jobs/{'a' * 65}"), 422, "invalid-request")


def test_a_shard_outside_the_roots(idle_service: Service, tmp_path: Path) -> None:
    inside = Path(idle_service.settings.shard_roots[0])
    (inside / "link.tar").symlink_to("/etc/passwd")
    for shard in ("/etc/passwd", f"{inside}/../x.tar", "s3://bucket/a.tar", "file:///etc/passwd", f"{inside}/link.tar"):
        problem(idle_service.submit(shard), 422, "shard-outside-roots")
    (tmp_path / "shards-too").mkdir()
    problem(idle_service.submit(str(tmp_path / "shards-too")), 422, "shard-outside-roots")


def test_a_shard_that_does_not_exist(idle_service: Service) -> None:
    inside = idle_service.settings.shard_roots[0]
    body = problem(idle_service.submit(f"{inside}/{{00000..00002}}.tar"), 422, "shard-not-found")
    assert [error["location"] for error in body["errors"]] == [[f"{inside}/0000{i}.tar"] for i in range(3)]


@pytest.mark.parametrize(
    "name", ["{00..}", "{..}", "{3..1}", "{0..9", "a}", "{}", "{0..9999999999999999}", "", "a\0b", "a::b"]
)
def test_a_shard_with_a_typo(idle_service: Service, name: str) -> None:
    problem(
        idle_service.submit(f"{idle_service.settings.shard_roots[0]}/{name}.tar" if name else ""), 422, "invalid-shards"
    )


def test_cursors_and_limits_that_are_none(idle_service: Service) -> None:
    job = idle_service.caption(jpeg(), wait=None).headers["Location"]
    for cursor in ("x", "ü", "W10", "WzEsMiwzLDRd", "bnVsbA", "WzEsMiwtM10", "A" * 200, "=", "W1swXSwwLDBd"):
        for name in ("results", "failures"):
            answer = idle_service.client.get(f"{job}/{name}", params={"cursor": cursor})
            problem(answer, 422, "invalid-request")
    for limit in ("0", "-1", "x", "99999999999999999999"):
        problem(idle_service.client.get("/v1/jobs", params={"limit": limit}), 422, "invalid-request")
        problem(idle_service.client.get(f"{job}/results", params={"limit": limit}), 422, "invalid-request")
