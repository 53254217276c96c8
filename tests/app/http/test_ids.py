"""Whatever a caller sends as an id, a key or a cursor: 404 or 422, and never a key of Redis or a path of the store."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from strata.core.ids import checked_job_id, is_hash, is_job_id
from strata.jobs.jobs import Jobs, UnknownJob
from strata.queue import keys
from strata.store.store import Store
from tests.fakes import jpeg, wait_for_end
from tests.service import Service, problem

SUFFIXES = ("", ":events", ":index", ":vision", ":llm", "/request.json", "\0", "\n", "*", "?", "[", "{0..9}", ".json")
# what would be something if it were put into a key or a path
HOSTILE = (
    "..",
    ".",
    "/",
    "//",
    "%2e%2e",
    "..%2f..%2fetc",
    "strata:job",
    "ID",
    "²",
    "İ",
    "a" * 65,
    "\ud800",
    "~",
    "$(id)",
)
FAST = settings(max_examples=40, database=None, suppress_health_check=list(HealthCheck))
ROUTES = [
    ("GET", "/v1/jobs/{}"),
    ("DELETE", "/v1/jobs/{}"),
    ("POST", "/v1/jobs/{}/cancel"),
    ("POST", "/v1/jobs/{}/retry"),
    ("GET", "/v1/jobs/{}/results"),
    ("GET", "/v1/jobs/{}/failures"),
    ("GET", "/v1/jobs/{}/events"),
    ("GET", "/v1/records/{}/key"),
    ("GET", "/v1/records/{}/key/image"),
]


@pytest.fixture(scope="module")
def job(idle_service: Service) -> str:
    """The id of a job that has ended."""
    return ended_job(idle_service)


def ended_job(idle_service: Service) -> str:
    """The id of a new job that was cancelled."""
    found = str(idle_service.caption(jpeg(), wait=None).json()["id"])
    idle_service.client.post(f"/v1/jobs/{found}/cancel")
    wait_for_end(idle_service.jobs, found)
    return found


def ids(job: str) -> st.SearchStrategy[str]:
    """Texts that are no id of a job, many of which begin with one."""
    suffixed = st.tuples(st.sampled_from([job, job.upper(), *HOSTILE]), st.sampled_from(SUFFIXES)).map("".join)
    return st.one_of(suffixed, st.text(), st.from_regex(r"[0-9a-z]{1,64}", fullmatch=True)).filter(
        lambda text: text not in (job, "")
    )


@pytest.mark.parametrize(("method", "route"), ROUTES)
def test_an_id_that_is_none_is_unknown(idle_service: Service, job: str, method: str, route: str) -> None:
    @given(text=ids(job))
    @FAST
    def check(text: str) -> None:
        address = route.format(quote(text.encode("utf-8", "surrogatepass"), safe=""))
        answer = idle_service.client.request(method, address)
        # an id of dots or with a slash is another address, which may exist, and may not have this method
        expected = (404, 422) if re.search(r"[./\\]", text) is None else (200, 307, 404, 405, 422)
        assert answer.status_code in expected, (text, answer.status_code, answer.text)

    check()


@pytest.mark.parametrize(
    ("method", "path", "step"),
    [
        ("POST", "jobs/{}/cancel", "cancel"),
        ("POST", "jobs/{}/retry", "retry"),
        ("GET", "jobs/{}/results", "request"),
        ("GET", "jobs/{}/failures", "summaries"),
        ("GET", "records/{}/key", "request"),
        ("GET", "records/{}/key/image", "written"),
        ("DELETE", "jobs/{}", "request"),
    ],
)
def test_a_job_that_is_deleted_during_a_request(
    idle_service: Service, monkeypatch: pytest.MonkeyPatch, method: str, path: str, step: str
) -> None:
    job, jobs = ended_job(idle_service), idle_service.jobs
    original = getattr(Jobs, step)

    def deleted(self: Jobs, *arguments: Any) -> Any:
        jobs.store.remove_job(job)
        jobs.queue.job_states.delete(job)
        return original(self, *arguments)

    monkeypatch.setattr(Jobs, step, deleted)
    answer = idle_service.client.request(method, f"/v1/{path.format(job)}")
    # a copy of what was read before may still be answered
    assert answer.status_code in (200, 404), answer.text
    problem(answer, 404, answer.json()["type"].rpartition("/")[2]) if answer.status_code == 404 else None


def test_keys_and_cursors(idle_service: Service, job: str) -> None:
    @given(text=st.one_of(st.text(max_size=300), st.sampled_from(HOSTILE), st.binary(max_size=60).map(repr)))
    @FAST
    def check(text: str) -> None:
        sent = quote(text.encode("utf-8", "surrogatepass"), safe="")
        for path in ("", "/image", "/overlay.png"):
            answer = idle_service.client.get(f"/v1/records/{job}/{sent}{path}")
            assert answer.status_code in (307, 404, 422), (text, answer.status_code, answer.text)
        for address in (f"/v1/jobs/{job}/results", f"/v1/jobs/{job}/failures", "/v1/jobs"):
            answer = idle_service.client.get(f"{address}?cursor={sent}")
            # the id of a job is a cursor of the list of jobs
            assert answer.status_code == (200 if address == "/v1/jobs" and is_job_id(text) else 422), (text, address)
            problem(answer, 422, "invalid-request") if answer.status_code == 422 else None
        for header in ("Idempotency-Key", "Last-Event-ID", "Prefer"):
            value = text.encode("latin-1", "replace").translate(None, bytes((*range(32), 127)))
            answer = idle_service.client.get(f"/v1/jobs/{job}/events", headers={header.encode(): value})
            assert answer.status_code == 200
            answer = idle_service.client.post("/v1/captions", headers={header.encode(): value})
            assert 400 <= answer.status_code < 500

    check()


@pytest.mark.parametrize(
    "cursor", ["WzEsMCwwXQ==", "Wz EsMCwwXQ", "WzIsMCwwXQ", "WzEsMSwwXQ", "WzEsMCwxXQ", "WzAsMCw5OTldA"]
)
def test_a_cursor_that_no_page_has_returned(idle_service: Service, job: str, cursor: str) -> None:
    problem(idle_service.client.get(f"/v1/jobs/{job}/results", params={"cursor": cursor}), 422, "invalid-request")


@given(text=st.one_of(st.text(), st.from_regex(r"[0-9a-zA-Z:²]{0,70}", fullmatch=True)))
@FAST
def test_the_forms_of_ids(text: str) -> None:
    wanted = re.fullmatch("[0-9a-z]{1,64}", text) is not None
    assert is_job_id(text) is wanted
    assert not is_hash(text) or wanted
    for build in (checked_job_id, keys.job, keys.events, keys.ledger, lambda text: keys.done(text, "index")):
        if wanted:
            assert text in build(text)
        else:
            with pytest.raises(ValueError, match="is not the id of a job"):
                build(text)


@pytest.mark.parametrize("text", ["..", "../jobs/a1", "a/b", "", "²", "a1:events"])
def test_no_path_is_made_of_another_text(idle_service: Service, store: Store, tmp_path: Path, text: str) -> None:
    assert store.parse_job_file(text, "request", object) is None  # type: ignore[type-var]
    calls = (
        lambda: store.read_job_file(text, "request"),
        lambda: store.remove_job_file(text, "request"),
        lambda: store.remove_job(text),
        lambda: store.open_job(text),
        lambda: store.close_job(text),
    )
    for call in calls:
        with pytest.raises(ValueError, match="is not the id of a job"):
            call()
    with pytest.raises(UnknownJob):
        idle_service.jobs.view(text)
    with pytest.raises(UnknownJob):
        idle_service.jobs.request(text)
