"""Review: queues of records for people to judge, and their judgments."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from app.problems import ProblemError
from app.tenants import Tenants
from strata.core import FINAL_GROUP, JobView, Record, Status
from strata.errors import DamagedFile
from strata.jobs import Jobs, NotDescribed, Results
from strata.judgments import (
    Agreement,
    Judgment,
    Judgments,
    NoSuchSentence,
    Opinion,
    Subject,
    agreement_of,
    current,
    now,
    stored,
)
from strata.keys import Access
from strata.snapshots import Doubt, Order, QueuedRow, ReviewQueue, Snapshots, records_of, review_queue
from strata.store import Part, PartsOf

QUEUES = 8  # that are kept in memory; each has at most MAX_SAMPLE rows
MAX_SAMPLE = 5000
MAX_JUDGMENTS = 200  # of one request


class NewJudgment(Opinion):
    """A judgment as it is sent: of the record with this key of a job. identity: of its shard, if several have the key.

    Only verdict "rejected" has a reason; "edited" needs a sentence that is edited or rejected.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    job: str = Field(max_length=64)
    key: str = Field(min_length=1, max_length=1024)
    identity: str | None = Field(default=None, pattern="^[0-9a-f]{1,64}$")


class NewJudgments(BaseModel):
    """`POST /v1/judgments`: they are stored together, or none of them."""

    model_config = ConfigDict(extra="forbid")
    judgments: list[NewJudgment] = Field(min_length=1, max_length=MAX_JUDGMENTS)


class StoredJudgments(BaseModel):
    """The judgments as they are stored. repeated: the ids of those that were stored before."""

    judgments: list[Judgment]
    repeated: list[str]


class JudgmentPage(BaseModel):
    """`GET /v1/judgments`, by time. next: the cursor of the following page, null on the last one.

    faults: a line for each file of judgments that is missing or broken, so that judgments may be missing here.
    """

    judgments: list[Judgment]
    next: str | None = None
    faults: list[str] = []


class ReviewItem(BaseModel):
    """A record to be judged. doubt: why it is doubtful; judgment: what the reviewer has said of it, if anything."""

    job: str
    identity: str
    key: str
    fingerprint: str
    record: Record
    doubt: Doubt
    judgment: Judgment | None = None


class ReviewPage(BaseModel):
    """`GET /v1/review`: a part of a queue, from the record with the number `start` on.

    total: the records of the queue; done: of them, those that the reviewer has judged; passed: the records that pass
    the filter, of those that were considered; parts_read: of how many parts (of `parts`) rows were considered.
    left_out: records that cannot be judged, because the job that described them was deleted. next: the start of the
    next page, null on the last one; resume: the first record that the reviewer has not judged, null if there is none.
    agreement: with the other reviewers, of the queue's records; null until the
    reviewer has judged all of them, because nobody is to know before what the others say. faults: as in `GET
    /v1/judgments`.
    """

    items: list[ReviewItem]
    start: int
    total: int
    done: int
    passed: int
    considered: int
    parts: int
    parts_read: int
    left_out: int = 0
    next: int | None = None
    resume: int | None = None
    agreement: Agreement | None = None
    faults: list[str] = []


@dataclass(frozen=True)
class Wanted:
    """Which records a queue has, as of `strata.snapshots.review_queue`."""

    sample: int
    seed: int
    where: str | None
    order: Order


class _Rows(NamedTuple):
    """A queue with the job of each of its rows, and the number of rows whose job was deleted."""

    queue: ReviewQueue
    rows: list[QueuedRow]
    jobs: list[str]

    @property
    def subjects(self) -> list[Subject]:
        """The records of the queue, in order."""
        return [Subject(Part.parse(row.part).fingerprint, row.identity, row.key) for row in self.rows]


