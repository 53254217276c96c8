"""`strata evaluate` and `strata report`: how good the texts of a job or a snapshot are. No service need run."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from strata.cli.terminal import AsJson, Moved, Show, StoreUri, open_store, output, steps
from strata.components import load
from strata.counts import counted
from strata.errors import InvalidInput, QualityDropped

if TYPE_CHECKING:
    from strata.core import Profile, Record
    from strata.evaluation.evaluation import Evaluation, Tally
    from strata.evaluation.references import References as ReferenceRows
    from strata.evaluation.report.page import Page
    from strata.evaluation.rows import Rows
    from strata.evaluation.truth import TruthSet
    from strata.evaluation.truth_rates import TruthRates
    from strata.store import Store

Source = Annotated[str, typer.Argument(metavar="JOB|SNAPSHOT", help="A job, a snapshot, a profile or a fingerprint.")]
TruthFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--truth",
        metavar="FILE",
        exists=True,
        dir_okay=False,
        help="Annotations of COCO or Visual Genome; may be repeated.",
    ),
]
References = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", exists=True, dir_okay=False, help="Texts that people wrote: COCO's captions, or JSON lines."
    ),
]
Graphs = Annotated[
    Path | None,
    typer.Option(metavar="DIR", exists=True, help="Weights of FactualSceneGraph; none: the verifier's rules."),
]
Asking = Annotated[
    str | None,
    typer.Option("--profile", metavar="NAME|FILE", help="A profile whose matchers are asked."),
]
ModelImages = Annotated[int, typer.Option("--model-images", min=2, help="Most images that matchers are asked about.")]
JudgeProfile = Annotated[
    str | None,
    typer.Option("--judge", metavar="NAME|FILE", help="A profile whose captioner, on a chat server, rates texts."),
]
Tokens = Annotated[int | None, typer.Option("--budget-tokens", min=1, help="Most tokens that the judge may cost.")]
Money = Annotated[float | None, typer.Option("--budget-money", min=0.0, help="Most money that the judge may cost.")]
Images = Annotated[int, typer.Option("--images", min=1, help="Most images that are measured.")]
Seed = Annotated[int, typer.Option(help="Seed of the choice of images and of the resamples.")]
Resamples = Annotated[int, typer.Option(min=100, max=100_000, help="Resamples of the bootstrap.")]
Against = Annotated[
    str | None, typer.Option(metavar="BASE", help="A saved evaluation, a job or a snapshot to compare with.")
]
Judged = Annotated[bool, typer.Option("--judgments", help="Also what people said in review.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="Save the evaluation as JSON.")]


def evaluate(
    source: Source,
    truth: TruthFiles = None,
    references: References = None,
    graphs: Graphs = None,
    profile: Asking = None,
    judge: JudgeProfile = None,
    budget_tokens: Tokens = None,
    budget_money: Money = None,
    model_images: ModelImages = 100,
    images: Images = 5000,
    against: Against = None,
    out: Out = None,
    seed: Seed = 0,
    resamples: Resamples = 1000,
    judgments: Judged = False,
    as_json: AsJson = False,
    root: Moved = None,
    store: StoreUri = None,
) -> None:
    """Measure the texts of a job or a snapshot: every layer, every variant, and what they are compared with.

    --truth names files of what is in the images; scenes of `strata samples` bring theirs with them. With --against,
    exit code 16 if a figure dropped beyond noise.
    """
    opened = open_store(store, root)
    asked = Asked(images, tuple(truth or ()), seed, resamples, _compared_by(references, graphs), model_images)
    base = _saved(opened, source, against)
    _writable(out)
    asked = asked._replace(profile=_asked_profile(profile), judge=_judge_of(judge, budget_tokens, budget_money))
    with steps() as show:
        found = _evaluated(opened, source, asked, show, base=base).evaluation
        if against is not None and base is None:
            # nobody pays twice to judge what is only compared
            base = _evaluated(opened, against, asked._replace(judge=None), show).evaluation
    if out is not None:
        _save(found, out)
    _print(found, as_json, _truth_rates(opened, source) if judgments else None)
    if base is not None:
        _tell_changes(found, base, str(against), as_json)


def _truth_rates(store: Store, source: str) -> TruthRates:
    from strata.evaluation.truth_rates import truth_rates

    return truth_rates(store, source)


def _print(found: Evaluation, as_json: bool, judged: TruthRates | None) -> None:
    from strata.cli.rendering.evaluations import evaluation_tables

    if as_json:
        also = {"judgments": judged.model_dump()} if judged else {}
        print(json.dumps(found.model_dump(mode="json") | also) if also else found.model_dump_json())
        return
    output().print(evaluation_tables(found))
    if judged:
        from strata.cli.rendering.records import clean
        from strata.evaluation.truth_rates import told

        print("\n".join(map(clean, ["", "what people said:", *told(judged)])))


def _tell_changes(found: Evaluation, base: Evaluation, name: str, as_json: bool) -> None:
    """Tell what changed since the base of a name, on stderr beside JSON. Raises QualityDropped."""
    from rich.console import Console

    from strata.cli.rendering.evaluations import comparison_table
    from strata.evaluation.comparison import compared

    comparison = compared(found, base, name)
    console = Console(stderr=True, width=200) if as_json else output()
    console.print(comparison_table(comparison))
    if not comparison.passed:
        names = [f"{one.text} {one.figure}" for one in comparison.dropped]
        names += [f"{text} (missing)" for text in comparison.missing]
        raise QualityDropped(f"worse than {comparison.base}: {', '.join(names)}")


def _saved(store: Store, source: str, against: str | None) -> Evaluation | None:
    """The evaluation in a file that `--against` names; None for a job or a snapshot, which is evaluated later.

    Whatever cannot be evaluated or compared with is refused now, before the work. Raises InvalidInput, UnknownSource
    and OSError.
    """
    from strata.evaluation.evaluation import read_evaluation
    from strata.evaluation.rows import check_source
    from strata.store import UnknownSource

    check_source(store, source)
    if against is None:
        return None
    path = Path(against)
    if path.is_file():
        return read_evaluation(path)
    try:
        check_source(store, against)
    except UnknownSource:
        if path.is_dir():
            raise InvalidInput(f"--against {against}: a folder") from None
        raise UnknownSource(against, "there is no such file, job, snapshot, profile or fingerprint") from None
    return None


def _writable(out: Path | None) -> None:
    """Refuse a path that cannot be written before anything is measured."""
    if out is not None and (out.is_dir() or not out.absolute().parent.is_dir()):
        raise InvalidInput(f"--out {out}: {'a folder' if out.is_dir() else 'its folder does not exist'}")


class Asked(NamedTuple):
    """What is measured. images: at most; truth: files of annotations; profile: whose matchers are asked, if any.

    references: what texts are compared with, if it is wanted; judge: rates texts within its budget; model_images: at
    most, that matchers and judge are asked about.
    """

    images: int
    truth: tuple[Path, ...]
    seed: int
    resamples: int
    references: Comparing | None = None
    model_images: int = 0
    profile: Profile | None = None
    judge: Any = None


class Comparing(NamedTuple):
    """References and the parser that reads them: the file, what it has, and what makes a scene graph of a text."""

    path: Path
    rows: ReferenceRows
    parse: Callable[[str], Any]


def _compared_by(references: Path | None, graphs: Path | None) -> Comparing | None:
    """What texts are compared with. Raises InvalidInput for a parser without references, and for a bad file."""
    if references is None:
        if graphs is not None:
            raise InvalidInput("--graphs says how --references are read: add --references")
        return None
    from strata.evaluation.references import read_references

    rows = read_references(references)
    return Comparing(references, rows, load("models.evaluation.graphs", "workers").parser_of(graphs))


def _judge_of(name: str | None, tokens: int | None, money: float | None) -> Any:
    """The judge of a profile; None if none is asked for. Raises InvalidInput for one without a budget."""
    if name is None:
        return None
    if tokens is None and money is None:
        raise InvalidInput("a judge costs money: give --budget-tokens or --budget-money")
    from strata.cli.profiles import file_of
    from strata.core import read_profile

    judging = load("models.evaluation.judging", "workers")
    return judging.judge_of(read_profile(file_of(name)), judging.Budget(tokens, money))


def _save(found: Evaluation, out: Path) -> None:
    out.write_text(found.model_dump_json() + "\n", encoding="utf-8")
    print(f"strata: the evaluation is saved as {out}", file=sys.stderr)


def _asked_profile(name: str | None) -> Profile | None:
    """The profile whose matchers are asked. Raises InvalidInput for one without a matcher."""
    if name is None:
        return None
    from strata.cli.profiles import file_of
    from strata.core import read_profile

    found = read_profile(file_of(name))
    if "matcher" not in found.stages:
        raise InvalidInput(f"profile {found.name} has no matcher that could be asked")
    return found


class Run(NamedTuple):
    """An evaluation with what it was made from. records: the chosen ones, by the evaluation's keys."""

    evaluation: Evaluation
    tally: Tally
    rows: Rows
    records: dict[str, Record]
    truths: list[TruthSet]


