"""The command line against a small service of the documented shapes, over real HTTP."""

from __future__ import annotations

import io
import json
import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import pytest
import redis
import typer
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import strata
from strata import components
from strata.cli import exits, export, group, jobs
from strata.cli import main as cli
from strata.cli.arguments import shards_of
from strata.cli.main import main
from strata.core.profiles import ProfileError
from strata.core.records import Caption, FailureNote, ImageReference, Record, Status
from strata.core.schemas import (
    Budget,
    ChosenRows,
    FailureRow,
    JobPage,
    JobStatus,
    JobView,
    Priority,
    Problem,
    RequestCounts,
    SearchHit,
    SearchPage,
    ShardCounts,
)
from strata.data.exports.formats import Form
from strata.errors import InvalidInput
from tests.checkout import CHECKOUT
from tests.secrets import SECRET

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


def failed_record() -> Record:
    note = FailureNote(stage="decode", error_type="truncated", detail="cut off")
    return Record(key=KEY, image=ImageReference(uri="u", size=1), status=Status.FAILED, failure=note)


def reply(model: Record | JobView | JobPage | SearchPage | Problem | FailureRow, status: int = 200) -> Response:
    return Response(model.model_dump_json(), status)


async def captions(request: Request) -> Response:
    async with request.form() as form:
        upload = form["file"]
        assert not isinstance(upload, str)
        data = await upload.read()
    if data == b"text":
        return reply(Problem(type="/problems/no-image", title="No image", status=422, detail="it is text"), 422)
    if data == b"failing":
        return reply(failed_record())
    waits = data in (b"slow", b"lost")
    response = reply(job(data.decode(), JobStatus.IN_PROGRESS), 202) if waits else reply(record())
    response.headers["Location"] = f"/v1/jobs/{data.decode()}" if waits else "/v1/jobs/done"
    return response


async def batches(request: Request) -> Response:
    body = await request.json()
    if "sources" in body["input"]:
        return reply(job("completed").model_copy(update={"chosen": ChosenRows(**body["input"])}), 202)
    first = body["input"]["shards"][0]
    if "partly.tar" in first:
        return reply(job("partly"), 202)
    status = JobStatus.FAILED if "bad.tar" in first else JobStatus.COMPLETED
    budget = Budget(**body["budget"]) if "budget" in body else None
    return reply(job(status.value, status).model_copy(update={"budget": budget}), 202)


async def one_job(request: Request) -> Response:
    name = request.path_params["job"]
    if name == "unknown":
        return reply(Problem(type="/problems/unknown-job", title="Unknown job", status=404, detail="no"), 404)
    if name == "broken":
        return reply(Problem(type="/problems/redis", title="Redis is gone", status=503, detail="later"), 503)
    if name == "secret":
        return reply(Problem(type="/problems/unauthorized", title="Unauthorized", status=401, detail="no key"), 401)
    if name == "partly":
        counts = RequestCounts(total=3, succeeded=1, failed=2)
        return reply(job(name).model_copy(update={"request_counts": counts, "shards": ShardCounts(total=2, failed=1)}))
    return reply(job(name, JobStatus(name) if name in list(JobStatus) else JobStatus.COMPLETED))


async def results(request: Request) -> Response:
    return Response() if request.path_params["job"] == "lost" else reply(record())


async def failures(request: Request) -> Response:
    note = FailureNote(stage="index", error_type="ReadError", detail="cut off")
    return reply(FailureRow(shard="a.tar", key=None, failure=note))


DELETED: list[str] = []


async def all_jobs(request: Request) -> Response:
    if request.query_params.get("cursor") == "n":
        return reply(JobPage(jobs=[job("three")], next="m" if request.query_params["limit"] == "1" else None))
    return reply(JobPage(jobs=[job("one"), job("two")], next="n"))


async def deleted_job(request: Request) -> Response:
    DELETED.append(request.path_params["job"])
    return Response(status_code=204)


async def overlay(request: Request) -> Response:
    return Response(b"png")


ASKED: list[list[tuple[str, str]]] = []


