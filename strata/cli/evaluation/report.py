"""`strata report`: one page on the texts of a job or a snapshot."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strata.cli.evaluation.measuring import Asked, evaluated
from strata.cli.evaluation.options import Images, Resamples, Seed, Source, TruthFiles, check_writable
from strata.cli.terminal import Moved, Show, StoreUri, open_store, steps
from strata.counts import counted
from strata.files import writing

if TYPE_CHECKING:
    from strata.evaluation.report.page import Page
    from strata.store import Store


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
    check_writable(out)
    with steps() as show:
        page = _page(opened, source, Asked(images, tuple(truth or ()), seed, resamples), each, show)
    with writing(out):
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
    run = evaluated(store, source, asked, show, content.add)
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