def _evaluated(
    store: Store,
    source: str,
    asked: Asked,
    show: Show,
    each: Callable[[Record], object] = lambda record: None,
    base: Evaluation | None = None,
) -> Run:
    """Choose rows, find their truth, and measure them.

    each: is called with every record that is measured. base: what the evaluation will be compared with.
    """
    from strata.evaluation.evaluation import Tally, finished
    from strata.evaluation.references import references_of
    from strata.store import provenance_of

    support = load("models.evidence.support", "workers").support
    rows, chosen = _chosen(store, source, asked, show, base)
    known = references_of(asked.references.path, asked.references.rows, chosen) if asked.references else {}
    truths = _truths(store, chosen, asked.truth, show)
    tally = Tally()
    for record in chosen:
        tally.add(record, support, truths)
        each(record)
        show(f"{source}: measuring texts", len(tally.rows), rows.count)
    records = dict(zip(tally.keys, chosen, strict=True))
    if asked.references is not None:
        _add_references(records, known, asked.references.parse, tally, show)
    if asked.profile is not None:
        _add_matchers(store, records, asked.profile, asked.model_images, tally, show)
    spent = _add_ratings(store, records, asked.judge, asked.model_images, tally, show) if asked.judge else {}
    show(f"{source}: resampling", 0, None)
    profiles = {provenance_of(store, one).profile for one in rows.fingerprints} - {None}
    about = {"kind": rows.kind, "fingerprints": list(rows.fingerprints), "statuses": dict(rows.statuses)}
    profile = profiles.pop() if len(profiles) == 1 else None
    found = finished(tally, asked.seed, asked.resamples, source=source, profile=profile, **about)
    return Run(found.model_copy(update={"spent": spent}), tally, rows, records, truths)