async def search(request: Request) -> Response:
    ASKED.append(request.query_params.multi_items())
    if request.query_params.get("order") == "best":
        detail = "query.score_min: score_min is above score_max, so that no row is found"
        return reply(Problem(type="/problems/invalid-request", title="Invalid request", status=422, detail=detail), 422)
    if "nothing" in request.query_params.get("q", ""):
        hint = "no row has the word 'nothing'; did you mean 'noting\x1b'?"
        return reply(SearchPage(rows=[], total=0, indexed=3, waiting=2, broken=["part a: cut off"], hints=[hint]))
    title = (
        "A red car\x1b[31m stands at the left, and there is much more to be said of it than a line has room for. " * 2
    )
    row = SearchHit(
        id="f/a/00000/0", key="k-1", status=Status.SUCCEEDED, title=title, words=12, score=0.456, has_text=False
    )
    return reply(SearchPage(rows=[row], total=1253, next="c=1", indexed=3, waiting=0))


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    routes = [
        Route("/v1/captions", captions, methods=["POST"]),
        Route("/v1/batches", batches, methods=["POST"]),
        Route("/v1/jobs", all_jobs),
        Route("/v1/search", search),
        Route("/v1/jobs/{job}", one_job),
        Route("/v1/jobs/{job}", deleted_job, methods=["DELETE"]),
        Route("/v1/jobs/{job}/results", results),
        Route("/v1/jobs/{job}/failures", failures),
        Route("/v1/jobs/{job}/cancel", one_job, methods=["POST"]),
        Route("/v1/jobs/{job}/retry", one_job, methods=["POST"]),
        Route("/v1/records/{job}/{key}/overlay.png", overlay),
    ]
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 120
    while not server.started:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(120)


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
def test_the_first_image_that_fails_gives_the_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each image is reported: with a failed record, refused, or of a job that ended without a record."""
    images = {data: tmp_path / f"{data}.jpg" for data in ("jpeg", "text", "failing", "lost")}
    for data, path in images.items():
        path.write_text(data)
    for order, code in (
        (("jpeg", "failing", "text", "lost"), exits.JOB_FAILED),
        (("text", "failing", "jpeg"), exits.REQUEST_REFUSED),
        (("jpeg", "lost", "text", "jpeg"), exits.JOB_FAILED),
        (("jpeg",), 0),
    ):
        assert code_of("caption", *(str(images[data]) for data in order)) == code
        out, err = capsys.readouterr()
        assert out.count("A dog.") == order.count("jpeg") and out.count("failed in decode") == order.count("failing")
        assert err.count("No image: it is text") == order.count("text")
        assert err.count("lost.jpg: a.tar: index: ReadError: cut off") == order.count("lost")


@pytest.mark.usefixtures("service")
def test_submit_takes_rows_of_other_jobs(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("submit", "--from", "j1", "--from", "best", "--where", "match < 0.5", "--json") == 0
    assert json.loads(capsys.readouterr().out)["chosen"] == {"sources": ["j1", "best"], "where": "match < 0.5"}
    for arguments, told in (
        ((), "name SHARDs, or with --from"),
        (("a.tar", "--from", "j1"), "name SHARDs, or with --from"),
        (("a.tar", "--where", "text"), "--where chooses rows of what --from names"),
        (("--from", "j1", "--upload"), "leave one of them out"),
    ):
        assert code_of("submit", *arguments) == exits.USAGE
        assert told in capsys.readouterr().err


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
def test_interrupting_a_followed_job_says_that_it_continues(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("strata.cli.rendering.records.follow", interrupted)
    assert code_of("submit", "good.tar", "--follow") == 130
    told = capsys.readouterr().err
    assert "job completed goes on; `strata status completed --follow`" in told and "`strata cancel completed`" in told
    assert code_of("status", "completed", "--follow") == 130 and "`strata cancel completed`" in capsys.readouterr().err


@pytest.mark.usefixtures("service")
def test_a_followed_job_with_failed_images_has_an_exit_code_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["status", "partly"], ["retry", "partly"], ["submit", "partly.tar"]):
        assert code_of(*arguments, "--follow") == exits.PARTLY_FAILED
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.startswith("strata: 2 images and 1 shard of job partly failed") and "`strata failures`" in line
        assert code_of(*arguments) == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["status", ""],
        ["status", "", "--follow"],
        ["cancel", ""],
        ["retry", "."],
        ["delete", "", "--yes"],
        ["results", ""],
        ["failures", ".."],
        ["webhooks", "show", ""],
        ["webhooks", "redeliver", ""],
        ["search", "--job", ""],
        ["search", "--key", ""],
    ],
    ids=" ".join,
)
def test_an_empty_id_is_refused_before_a_request(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STRATA_URL", "http://127.0.0.1:1")  # a request would be told as a service that is not reached
    assert code_of(*arguments) == exits.USAGE
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and ("empty" in line or "not the id of a job" in line)


@pytest.mark.usefixtures("service")
def test_a_filtered_list_is_filled_from_several_pages(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("jobs", "--status", "failed", "--kind", "image", "--json") == 0
    assert [one.id for one in JobPage.model_validate_json(capsys.readouterr().out).jobs] == ["one", "two", "three"]
    assert code_of("jobs", "--created-after", "2026-11-28T12:00:00", "--limit", "3") == 0
    told = "more: strata jobs --created-after 2026-11-28T12:00:00 --limit 3 --cursor m\n"
    assert capsys.readouterr().err == told
    assert code_of(*shlex.split(told.removeprefix("more: strata "))) == 0
    assert code_of("jobs", "--status", "done") == exits.USAGE


@pytest.mark.usefixtures("service")
def test_jobs_are_deleted_only_with_yes(capsys: pytest.CaptureFixture[str]) -> None:
    DELETED.clear()
    assert code_of("delete", "one", "two") == 0
    out, err = capsys.readouterr()
    assert out.startswith("one: completed") and err == "nothing was deleted: add --yes\n" and not DELETED
    assert code_of("delete", "one", "two", "--yes") == 0
    assert DELETED == ["one", "two"] and "deleted two" in capsys.readouterr().out


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize(
    ("name", "code"),
    [("completed", 0), ("failed", exits.JOB_FAILED), ("cancelled", exits.JOB_FAILED)],
)
def test_the_followed_status_is_the_exit_code(name: str, code: int) -> None:
    assert code_of("status", name) == 0
    assert code_of("status", name, "--follow") == code


@pytest.mark.usefixtures("service")
def test_rows_are_searched(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--thing", "sign", "--thing", "car", "--job", "one", "--no-text", "--score-min", "0.5", "--limit", "1"]
    assert code_of("search", "red car -dog", *options) == 0
    wanted = [("q", "red car -dog"), ("order", "store"), ("limit", "1"), ("job", "one"), ("thing", "sign")]
    assert ASKED[-1] == [*wanted, ("thing", "car"), ("has_text", "false"), ("score_min", "0.5")]
    out, err = capsys.readouterr()
    # one line a row, without control characters
    head, line = out.splitlines()
    assert head.split() == ["key", "status", "match", "words", "text"]
    assert line.split()[:5] == ["k-1", "succeeded", "0.46", "12", "A"] and line.endswith("…") and "\x1b" not in out
    # the command for the next page is the same search
    total, more = err.splitlines()
    assert total == "strata: 1,253 rows in all" and more.startswith("more: strata search ")
    assert code_of(*shlex.split(more.removeprefix("more: strata "))) == 0
    assert sorted(ASKED[-1]) == sorted([*ASKED[-2], ("cursor", "c=1")])
    capsys.readouterr()
    assert code_of("search", "--json") == 0
    out, err = capsys.readouterr()
    assert SearchPage.model_validate_json(out).rows[0].key == "k-1"
    assert " --json " in err.splitlines()[-1]  # the next page in the same form; stdout has the answer alone


@pytest.mark.usefixtures("service")
def test_a_search_that_finds_nothing_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("search", "--", "-red nothing") == 0
    assert capsys.readouterr().err.splitlines() == [
        "strata: 0 rows in all",
        "strata: no row has the word 'nothing'; did you mean 'noting '?",
        "strata: 2 parts not indexed yet, whose rows are not found",
        "strata: passed over: part a: cut off",
    ]
    assert code_of("search", "--order", "best") == exits.REQUEST_REFUSED
    assert "score_min is above score_max" in capsys.readouterr().err
    assert code_of("search", "--order", "size") == exits.USAGE


@pytest.mark.usefixtures("service")
def test_lists_and_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("jobs") == 0
    out, err = capsys.readouterr()
    assert "one" in out and "two" in out
    assert err == "more: strata jobs --cursor n\n"
    assert code_of("jobs", "--wide", "--limit", "2") == 0
    assert capsys.readouterr().err == "more: strata jobs --limit 2 --wide --cursor n\n"
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
        (
            ["status", "secret"],
            exits.REQUEST_REFUSED,
            "strata: Unauthorized: no key; the command line sends the key of --api-key or STRATA_API_KEY",
        ),
        (
            ["jobs", "--url", "http://127.0.0.1:1"],
            exits.API_UNREACHABLE,
            "strata: cannot reach the service at http://127.0.0.1:1: ",
        ),
        (["jobs", "--url", "nonsense"], exits.USAGE, "strata: --url or STRATA_URL: the address must"),
        (["submit", "@/no/such/list"], exits.USAGE, "strata: /no/such/list: No such file or directory"),
        (["submit", "a.tar", "--metadata", "ab"], exits.USAGE, "strata: --metadata 'ab'"),
        (["submit", "a.tar", "--budget-money", "0"], exits.USAGE, "strata: --budget-money: "),
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
    Path("list.txt").write_text("# mine\n\n{00..02}.tar \nno/such/folder/a.tar\n", encoding="utf-8")
    given = list(shards_of(["@list.txt", "@-", "/a/b.tar"]))
    assert given == [f"{tmp_path}/{{00..02}}.tar", "no/such/folder/a.tar", "s3://b/x.tar", "/a/b.tar"]


def commands() -> list[list[str]]:
    """Every command, those of groups with the group's name."""
    every = typer.main.get_command(cli.app)
    found: list[list[str]] = []
    for name, command in every.commands.items():  # type: ignore[attr-defined]
        found += [[name, sub] for sub in command.commands] if hasattr(command, "commands") else [[name]]
    return found


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_has_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of(*command, "--help") == 0
    out = capsys.readouterr().out
    assert out.strip().startswith(f"Usage: strata {' '.join(command)}") and "--help" in out


