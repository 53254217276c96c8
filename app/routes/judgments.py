"""`/v1/judgments` and `/v1/review`: what people say of records, and which records they are asked about."""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Response
from starlette.concurrency import run_in_threadpool

from app.dependencies import AccessDep, Services, ServicesDep, repairs, shown_job
from app.http.scopes import ScopedRoute
from app.problems import PROBLEM_RESPONSES, ProblemError
from app.reviews import MAX_SAMPLE, JudgmentPage, NewJudgment, NewJudgments, ReviewPage, StoredJudgments, Wanted
from strata.core import FINAL_GROUP, JobView
from strata.jobs import UnknownJob
from strata.judgments import Judgment, Reviewer, Verdict, current
from strata.keys import Access
from strata.snapshots import Order
from strata.snapshots.filters import FilterError
from strata.snapshots.snapshots import UnknownSnapshot
from strata.store import BrokenPart

router = APIRouter(route_class=ScopedRoute, responses=PROBLEM_RESPONSES)

JobQuery = Annotated[str | None, Query(max_length=64, description="a job's id")]
ReviewerQuery = Annotated[Reviewer | None, Query(description="only what this reviewer has said")]
_SOURCE = "exactly one of job and snapshot is needed"


@router.post("/judgments")
async def send_judgments(body: NewJudgments, given: ServicesDep, access: AccessDep) -> StoredJudgments:
    """Store judgments. They are never changed: a later one of the same reviewer supersedes an earlier one.

    A judgment that is sent again with the same id is stored once.
    """
    named = dict.fromkeys(one.job for one in body.judgments)
    jobs = {job: (await shown_job(given, access, job)).view for job in named}

    return await run_in_threadpool(_store, given, body.judgments, jobs)


def _store(given: Services, new: list[NewJudgment], jobs: dict[str, JobView]) -> StoredJudgments:
    made = []
    for number, one in enumerate(new):
        with repairs(given, jobs[one.job]):
            made.append(given.reviews.judgment(number, one, jobs[one.job]))
    return given.reviews.append(made)


@router.get("/judgments")
def list_judgments(
    given: ServicesDep,
    access: AccessDep,
    response: Response,
    job: JobQuery = None,
    fingerprint: Annotated[str | None, Query(pattern="^[0-9a-f]{1,64}$", description="of the group llm")] = None,
    key: Annotated[str | None, Query(max_length=1024, description="of an image")] = None,
    reviewer: ReviewerQuery = None,
    verdict: Verdict | None = None,
    counting: Annotated[bool, Query(description="only those that were not superseded or undone")] = False,
    limit: Annotated[int, Query(ge=1, le=2000, description="judgments in one response")] = 500,
    cursor: Annotated[str | None, Query(max_length=200, description="where the page begins; from `next`")] = None,
) -> JudgmentPage:
    """Judgments by time, or those that pass the filters."""
    all_of = given.reviews.judgments
    if job is not None:
        request = given.jobs.request(job)
        if not access.sees(request.tenant):
            raise UnknownJob(job)
        found = all_of.of_job(fingerprint or request.fingerprints[FINAL_GROUP], job)
    else:
        owns = given.tenants.owns(access)
        found = all_of.of_fingerprints([fingerprint], owns) if fingerprint is not None else all_of.all(owns)
    judgments = current(found.judgments) if counting else found.judgments
    after = _position(cursor)
    wanted = {"key": key, "reviewer": reviewer, "verdict": verdict}
    chosen = [
        one
        for one in judgments
        if (after is None or (one.at, one.id) > after)
        and all(value is None or getattr(one, name) == value for name, value in wanted.items())
    ]
    following = _cursor(chosen[limit - 1]) if len(chosen) > limit else None
    return JudgmentPage(judgments=chosen[:limit], next=following, faults=found.faults)


@router.get("/review")
async def show_queue(
    given: ServicesDep,
    access: AccessDep,
    reviewer: Annotated[Reviewer, Query(description="who reviews")],
    job: JobQuery = None,
    snapshot: Annotated[str | None, Query(max_length=100, description="a snapshot's name or id")] = None,
    sample: Annotated[int, Query(ge=1, le=MAX_SAMPLE, description="records in the queue")] = 200,
    seed: Annotated[int, Query(ge=0, lt=2**63, description="of the sample")] = 0,
    where: Annotated[str | None, Query(max_length=10_000, description="a filter, as of snapshots")] = None,
    order: Annotated[Order, Query(description="random, or the most doubtful first")] = "random",
    start: Annotated[int, Query(ge=0, le=MAX_SAMPLE, description="the number of the first record")] = 0,
    limit: Annotated[int, Query(ge=1, le=50, description="records in one response")] = 20,
) -> ReviewPage:
    """A queue of records to be judged: the same for the same seed, sample and filter, while no rows are added.

    Reviewers see their own judgments only. The agreement with others is told to those who have judged the whole queue.
    """
    if (job is None) == (snapshot is None):
        errors = [{"type": "value_error", "location": ["query"], "message": _SOURCE}]
        raise ProblemError("invalid-request", _SOURCE, errors)
    shown = (await shown_job(given, access, job)).view if job is not None else None
    wanted = Wanted(sample, seed, where, order)
    async with given.large_answers:
        return await run_in_threadpool(_page, given, shown or snapshot or "", wanted, (access, reviewer, start, limit))


def _page(given: Services, source: JobView | str, wanted: Wanted, asked: tuple[Access, str, int, int]) -> ReviewPage:
    try:
        if isinstance(source, str):
            return given.reviews.page(given.reviews.of_snapshot(source, wanted, asked[0]), *asked)
        with repairs(given, source):
            return given.reviews.page(given.reviews.of_job(source, wanted), *asked)
    except FilterError as error:
        errors = [{"type": "value_error", "location": ["query", "where"], "message": str(error)}]
        raise ProblemError("invalid-request", str(error), errors) from error
    except (BrokenPart, FileNotFoundError) as error:
        reason = str(error) if isinstance(error, BrokenPart) else "a part is missing"
        detail = f"snapshot {str(source)[:100]!r}: {reason}; `strata verify` has it computed again"
        raise ProblemError("part-lost", detail) from error
    except UnknownSnapshot as error:
        raise ProblemError("unknown-snapshot", str(error)) from error


def _cursor(judgment: Judgment) -> str:
    return base64.urlsafe_b64encode(f"{judgment.at.isoformat()} {judgment.id}".encode()).decode().rstrip("=")


def _position(cursor: str | None) -> tuple[datetime, str] | None:
    """The time and id of the last judgment of the page before. Raises ProblemError."""
    if cursor is None:
        return None
    try:
        at, _, name = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode().partition(" ")
        found = datetime.fromisoformat(at)
        if found.tzinfo is None:
            raise ValueError("no time zone")
    except ValueError as error:
        detail = "the cursor is not one that a page has returned"
        errors = [{"type": "value_error", "location": ["query", "cursor"], "message": detail}]
        raise ProblemError("invalid-request", detail, errors) from error
    return found, name