def _chosen(store: Store, source: str, asked: Asked, show: Show, base: Evaluation | None) -> tuple[Rows, list[Record]]:
    """The rows that are evaluated, and their records. What cannot be compared with the base is refused."""
    from strata.evaluation.comparison import check_common
    from strata.evaluation.rows import choose_rows, read_rows

    choosing = f"{source}: choosing images"
    rows = choose_rows(store, source, asked.images, asked.seed, lambda done, total: show(choosing, done, total))
    if not rows.count:
        raise InvalidInput(f"{source}: none of its {counted(sum(rows.statuses.values()), 'image')} was described")
    chosen = [record for part in read_rows(store, rows) for record in part]
    if base is not None:
        check_common((record.key for record in chosen), base.keys, source, base.source)
    return rows, chosen


def _truths(store: Store, records: Sequence[Record], files: Sequence[Path], show: Show) -> list[TruthSet]:
    """The truths of records: of drawn scenes, from their shards, and from files of annotations."""
    from strata.evaluation.annotations import annotated_truths
    from strata.evaluation.shard_truth import scene_truths
    from strata.evaluation.truth import TruthSet
    from strata.shards import ImageReader

    scenes = scene_truths(ImageReader(store), records, lambda done, total: show("looking for scenes", done, total))
    found = [TruthSet(scenes, load("samples.truth", "all").vocabulary(), "scenes")] if scenes else []
    for path in files:
        found.append(annotated_truths(path, records, functools.partial(show, f"reading {path}")))
    return found


def _add_references(
    records: Mapping[str, Record],
    known: Mapping[str, list[str]],
    parse: Callable[[str], Any],
    tally: Tally,
    show: Show,
) -> None:
    """Add the figures of texts against references, which are known by the records' own keys."""
    from strata.evaluation.references import against_references, told_by
    from strata.evaluation.texts import texts_of

    alike = load("models.evaluation.graphs", "workers").alike
    wanted = told_by(known, parse)
    for number, (key, record) in enumerate(records.items(), 1):
        if record.key in wanted:
            texts = [one for one in texts_of(record) if one.text and not one.listed]
            found = {one.name: against_references(parse(one.text), wanted[record.key], alike) for one in texts}
            tally.add_counts(key, found)
        show("comparing with references", number, len(records))