def test_help_and_completion_load_nothing_heavy() -> None:
    """A person waits for them; the packages that make the commands work take more than a second to import."""
    code = "; ".join(
        [
            "import sys",
            "from strata.cli.main import main",
            "sys.argv = ['strata', *{arguments}]",
            "exec('try:\\n main()\\nexcept SystemExit as end:\\n assert not end.code, end.code')",
            "loaded = [name for name in {heavy} if name in sys.modules]",
            "assert not loaded, loaded",
        ]
    )
    heavy = ["pyarrow", "numpy", "httpx", "torch", "fastapi", "pydantic", "redis", "PIL", "fsspec", "app", "models"]
    for line in ("status --help", "--help", "--version", "train --help", "snapshot create --help"):
        arguments = line.split()
        command = [sys.executable, "-c", code.format(arguments=arguments, heavy=heavy)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr


def test_the_names_that_help_repeats_are_those_of_the_library() -> None:
    assert get_args(jobs.Stream) == get_args(Priority)
    assert get_args(export.FormName) == get_args(Form)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("--version") == 0
    assert capsys.readouterr().out == f"strata {strata.__version__}\n"


def test_the_exit_codes_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("--help") == 0
    assert "strata exit-codes" in capsys.readouterr().out
    assert code_of("exit-codes") == 0
    told = [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]]
    assert told == [str(code) for code in sorted({0, *exits.CODES.values(), exits.INTERRUPTED})]


