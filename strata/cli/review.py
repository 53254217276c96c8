"""`strata review`: what people said of records, and its exchange with Label Studio and FiftyOne; without a service."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import quote

import typer

from strata.cli.group import PlainGroup
from strata.cli.terminal import DEFAULT_URL, AsJson, Moved, StoreUri, not_empty, open_store, output, progress
from strata.counts import counted
from strata.errors import InvalidInput
from strata.files import writing

if TYPE_CHECKING:
    from strata.judgments import Agreement, Judgment, Subject
    from strata.judgments.exchange import Described, Imported
    from strata.snapshots import QueuedRow
    from strata.store import Part, Store

app = typer.Typer(name="review", cls=PlainGroup, help="What people said of records in review.", no_args_is_help=True)

Job = Annotated[str, typer.Argument(metavar="JOB", help="A job's id.")]
AnyJob = Annotated[str | None, typer.Argument(metavar="[JOB]", help="A job's id; none: all jobs.")]
Reviewer = Annotated[str | None, typer.Option(metavar="NAME", help="Only what this reviewer has said.")]
Format = Annotated[Literal["label-studio", "fiftyone"], typer.Option("--format", help="Whose files these are.")]


@app.command("list")
def list_judgments(
    job: AnyJob = None,
    reviewer: Reviewer = None,
    superseded: Annotated[bool, typer.Option("--all", help="Also those that were superseded or undone.")] = False,
    as_json: AsJson = False,
    store: StoreUri = None,
) -> None:
    """List judgments, one a line, by time. Exit code 14 if files of judgments are missing or broken."""
    from strata.judgments import current

    found = _found(open_store(store), job)
    judgments = found.judgments if superseded else current(found.judgments)
    for one in judgments:
        if reviewer in (None, one.reviewer):
            print(one.model_dump_json() if as_json else _line(one))
    found.whole()


def _line(one: Judgment) -> str:
    from strata.cli.rendering.records import clean, moment

    said = f"{one.verdict}: {one.reason}" if one.reason else one.verdict
    fields = [moment(one.at), one.job, one.key, one.reviewer, said, one.text or one.comment or ""]
    return "\t".join(clean(" ".join(field.split())) for field in fields).rstrip("\t")


@app.command()
def agreement(job: AnyJob = None, as_json: AsJson = False, store: StoreUri = None) -> None:
    """How far reviewers agree: Krippendorff's alpha of what each of them said last of a record."""
    from strata.judgments import agreement_of

    found = agreement_of(_found(open_store(store), job).whole())
    if as_json:
        print(found.model_dump_json())
    elif not found.records:
        print("no record is judged by two or more reviewers, so there is no agreement to compute")
    else:
        _print_agreement(found)


def _print_agreement(found: Agreement) -> None:
    from rich.table import Table

    from strata.cli.rendering.records import clean

    print(f"{counted(found.records, 'record')} judged by two or more reviewers; Krippendorff's alpha:")
    for name, value in (
        ("verdicts", found.alpha),
        ("whether a record is rejected", found.passes_alpha),
        ("sentences", found.sentence_alpha),
    ):
        print(f"  {name:<30}{'not defined' if value is None else f'{value:.3f}'}")
    table = Table("reviewers", "both judged", "equal", "alpha")
    for pair in found.pairs:
        alpha = "not defined" if pair.alpha is None else f"{pair.alpha:.3f}"
        table.add_row(clean(" and ".join(pair.reviewers)), str(pair.records), str(pair.equal), alpha)
    output().print(table)


def _found(store: Store, job: str | None) -> Any:
    from strata.judgments import Judgments

    judgments = Judgments(store)
    return judgments.all() if job is None else judgments.of_job(_fingerprint(store, job), job)


def _fingerprint(store: Store, job: str) -> str:
    """The fingerprint of a job's final parts. Raises UnknownSource."""
    from strata.core import FINAL_GROUP
    from strata.store import PartsOf, UnknownSource

    request = PartsOf(store).request(job)
    if request is None:
        raise UnknownSource(job, "there is no such job in the store")
    return request.fingerprints[FINAL_GROUP]


@app.command("export")
def export_records(
    job: Job,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="A new folder.")],
    form: Format,
    sample: Annotated[int, typer.Option(min=1, max=100_000, help="Most records.")] = 200,
    seed: Annotated[int, typer.Option(help="Seed of the sample.")] = 0,
    where: Annotated[
        str | None, typer.Option(help='Which records: "objects >= 2 and text".', callback=not_empty)
    ] = None,
    order: Annotated[Literal["random", "doubtful"], typer.Option(help="Which records come first.")] = "random",
    url: Annotated[str, typer.Option(help="Label Studio loads the images from the service here.")] = DEFAULT_URL,
    root: Moved = None,
    store: StoreUri = None,
) -> None:
    """Write records with their judgments for Label Studio or FiftyOne.

    For Label Studio: tasks.json and interface.xml; for FiftyOne: dataset.json and the images.
    """
    from strata.snapshots import review_queue
    from strata.store import PartsOf

    opened = open_store(store, root)
    _fingerprint(opened, job)
    if out.exists():
        raise InvalidInput(f"--out {out}: it exists already")
    parts = PartsOf(opened).sources([job])
    rows = review_queue(opened, parts, sample, seed, where, order).rows
    out.mkdir(parents=True)
    with writing(out):
        described = list(_described(opened, job, rows, url if form == "label-studio" else None, out))
        for name, text in _files(form, job, described).items():
            (out / name).write_text(text, encoding="utf-8")
    print(f"{out}: {counted(len(described), 'record')}")


