"""`/v1/search`: rows of a job, a snapshot or the whole store, and how many of them have what."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field, StringConstraints
from starlette.concurrency import run_in_threadpool

from app.dependencies import AccessDep, Services, ServicesDep, shown_job
from app.http.scopes import ScopedRoute
from app.problems import PROBLEM_RESPONSES, ProblemError
from app.searches import Target
from strata.core import CutReason, Facets, SearchPage, Status
from strata.keys import Access
from strata.search import BadSearchCursor, Order, Search, facets, words_of
from strata.search import Query as RowQuery

router = APIRouter(route_class=ScopedRoute, prefix="/search", responses=PROBLEM_RESPONSES)

MAX_WORDS = 32  # of a text that is searched for
Label = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Labels = Annotated[list[Label], Field(max_length=16)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Length = Annotated[int, Field(ge=0, le=2**31 - 1)]


class Filters(BaseModel):
    """What rows are searched for, and where. Of `status` one value must hold, of the other lists all of them."""

    job: str | None = Field(None, max_length=64, description="only rows of this job")
    snapshot: str | None = Field(None, max_length=100, description="only rows of this snapshot: its name or id")
    q: str = Field("", max_length=500, description="words of the texts; `-word`: not this word")
    key: str = Field("", max_length=1024, description="a part of the image's key")
    status: Annotated[list[Status], Field(max_length=3)] = []
    has_text: bool | None = Field(None, description="whether a line of text is kept")
    score_min: Share | None = None
    score_max: Share | None = None
    words_min: Length | None = None
    words_max: Length | None = None
    thing: Labels = []
    tag: Labels = []
    dropped: Labels = []
    cut: Annotated[list[CutReason], Field(max_length=16)] = []
    failure: Labels = []

    def query(self) -> RowQuery:
        """The conditions for rows. Raises ProblemError."""
        if len(words_of(self.q)) > MAX_WORDS:
            raise _refusal("q", f"at most {MAX_WORDS} words can be searched for")
        if self.q.strip() and not words_of(self.q):
            raise _refusal("q", "there is no word in it: a word has letters or digits")
        for name in ("score", "words"):
            least, most = getattr(self, f"{name}_min"), getattr(self, f"{name}_max")
            if least is not None and most is not None and least > most:
                raise _refusal(f"{name}_min", f"{name}_min is above {name}_max, so that no row is found")
        return RowQuery(
            text=self.q,
            key=self.key,
            status=tuple(self.status),
            has_text=self.has_text,
            least_score=self.score_min,
            most_score=self.score_max,
            least_words=self.words_min,
            most_words=self.words_max,
            **{name: tuple(getattr(self, name)) for name in ("thing", "tag", "dropped", "cut", "failure")},
        )


class _Paging(Filters):
    order: Order = "store"
    limit: int = Field(50, ge=1, le=200, description="rows in one response")
    cursor: str | None = Field(None, max_length=600, description="where the page begins; from `next`")


@router.get("")
async def search_rows(
    asked: Annotated[_Paging, Query()], given: ServicesDep, access: AccessDep, request: Request, response: Response
) -> SearchPage:
    """Rows that have all that is asked for, page by page; each row is on one page, also while rows are added.

    The service keeps an index of the parts in its store, which follows them after some seconds: `waiting` says how many
    parts it does not have yet. `order`: as in the store, or by the score or by the words of the description.
    """
    target = await _target(given, access, asked)

    def page(search: Search) -> SearchPage:
        found = search.page(asked.order, asked.limit, asked.cursor)
        indexed = search.indexed()
        waiting = given.searches.index.waiting(target.scope, target.matches, indexed)
        return SearchPage(
            rows=found.hits,
            total=found.total,
            next=found.next,
            indexed=indexed,
            waiting=waiting,
            broken=search.broken(),
            note=given.searches.index.note,
            # they come from the rows of all tenants
            hints=search.hints() if access.is_operator else [],
        )

    try:
        found = await given.searches.run(target, asked.query(), page, request.is_disconnected)
    except BadSearchCursor as error:
        raise _refusal("cursor", str(error)) from error
    if found.next:
        also = asked.model_copy(update={"cursor": found.next}).model_dump(mode="json", exclude_defaults=True)
        response.headers["Link"] = f'</v1/search?{urlencode(also, doseq=True)}>; rel="next"'
    return found


@router.get("/facets")
async def count_rows(
    asked: Annotated[Filters, Query()], given: ServicesDep, access: AccessDep, request: Request
) -> Facets:
    """How many of the rows of a search have which status, length, score and labels; of labels the commonest 30."""
    target = await _target(given, access, asked)
    return await given.searches.run(target, asked.query(), facets, request.is_disconnected)


async def _target(given: Services, access: Access, asked: Filters) -> Target:
    if asked.job is not None and asked.snapshot is not None:
        raise _refusal("snapshot", "a job and a snapshot exclude each other")
    job = None if asked.job is None else (await shown_job(given, access, asked.job)).view
    return await run_in_threadpool(given.searches.target, job, asked.snapshot, access)


def _refusal(name: str, message: str) -> ProblemError:
    errors = [{"type": "value_error", "location": ["query", name], "message": message}]
    return ProblemError("invalid-request", f"query.{name}: {message}", errors)
