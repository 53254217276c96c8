"""The command line against a small service of the documented shapes, over real HTTP."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from strata.cli import checkout, exits
from strata.cli.arguments import shards_of
from strata.cli.main import main
from strata.core.errors import InvalidInput
from strata.core.records import Caption, FailureNote, ImageReference, Record
from strata.core.schemas import Budget, FailureRow, JobPage, JobStatus, JobView, Problem, RequestCounts, ShardCounts
from strata.core.settings import CHECKOUT

KEY = "k"


def job(job_id: str, status: JobStatus = JobStatus.COMPLETED) -> JobView:
    return JobView(
        id=job_id,
        kind="batch",
        status=status,
        profile="demo",
        priority="lo",
        request_counts=RequestCounts(total=1, succeeded=1),
        shards=ShardCounts(total=1),
        groups={},
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def record() -> Record:
    return Record(key=KEY, image=ImageReference(uri="u", size=1), caption=Caption(text="A dog."))


def reply(model: Record | JobView | JobPage | Problem | FailureRow, status: int = 200) -> Response:
    return Response(model.model_dump_json(), status)


async def captions(request: Request) -> Response:
    async with request.form() as form:
        upload = form["file"]
        assert not isinstance(upload, str)
        data = await upload.read()
    if data == b"text":
        return reply(Problem(type="/problems/no-image", title="No image", status=422, detail="it is text"), 422)
    response = reply(job("slow", JobStatus.IN_PROGRESS), 202) if data == b"slow" else reply(record())
    response.headers["Location"] = "/v1/jobs/slow" if data == b"slow" else "/v1/jobs/done"
    return response


async def batches(request: Request) -> Response:
    body = await request.json()
    status = JobStatus.FAILED if "bad.tar" in body["input"]["shards"][0] else JobStatus.COMPLETED
    budget = Budget(**body["budget"]) if "budget" in body else None
    return reply(job(status.value, status).model_copy(update={"budget": budget}), 202)


async def one_job(request: Request) -> Response:
    name = request.path_params["job"]
    if name == "unknown":
        return reply(Problem(type="/problems/unknown-job", title="Unknown job", status=404, detail="no"), 404)
    if name == "broken":
        return reply(Problem(type="/problems/redis", title="Redis is gone", status=503, detail="later"), 503)
    return reply(job(name, JobStatus(name) if name in list(JobStatus) else JobStatus.COMPLETED))


async def results(request: Request) -> Response:
    return reply(record())


async def failures(request: Request) -> Response:
    note = FailureNote(stage="index", error_type="ReadError", detail="cut off")
    return reply(FailureRow(shard="a.tar", key=None, failure=note))


async def all_jobs(request: Request) -> Response:
    return reply(JobPage(jobs=[job("one"), job("two")], next="n"))


async def overlay(request: Request) -> Response:
    return Response(b"png")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    routes = [
        Route("/v1/captions", captions, methods=["POST"]),
        Route("/v1/batches", batches, methods=["POST"]),
        Route("/v1/jobs", all_jobs),
        Route("/v1/jobs/{job}", one_job),
        Route("/v1/jobs/{job}/results", results),
        Route("/v1/jobs/{job}/failures", failures),
        Route("/v1/jobs/{job}/cancel", one_job, methods=["POST"]),
        Route("/v1/jobs/{job}/retry", one_job, methods=["POST"]),
        Route("/v1/records/{job}/{key}/overlay.png", overlay),
    ]
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


@pytest.fixture
def service(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRATA_URL", url)


def code_of(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    return int(caught.value.code or 0)


@pytest.mark.usefixtures("service")
def test_caption_prints_layers_and_saves_overlays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, slow = tmp_path / "one.jpg", tmp_path / "slow.jpg"
    image.write_bytes(b"jpeg")
    slow.write_bytes(b"slow")
    assert code_of("caption", str(image), str(slow), "--overlay", str(tmp_path / "out")) == 0
    assert capsys.readouterr().out.count("A dog.") == 2
    assert (tmp_path / "out" / "one.jpg.overlay.png").read_bytes() == b"png"
    assert code_of("caption", str(image), "--json") == 0
    assert Record.model_validate_json(capsys.readouterr().out) == record()


@pytest.mark.usefixtures("service")
def test_one_refused_image_does_not_stop_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad, good = tmp_path / "bad.jpg", tmp_path / "good.jpg"
    bad.write_bytes(b"text")
    good.write_bytes(b"jpeg")
    assert code_of("caption", str(bad), str(good)) == exits.REQUEST_REFUSED
    out, err = capsys.readouterr()
    assert "A dog." in out
    assert err.strip().endswith("No image: it is text")


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize(("shard", "code"), [("good.tar", 0), ("bad.tar", exits.JOB_FAILED)])
def test_submit_prints_the_job(shard: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    name = "failed" if code else "completed"
    assert code_of("submit", shard, "--metadata", "a=b") == 0
    assert capsys.readouterr().out == f"{name}\n"
    assert code_of("submit", shard, "--follow") == code
    out, err = capsys.readouterr()
    assert out == f"{name}\n"
    assert err == f"{name}: 1/1 images\n"
    assert code_of("submit", shard, "--wait", "--json") == code
    assert json.loads(capsys.readouterr().out)["id"] == name
    assert code_of("submit", shard, "--budget-tokens", "9000", "--budget-money", "2.5", "--json") == 0
    assert json.loads(capsys.readouterr().out)["budget"] == {"tokens": 9000, "money": 2.5}


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize(
    ("name", "code"),
    [("completed", 0), ("failed", exits.JOB_FAILED), ("cancelled", exits.JOB_FAILED)],
)
def test_the_followed_status_is_the_exit_code(name: str, code: int) -> None:
    assert code_of("status", name) == 0
    assert code_of("status", name, "--follow") == code


@pytest.mark.usefixtures("service")
def test_lists_and_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("jobs") == 0
    out, err = capsys.readouterr()
    assert "one" in out and "two" in out
    assert err == "more: strata jobs --cursor n\n"
    assert code_of("jobs", "--json") == 0
    assert JobPage.model_validate_json(capsys.readouterr().out).next == "n"
    assert code_of("results", "one") == 0
    assert Record.model_validate_json(capsys.readouterr().out) == record()
    assert code_of("failures", "one") == 0
    assert capsys.readouterr().out == "a.tar: index: ReadError: cut off\n"
    for name in ("cancel", "retry"):
        assert code_of(name, "one") == 0
        assert "job one" in capsys.readouterr().out
    assert code_of("retry", "failed", "--follow") == exits.JOB_FAILED


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["status", "unknown"], exits.REQUEST_REFUSED, "strata: Unknown job: no"),
        (["status", "broken"], exits.API_UNREACHABLE, "strata: Redis is gone: later"),
        (["jobs", "--url", "http://127.0.0.1:1"], exits.API_UNREACHABLE, "strata: cannot reach the service"),
        (["jobs", "--url", "nonsense"], exits.API_UNREACHABLE, "strata: cannot reach the service"),
        (["submit", "@/no/such/list"], exits.USAGE, "strata: [Errno 2]"),
        (["submit", "a.tar", "--metadata", "ab"], exits.USAGE, "strata: --metadata 'ab'"),
        (["submit", "a.tar", "--budget-money", "nan"], exits.USAGE, "strata: --budget-money: "),
    ],
)
def test_what_goes_wrong_is_one_line_and_a_code(
    arguments: list[str], code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert code_of(*arguments) == code
    err = capsys.readouterr().err
    assert err.startswith(line)
    assert err.count("\n") == 1


def test_a_missing_image_is_a_usage_error() -> None:
    assert code_of("caption", "/no/such.jpg") == exits.USAGE


def test_lists_of_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO("s3://b/x.tar\n"))
    Path("list.txt").write_text("# mine\n\n{00..02}.tar \nno/such/folder/a.tar\n")
    given = list(shards_of(["@list.txt", "@-", "/a/b.tar"]))
    assert given == [f"{tmp_path}/{{00..02}}.tar", "no/such/folder/a.tar", "s3://b/x.tar", "/a/b.tar"]


def test_commands_of_the_checkout_get_their_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr(os, "execve", lambda path, arguments, environment: calls.append((arguments, environment)))
    for command, module in (
        ("serve", "app"),
        ("worker", "workers"),
        ("models", "models"),
        ("samples", "samples"),
    ):
        assert code_of(command, "--port", "8080", "fetch", "--help") == 0
        arguments, environment = calls.pop()
        assert arguments == [sys.executable, "-m", module, "--port", "8080", "fetch", "--help"]
        assert environment["PYTHONPATH"].split(os.pathsep)[0] == str(CHECKOUT)


def test_a_wheel_alone_says_so(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="checkout") as caught:
        checkout.run_module("app", [], tmp_path)
    assert exits.code_of(caught.value) == exits.USAGE


def test_python_m_strata() -> None:
    command = [sys.executable, "-m", "strata", "jobs", "--url", "http://127.0.0.1:1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == exits.API_UNREACHABLE
    assert "Traceback" not in done.stderr