def _files(form: str, job: str, described: Sequence[Described]) -> dict[str, str]:
    from strata.judgments.exchange import fiftyone, label_studio

    if form == "fiftyone":
        return {"dataset.json": json.dumps(fiftyone.data_set(described, f"strata-{job}"), indent=1)}
    tasks = json.dumps(label_studio.tasks(described), indent=1)
    return {"tasks.json": tasks, "interface.xml": label_studio.interface(described)}


def _described(store: Store, job: str, rows: Sequence[QueuedRow], url: str | None, out: Path) -> Iterator[Described]:
    """The records of rows with their judgments and images. url: of the service; None: the images are written too."""
    from strata.judgments import Subject, current
    from strata.judgments.exchange import Described
    from strata.shards import ImageReader
    from strata.snapshots import records_of

    said: dict[Subject, list[Judgment]] = {}
    for one in current(_found(store, job).whole()):
        said.setdefault(one.subject, []).append(one)
    reader = ImageReader(store)
    with progress() as bar:
        task = bar.add_task("records", total=len(rows))
        for number, row in enumerate(rows):
            (record,) = records_of(store, [row])
            subject = Subject(row.part.split("/")[2], row.identity, row.key)
            image: str | None
            if url is not None:
                place = f"{url.rstrip('/')}/v1/records/{quote(job)}/{quote(row.key, safe='')}/image"
                image = f"{place}?identity={row.identity}"
            else:
                image = _write_image(reader, record.image, out, number)
            bar.advance(task)
            if image:
                yield Described(job, subject, record, image, said.get(subject, ()))


def _write_image(reader: Any, place: Any, out: Path, number: int) -> str | None:
    """The path of a written image, relative to the folder; None, which is told, if it cannot be read."""
    from strata.store import reason_of

    (data,) = reader.read([place])
    if isinstance(data, Exception):
        print(f"strata: {place.uri}: {reason_of(data)}; the record is left out", file=sys.stderr)
        return None
    suffix = ".png" if data[:4] == b"\x89PNG" else ".webp" if data[8:12] == b"WEBP" else ".jpg"
    (out / "images").mkdir(exist_ok=True)
    (out / "images" / f"{number:06d}{suffix}").write_bytes(data)
    return f"images/{number:06d}{suffix}"


@app.command("import")
def import_judgments(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON of Label Studio or FiftyOne.", exists=True)],
    form: Format,
    reviewer: Annotated[str | None, typer.Option(metavar="NAME", help="Who judged; needed for FiftyOne.")] = None,
    store: StoreUri = None,
) -> None:
    """Store what people said in Label Studio or FiftyOne as judgments. Reading a file again stores nothing twice."""
    from strata.judgments.exchange import fiftyone, label_studio

    if form == "fiftyone":
        if reviewer is None:
            raise InvalidInput("FiftyOne does not say who judged: give --reviewer NAME")
        found = fiftyone.read(file, reviewer)
    else:
        found = label_studio.read(file)
    stored, known, left_out = _store(open_store(store), found)
    print(f"{counted(stored, 'judgment')} stored, {known} known already, {left_out} left out")


def _store(store: Store, found: Sequence[Imported]) -> tuple[int, int, int]:
    """Store what is new of some judgments; returns the numbers of those stored, known already and left out."""
    from strata.core import is_job_id
    from strata.judgments import Judgments
    from strata.store import PartsOf

    judgments, parts_of = Judgments(store), PartsOf(store)
    fresh: list[Judgment] = []
    # what nobody has changed since Strata wrote it is known
    known, left_out = sum(one.unchanged for one in found), 0
    found = [one for one in found if not one.unchanged]
    for job in dict.fromkeys(one.job for one in found):
        members = [one for one in found if one.job == job]
        if not is_job_id(job) or parts_of.request(job) is None:
            print(f"strata: there is no job {job[:80]!r}; {counted(len(members), 'record')} left out", file=sys.stderr)
            left_out += len(members)
            continue
        there = {one.id for one in judgments.of_job(_fingerprint(store, job), job).whole()}
        for judgment in _judgments(store, parts_of.sources([job]), members):
            if judgment is None:
                left_out += 1
            elif judgment.id in there:
                known += 1
            else:
                there.add(judgment.id)
                fresh.append(judgment)
    judgments.append(fresh)
    return len(fresh), known, left_out


def _judgments(store: Store, parts: Sequence[Part], found: Sequence[Imported]) -> Iterator[Judgment | None]:
    """The judgments of records of one job; None, which is told, for one that is not possible."""
    from strata.judgments import now, sentences_of, stored
    from strata.judgments.exchange import opinion_of
    from strata.snapshots import find_rows, records_of

    rows = find_rows(store, parts, {one.subject for one in found})
    for one in found:
        try:
            if one.subject not in rows:
                raise InvalidInput(f"the job has no described image {one.subject.key[:200]!r} of this version")
            (record,) = records_of(store, [rows[one.subject]])
            opinion = opinion_of(one, sentences_of(record.description))
            yield stored(opinion, one.subject, one.job, now(), record.description)
        except InvalidInput as error:
            print(f"strata: {error}; left out", file=sys.stderr)
            yield None


@app.command()
def mend(job: Job, store: StoreUri = None) -> None:
    """Go on without the judgments of files that are missing or broken. Broken ones are moved to the folder broken/."""
    from strata.judgments import Judgments

    opened = open_store(store)
    fingerprint = _fingerprint(opened, job)
    judgments = Judgments(opened)
    faults = judgments.of_job(fingerprint, job).faults
    if faults:
        judgments.compact(fingerprint, job, accept_loss=True)
    for fault in faults:
        print(fault)
    print(f"{counted(len(judgments.of_job(fingerprint, job).judgments), 'judgment')} left")