class Reviews:
    """The queues and judgments of a service. Every method raises QueueUnavailable, OSError and ProblemError."""

    def __init__(self, jobs: Jobs, tenants: Tenants) -> None:
        self.jobs, self.store, self.tenants = jobs, jobs.store, tenants
        self.judgments = Judgments(jobs.store)
        self._snapshots, self._parts_of = Snapshots(jobs.store), PartsOf(jobs.store)
        self._writing = threading.Lock()
        self._lock = threading.Lock()
        self._queues: OrderedDict[tuple[str, Wanted], _Rows] = OrderedDict()

    # judgments

    def append(self, made: Sequence[Judgment]) -> StoredJudgments:
        """Store judgments of `judgment`, all or none."""
        folders = {(one.fingerprint, one.job) for one in made}
        # one request of this process at a time, so that an id that is sent twice at once is found
        with self._writing:
            known: dict[str, Judgment] = {}
            for fingerprint, job in folders:
                known |= {one.id: one for one in self.judgments.of_job(fingerprint, job).judgments}
            fresh: dict[str, Judgment] = {}
            repeated = []
            for number, one in enumerate(made):
                before = known.get(one.id) or fresh.get(one.id)
                if before is None:
                    _check_superseded(number, one, known | fresh)
                    fresh[one.id] = one
                elif before.opinion == one.opinion:
                    repeated.append(one.id)
                else:
                    detail = (
                        f"judgments.{number}: another judgment has the id {one.id}; make a new id for each judgment"
                    )
                    raise ProblemError("judgment-id-reused", detail)
            self.judgments.append(list(fresh.values()))
        answers = [fresh.get(one.id) or known[one.id] for one in made]
        return StoredJudgments(judgments=answers, repeated=repeated)

    def judgment(self, number: int, new: NewJudgment, job: JobView) -> Judgment:
        """The judgment to be stored, of a record that exists. number: in the request. Raises BrokenPart."""
        request, summaries = self.jobs.request(job.id), self.jobs.summaries(job.id)
        results = Results(request, summaries, self.store, job.status, self.jobs.written(job))
        try:
            found = results.record(new.key, new.identity)
        except NotDescribed as error:
            raise ProblemError("unknown-record", f"judgments.{number}: {error}") from error
        if found is None:
            detail = f"judgments.{number}: job {job.id} has no image with the key {new.key[:200]!r}"
            raise ProblemError("unknown-record", detail)
        record, place = found
        if record.status is not Status.SUCCEEDED:
            detail = f"judgments.{number}: the image {new.key[:200]!r} has {record.status.value}: nothing describes it"
            raise ProblemError("unknown-record", detail)
        subject = Subject(request.fingerprints[FINAL_GROUP], place.chunk.identity, new.key)
        opinion = Opinion.model_validate(new.model_dump(exclude={"job", "key", "identity"}))
        try:
            return stored(opinion, subject, job.id, now(), record.description)
        except NoSuchSentence as error:
            raise _invalid(number, "sentences", str(error)) from error

    # queues

    def of_job(self, job: JobView, wanted: Wanted) -> _Rows:
        """A queue of a job's records, of those that are described by now. Raises BrokenPart."""
        request, summaries = self.jobs.request(job.id), self.jobs.summaries(job.id)
        parts = Results(request, summaries, self.store, job.status, self.jobs.written(job)).parts()
        digest = hashlib.sha256("\n".join(part.path for part in parts).encode()).hexdigest()

        def make() -> _Rows:
            queue = review_queue(self.store, parts, wanted.sample, wanted.seed, where=wanted.where, order=wanted.order)
            return _Rows(queue, queue.rows, [job.id] * len(queue.rows))

        return self._kept(f"{job.id}/{digest}", wanted, make)

    def of_snapshot(self, name: str, wanted: Wanted, access: Access) -> _Rows:
        """A queue of a snapshot's records, with jobs of the access. Raises UnknownSnapshot and DamagedFile."""
        self.tenants.check_snapshot(access, name)
        owns = self.tenants.owns(access)
        snapshot = self._snapshots.open(name)

        def make() -> _Rows:
            parts = [Part.parse(path) for path in snapshot.parts]
            queue = review_queue(
                self.store, parts, wanted.sample, wanted.seed, wanted.where, wanted.order, snapshot.rows()
            )
            jobs = self._jobs_of(snapshot.manifest.sources, {Part.parse(row.part) for row in queue.rows}, owns)
            rows = [row for row in queue.rows if Part.parse(row.part)[1:3] in jobs]
            return _Rows(queue, rows, [jobs[Part.parse(row.part)[1:3]] for row in rows])

        return self._kept(f"snapshot/{snapshot.id}/{access.only_tenant or ''}", wanted, make)

    def _kept(self, source: str, wanted: Wanted, make: Callable[[], _Rows]) -> _Rows:
        """A queue that was made before, or a new one: the pages of a queue are asked for one after another."""
        with self._lock:
            if (source, wanted) in self._queues:
                self._queues.move_to_end((source, wanted))
                return self._queues[source, wanted]
        made = make()
        with self._lock:
            self._queues[source, wanted] = made
            while len(self._queues) > QUEUES:
                self._queues.popitem(last=False)
        return made

    def _jobs_of(
        self, sources: Sequence[str], parts: Iterable[Part], owns: Callable[[str], bool]
    ) -> dict[tuple[str, ...], str]:
        """A job for each fingerprint and shard of some parts: one of the sources, else any that has described it.

        owns: which jobs may be named.
        """
        wanted: set[tuple[str, ...]] = {part[1:3] for part in parts}
        found: dict[tuple[str, ...], str] = {}
        for job_id in dict.fromkeys([*sources, *reversed(self.store.job_ids())]):
            if wanted <= found.keys():
                break
            with suppress(DamagedFile):
                request = self._parts_of.request(job_id)
                if request is None or not owns(job_id):
                    continue
                fingerprint = request.fingerprints[FINAL_GROUP]
                if not any(one[0] == fingerprint for one in wanted - found.keys()):
                    continue
                for summary in self._parts_of.summaries(request):
                    if (fingerprint, summary.identity) in wanted:
                        found.setdefault((fingerprint, summary.identity), job_id)
        return found

    def page(self, rows: _Rows, access: Access, reviewer: str, start: int, limit: int) -> ReviewPage:
        """A part of a queue for a reviewer, with the judgments that the access sees. Raises BrokenPart."""
        subjects = rows.subjects
        judged = self.judgments.of_fingerprints({one.fingerprint for one in subjects}, self.tenants.owns(access))
        queued = set(subjects)
        counting = [one for one in current(judged.judgments) if one.subject in queued]
        own = {one.subject: one for one in counting if one.reviewer == reviewer}
        shown = range(start, min(start + limit, len(subjects)))
        records = records_of(self.store, [rows.rows[index] for index in shown])
        items = [
            ReviewItem(
                job=rows.jobs[index],
                **subjects[index]._asdict(),
                record=record.model_copy(update={"fingerprint": subjects[index].fingerprint}),
                doubt=rows.rows[index].doubt,
                judgment=own.get(subjects[index]),
            )
            for index, record in zip(shown, records, strict=True)
        ]
        # what others say is told only to those who have said all themselves
        ended = bool(subjects) and len(own) == len(queued)
        return ReviewPage(
            items=items,
            start=start,
            total=len(subjects),
            done=len(own),
            passed=rows.queue.passed,
            considered=rows.queue.considered,
            parts=rows.queue.parts,
            parts_read=rows.queue.read,
            left_out=len(rows.queue.rows) - len(rows.rows),
            resume=next((index for index, one in enumerate(subjects) if one not in own), None),
            next=shown.stop if shown.stop < len(subjects) else None,
            agreement=agreement_of(counting) if ended else None,
            faults=judged.faults,
        )


def _check_superseded(number: int, judgment: Judgment, known: Mapping[str, Judgment]) -> None:
    """Raise ProblemError unless a judgment supersedes nothing, or one of the same reviewer and record."""
    if judgment.supersedes is None:
        return
    before = known.get(judgment.supersedes)
    if before is None or before.reviewer != judgment.reviewer or before.subject != judgment.subject:
        detail = f"no judgment of this reviewer and record has the id {judgment.supersedes}"
        raise _invalid(number, "supersedes", detail)


def _invalid(number: int, field: str, detail: str) -> ProblemError:
    errors = [{"type": "value_error", "location": ["body", "judgments", str(number), field], "message": detail}]
    return ProblemError("invalid-request", f"judgments.{number}.{field}: {detail}", errors)