def test_shell_completion() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "strata"],
        env={**os.environ, "_STRATA_COMPLETE": "complete_bash", "COMP_WORDS": "strata sta", "COMP_CWORD": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.split() == ["status"], done.stderr


def test_a_fault_is_one_line_and_its_traceback_is_for_debug(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(url: str, api_key: str | None) -> None:
        raise ZeroDivisionError("two\nlines")

    monkeypatch.setattr(jobs, "open_client", broken)
    assert code_of("status", "any") == exits.FAILURE
    line = "strata: ZeroDivisionError: two; run with --debug for the traceback\n"
    assert capsys.readouterr().err == line
    assert code_of("--debug", "status", "any") == exits.FAILURE
    err = capsys.readouterr().err
    assert err.startswith("Traceback") and "in broken" in err and err.endswith(line)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (redis.ConnectionError("refused"), exits.REDIS_UNREACHABLE, "Redis cannot be used: refused"),
        (ProfileError("no profile"), exits.USAGE, "no profile"),
        (KeyError("a"), exits.FAILURE, "KeyError: 'a'; run with --debug for the traceback"),
    ],
)
def test_what_is_told_of_an_error(error: Exception, code: int, line: str) -> None:
    assert group.describe_error(error) == ([line], code)


def test_a_package_that_is_not_installed_is_named_with_its_extra() -> None:
    with pytest.raises(InvalidInput, match=r"strata_test_none is not installed: pip install 'strata\[training\]'"):
        components.load("strata_test_none", "training")
    with pytest.raises(ModuleNotFoundError):  # a module of ours that is missing is a fault
        components.load("app.none", "all")


