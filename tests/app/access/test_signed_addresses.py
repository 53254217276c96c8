"""A key or signature in an address of a caller appears in no other answer than those that repeat the request."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from strata.logs import LogFormatter
from strata.queue.queue import Queue
from tests.egress.web import Web, redirect, response, web_server
from tests.fakes import wait_for_end
from tests.secrets import SECRET
from tests.service import running_service

SIGNED = f"?X-Amz-Credential=AKIA&X-Amz-Signature={SECRET}"
# of shards: the store keeps their addresses, as the caller gave them, in files that the search of all logs reads
WORD = SECRET[::-1]
SHARD = f"?X-Amz-Credential=AKIA&X-Amz-Signature={WORD}"


@pytest.fixture
def web() -> Iterator[Web]:
    with web_server() as server:
        for query, word in ((SIGNED, SECRET), (SHARD, WORD)):
            server.pages[f"/sets/moved.tar{query}"] = redirect(f"http://10.0.0.7/a.tar{query}")
            server.pages[f"/sets/refused.tar{query}"] = response(word.encode(), "403 Forbidden")
        server.pages[f"/sets/broken.tar{SHARD}"] = response(b"no tar", Accept_Ranges="bytes")
        images = [f"{server.url}/sets/none.jpg{SHARD}", f"s3://k:{WORD}@b/a", f"https://k:{WORD}@h/a"]
        lines = "\n".join(json.dumps({"image": image}) for image in images)
        server.pages[f"/sets/list.jsonl{SHARD}"] = response(lines.encode(), Accept_Ranges="bytes")
        yield server


@pytest.mark.parametrize("private", [False, True])
def test_images(queue: Queue, tmp_path: Path, web: Web, caplog: pytest.LogCaptureFixture, private: bool) -> None:
    caplog.set_level(logging.DEBUG)
    urls = [
        *(f"https://user:{SECRET}@8.8.8.8/a.png", f"https://{SECRET}@8.8.8.8/", f"http://8.8.8.8:99/a{SIGNED}"),
        *(f"{web.url}/sets/moved.tar{SIGNED}", f"{web.url}/sets/refused.tar{SIGNED}", f"{web.url}/none{SIGNED}"),
        *(
            f"http://127.0.0.1:1/{SIGNED}",
            f"http://10.0.0.7:1/{SIGNED}",
            f"http://[::1/{SIGNED}",
            f"http://a b/{SIGNED}",
        ),
    ]
    with running_service(queue, tmp_path, workers=False, private_urls=private, url_ports=[web.port]) as service:
        answers = [service.client.post("/v1/captions", json={"image_url": url}) for url in urls]
    assert all(answer.status_code == 422 and SECRET not in answer.text for answer in answers)
    assert SECRET not in caplog.text
    assert web.asked == [f"/sets/moved.tar{SIGNED}", f"/sets/refused.tar{SIGNED}", f"/none{SIGNED}"] * private


def test_shards(queue: Queue, tmp_path: Path, web: Web, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    names = ("moved.tar", "refused.tar", "broken.tar", "list.jsonl", "none.tar")
    with running_service(queue, tmp_path, shard_roots=[f"{web.url}/sets"]) as service:
        for name in names:
            job_id = service.submit(f"{web.url}/sets/{name}{SHARD}").json()["id"]
            wait_for_end(service.jobs, job_id)
            assert WORD not in service.client.get(f"/v1/jobs/{job_id}").text
        for pattern in (f"{web.url}/other/a.tar{SHARD}", f"@{web.url}/sets/none.txt{SHARD}", f"https://u:{WORD}@h/a"):
            answer = service.submit(pattern)
            assert answer.status_code == 422 and WORD not in answer.text
    # the log as it is written
    assert "moved.tar" in caplog.text
    formatter = LogFormatter()
    assert WORD not in "".join(formatter.format(record) for record in caplog.records)
