"""Images in bulk: which are missing, sending them, a batch over them, and what becomes of them afterwards."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from app.routes import uploads as route
from strata.client import ApiError, Client
from strata.client.bulk import send_images
from strata.core.records import Record
from strata.core.schemas import JobStatus
from tests.app.jobs.test_job_list import wait_for_list
from tests.fakes import jpeg, wait_for_end
from tests.service import Service, problem

SECRET = b"a secret place"


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def with_comment(data: bytes) -> bytes:
    """A JPEG with a comment, which is removed before it is stored."""
    return data[:2] + b"\xff\xfe" + (len(SECRET) + 2).to_bytes(2, "big") + SECRET + data[2:]


def send(service: Service, *images: bytes) -> None:
    for data in images:
        assert service.client.put(f"/v1/uploads/{digest_of(data)}", content=data).status_code == 201


def missing(service: Service, *images: bytes) -> list[str]:
    body = {"sha256": [digest_of(data) for data in images], "sizes": [len(data) for data in images]}
    found: list[str] = service.client.post("/v1/uploads", json=body).json()["missing"]
    return found


def submit(service: Service, *lines: str, **more: Any) -> Any:
    return service.client.post("/v1/batches", json={"input": {"uploads": list(lines), **more}})


def stored(service: Service) -> list[str]:
    return list(service.jobs.store.find("uploads"))


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    """The real client, on the service of the test. Its requests are kept in `sent`."""

    def handle(request: httpx.Request) -> httpx.Response:
        path, headers = request.url.raw_path.decode(), dict(request.headers)
        answer = service.client.request(request.method, path, content=request.read(), headers=headers)
        # the test's client has decompressed it already
        kept = {name: value for name, value in answer.headers.items() if name != "content-encoding"}
        return httpx.Response(answer.status_code, headers=kept, content=answer.content)

    with Client("http://testserver", transport=httpx.MockTransport(handle)) as made:
        yield made


def test_what_was_sent_is_not_missing_and_stored_once(service: Service) -> None:
    one, two = jpeg(20), jpeg(21)
    assert missing(service, one, two, one) == [digest_of(one), digest_of(two)]
    send(service, one, one)
    assert missing(service, one, two) == [digest_of(two)]
    assert len(stored(service)) == 1


def test_an_upload_is_stored_without_its_metadata_and_known_by_the_senders_hash(service: Service) -> None:
    data = with_comment(jpeg(20))
    send(service, data)
    assert missing(service, data) == []
    (path,) = stored(service)
    kept = service.jobs.store.get(service.jobs.store.path(path))
    assert SECRET not in kept and path.endswith(digest_of(kept))
    # the same picture with other metadata is the same image
    send(service, jpeg(20))
    assert len(stored(service)) == 1


def test_a_batch_over_uploads_has_keys_of_their_names_and_their_alt_texts(service: Service) -> None:
    images = [jpeg(20), jpeg(21), jpeg(22), with_comment(jpeg(23))]
    send(service, *images)
    names = ["a/b.jpg", "a/b.png", "", "../../ü\n.jpg"]
    lines = [f"{digest_of(data)} {name}" for data, name in zip(images, names, strict=True)]
    job = submit(service, *lines, alt_texts=["one", None, "", "four"]).json()["id"]
    wait_for_end(service.jobs, job)
    rows = [row for row in service.client.get(f"/v1/jobs/{job}/results").text.splitlines() if row]
    assert len(rows) == 4
    record = service.client.get(f"/v1/records/{job}/a/b").json()
    assert record["caption"]["text"] == "20 by 24" and record["alt_text"] == "one"
    assert record["image"]["uri"].startswith("upload:")
    keys = sorted(Record.model_validate_json(row).key for row in rows)
    assert keys == sorted(["a/b", "a/b-2", digest_of(images[2])[:16], "../../ü_"])
    assert service.client.get(f"/v1/records/{job}/a/b-2/image").content == images[1]
    # the same batch again computes nothing
    again = submit(service, *lines, alt_texts=["one", None, "", "four"]).json()["id"]
    wait_for_end(service.jobs, again)
    assert service.client.get(f"/v1/jobs/{again}").json()["groups"]["llm"]["reused"] == 4


def test_a_batch_of_images_that_are_not_there_is_refused(service: Service) -> None:
    send(service, jpeg(20))
    lost = digest_of(jpeg(21))
    body = problem(submit(service, digest_of(jpeg(20)), f"{lost} x.jpg"), 422, "uploads-missing")
    assert [error["message"] for error in body["errors"]] == [lost]
    assert service.client.get("/v1/jobs").json()["jobs"] == []


def test_the_client_sends_what_is_missing_and_goes_on(client: Client, service: Service, tmp_path: Path) -> None:
    """Killed in the middle: the images that have arrived are not sent again."""
    files = [tmp_path / f"{number}.jpg" for number in range(5)]
    for number, file in enumerate(files):
        file.write_bytes(jpeg(20 + number))
    (tmp_path / "copy.jpg").write_bytes(files[0].read_bytes())
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    send(service, jpeg(20), jpeg(21))
    told: list[tuple[str, int, int | None]] = []
    sent = send_images(
        client,
        [*files, tmp_path / "copy.jpg", tmp_path / "bad.jpg", tmp_path / "gone.jpg"],
        lambda name, done, total: told.append((name, done, total)),
    )
    assert sent.new == 3 and set(sent.digests) == {*files, tmp_path / "copy.jpg"}
    assert set(sent.refused) == {tmp_path / "bad.jpg", tmp_path / "gone.jpg"}
    assert told[-1] == ("sent", 4, 4) and ("hashed", 8, 8) in told
    assert send_images(client, files).new == 0
    job = client.submit_uploads([(sent.digests[file], file.name) for file in files], profile="fake")
    wait_for_end(service.jobs, job.id, 30)
    assert client.job(job.id).status is JobStatus.COMPLETED
    assert sorted(record.key for record in client.results(job.id)) == list("01234")


def test_a_file_that_changes_while_it_is_sent_is_sent_as_it_is_then(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(jpeg(20))
    sent = send_images(client, [file], lambda name, *_: file.write_bytes(jpeg(21)) if name == "hashed" else None)
    assert sent.digests[file] == digest_of(jpeg(21))


def test_a_service_that_fails_ends_the_sending(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg(20))
    monkeypatch.setattr(route, "shutil", SimpleNamespace(disk_usage=lambda _: SimpleNamespace(free=9)))
    with pytest.raises(ApiError, match="are free"):
        send_images(client, [tmp_path / "a.jpg"])


def ended(service: Service, *images: bytes) -> str:
    job = str(submit(service, *map(digest_of, images)).json()["id"])
    wait_for_end(service.jobs, job)
    return job


def test_a_deleted_batch_takes_the_uploads_that_nothing_else_uses(service: Service) -> None:
    wait_for_list(service.jobs)
    alone, shared, captioned = jpeg(20), jpeg(21), jpeg(22)
    send(service, alone, shared, captioned)
    first, second = ended(service, alone, shared, captioned), ended(service, shared)
    image = str(service.caption(captioned, wait=None).json()["id"])
    wait_for_end(service.jobs, image)
    assert service.client.delete(f"/v1/jobs/{first}").status_code == 204
    assert sorted(path[-64:] for path in stored(service)) == sorted(map(digest_of, (shared, captioned)))
    assert missing(service, alone, shared) == [digest_of(alone)]
    # an image that a batch uses too stays when its own job is deleted
    third = ended(service, captioned)
    assert service.client.delete(f"/v1/jobs/{image}").status_code == 204
    assert service.client.get(f"/v1/jobs/{third}/results").status_code == 200
    assert digest_of(captioned) in {path[-64:] for path in stored(service)}
    for job in (second, third):
        assert service.client.delete(f"/v1/jobs/{job}").status_code == 204
    assert stored(service) == []