def _add_matchers(
    store: Store, records: Mapping[str, Record], profile: Profile, most: int, tally: Tally, show: Show
) -> None:
    """Add the figures of the profile's matchers, for at most so many images."""
    from strata.core import load_settings
    from strata.evaluation.rows import images_of

    settings = load_settings()
    # libraries as quiet, and with as many threads, as in a worker; they read this when they are imported
    load("workers.engines.groups", "workers").quiet_libraries(settings.threads)
    matching = load("models.evaluation.matching", "workers")
    show("loading the matcher", 0, None)
    most = min(most, len(records))
    images = (matching.Seen(*one) for one in images_of(store, records, most, settings.max_pixels))
    for key, found in matching.matched(profile, images, lambda done: show("asking the matcher", done, most)):
        tally.add_counts(key, found)


def _add_ratings(
    store: Store, records: Mapping[str, Record], judge: Any, most: int, tally: Tally, show: Show
) -> dict[str, float]:
    """Add the judge's ratings, as far as its budget goes; returns what it cost. Raises ServiceUnavailable."""
    from strata.core import load_settings
    from strata.errors import ServiceUnavailable
    from strata.evaluation.rows import images_of

    judging, base = load("models.evaluation.judging", "workers"), load("models.base", "workers")
    most = min(most, len(records))
    images = images_of(store, records, most, load_settings().max_pixels)
    seen = (judging.Seen(*one) for one in images)
    try:
        for key, found in judging.judged(judge, seen, lambda done: show("asking the judge", done, most)):
            tally.add_counts(key, found)
    except (base.StageUnavailable, base.StageUnfit) as error:
        raise ServiceUnavailable(f"the judge's server: {error}") from error
    spent = judge.spent
    tokens = spent.prompt_tokens + spent.completion_tokens
    return {"tokens": tokens, "requests": spent.requests, "money": judge.price(spent)}


def report(
    source: Source,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The page to write, such as report.html.")],
    truth: TruthFiles = None,
    images: Images = 2000,
    each: Annotated[int, typer.Option("--records", min=0, max=200, help="Worst, best and random records, each.")] = 8,
    seed: Seed = 0,
    resamples: Resamples = 1000,
    root: Moved = None,
    store: StoreUri = None,
) -> None:
    """Write one HTML page on a job or a snapshot: figures, plots, reasons, records with pictures, provenance.

    The page loads nothing and has no scripts: it opens offline, and can be sent on.
    """
    opened = open_store(store, root)
    _writable(out)
    with steps() as show:
        page = _page(opened, source, Asked(images, tuple(truth or ()), seed, resamples), each, show)
    out.write_text(page.html(), encoding="utf-8")
    print(f"{out}: {counted(len(page.records), 'record')} of {counted(page.evaluation.images, 'measured image')}")


def _page(store: Store, source: str, asked: Asked, each: int, show: Show) -> Page:
    """Measure, choose the records that are shown, and read their images."""
    from strata.core import load_settings
    from strata.evaluation.report.content import Content
    from strata.evaluation.report.page import Page
    from strata.evaluation.report.pictures import pictures
    from strata.evaluation.rows import rejections
    from strata.shards import ImageReader
    from strata.store import provenance_of

    content = Content()
    run = _evaluated(store, source, asked, show, content.add)
    content.choose(run.tally, each, asked.seed)
    shown = {key for group in content.groups.values() for key, _ in group}
    chosen = {key: record for key, record in run.records.items() if key in shown}
    found = pictures(ImageReader(store), chosen, load_settings().max_pixels, functools.partial(show, "reading images"))
    truths = {
        key: one.truths[record.key].scaled(record.width, record.height)
        for key, record in chosen.items()
        for one in run.truths
        if record.key in one.truths
    }
    provenance = [provenance_of(store, fingerprint) for fingerprint in run.rows.fingerprints]
    return Page(run.evaluation, content, chosen, found, truths, rejections(store, run.rows), provenance)