@pytest.mark.parametrize(("name", "value"), [("PORT", "many"), ("SHARD_ROOTS", "foo://"), ("SHARD_ROOTS", "")])
def test_a_bad_setting_is_one_line(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(f"STRATA_{name}", value)
    assert code_of("snapshot", "list") == exits.USAGE
    err = capsys.readouterr().err
    assert err.startswith(f"strata: STRATA_{name}: ") and err.count("\n") == 1


def test_children_run_this_very_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder `strata` or `app` where the service was started must not take the place of ours."""
    for name in ("strata", "app"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('another')")
    monkeypatch.chdir(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    command = components.strata_command("--version")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == f"strata {strata.__version__}\n", done.stderr
    monkeypatch.chdir(CHECKOUT)
    assert components.strata_command() == [sys.executable, "-m", "strata"]


def test_components_are_found_in_a_checkout_and_in_a_wheel(tmp_path: Path) -> None:
    package = tmp_path / "strata"
    package.mkdir()
    assert components.components_folder(package) == tmp_path
    (package / "_service").mkdir()
    assert components.components_folder(package) == package / "_service"
    assert components.components_folder() == CHECKOUT


def test_python_m_strata() -> None:
    command = [sys.executable, "-m", "strata", "jobs", "--url", "http://127.0.0.1:1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == exits.API_UNREACHABLE
    assert "Traceback" not in done.stderr


def test_a_variable_without_effect_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("STRATA_APIKEY", "k")
    monkeypatch.setenv("STRATA_PORT", "tcp://10.0.0.1:80")
    assert code_of("profiles", "check", "demo") == 0
    told = "strata: warning: STRATA_APIKEY: unknown variable, ignored; did you mean STRATA_API_KEY?\n"
    assert capsys.readouterr().err == told
    # the port concerns only what serves
    monkeypatch.setenv("STRATA_PROFILE", "none")
    code_of("worker", "--groups", "index")
    assert "strata: warning: STRATA_PORT: ignored, because Kubernetes" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["status", "any"], ["submit", "a.tar"], ["results", "any"], ["jobs"]])
@pytest.mark.parametrize(
    ("name", "value", "code", "told"),
    [
        ("STRATA_API_KEY", f"{SECRET} a", exits.USAGE, "the API key contains white space"),
        ("STRATA_API_KEY", f"{SECRET}\na", exits.USAGE, "the API key contains white space"),
        ("STRATA_URL", "http://[::1", exits.USAGE, "--url or STRATA_URL"),
        ("STRATA_URL", "tcp://10.0.0.1:80", exits.USAGE, "--url or STRATA_URL"),
        ("STRATA_URL", "host:8080", exits.USAGE, "--url or STRATA_URL"),
        ("STRATA_URL", "http://host:port", exits.USAGE, "--url or STRATA_URL"),
        ("STRATA_URL", f"http://user:{SECRET}@127.0.0.1:1\n", exits.API_UNREACHABLE, "at http://127.0.0.1:1:"),
    ],
)
def test_what_a_client_cannot_use(
    command: list[str],
    name: str,
    value: str,
    code: int,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(name, value)
    assert code_of(*command) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("strata: ") and told in line and SECRET not in line


@pytest.mark.usefixtures("service")
def test_a_key_beyond_ascii_or_with_a_newline_is_accepted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STRATA_API_KEY", f"sésame-{SECRET}\n")
    assert code_of("jobs") == 0
    assert "strata:" not in capsys.readouterr().err
