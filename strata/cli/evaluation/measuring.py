"""How the rows of a job or a snapshot are chosen and measured: against truth, references, matchers and a judge."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from strata.cli.terminal import Show
from strata.components import load
from strata.counts import counted
from strata.errors import InvalidInput

if TYPE_CHECKING:
    from strata.core import Profile, Record
    from strata.evaluation.evaluation import Evaluation, Tally
    from strata.evaluation.references import References
    from strata.evaluation.rows import Rows
    from strata.evaluation.truth import TruthSet
    from strata.store import Store


class Comparing(NamedTuple):
    """References and the parser that reads them: the file, what it has, and what makes a scene graph of a text."""

    path: Path
    rows: References
    parse: Callable[[str], Any]


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


class Run(NamedTuple):
    """An evaluation with what it was made from. records: the chosen ones, by the evaluation's keys."""

    evaluation: Evaluation
    tally: Tally
    rows: Rows
    records: dict[str, Record]
    truths: list[TruthSet]


def evaluated(
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
