"""An export with its papers: the card, the metadata, and the checksums of all files."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

from strata.counts import counted
from strata.data import Request
from strata.data import export as export_data
from strata.data.exports import ExportSamples
from strata.publishing.checksums import CARD, SUMS, files_of, sums_of, sums_text
from strata.publishing.papers.about import About
from strata.publishing.papers.cards import PLOT, card_of
from strata.publishing.papers.croissant import METADATA, metadata_of
from strata.publishing.papers.facts import Facts, exported, facts_of
from strata.snapshots import Snapshot, plot_composition
from strata.store import Store

NOTHING_KNOWN = About()


def export(
    store: Store,
    snapshot: Snapshot,
    request: Request,
    out: Path,
    about: About = NOTHING_KNOWN,
    advance: Callable[[], object] = lambda: None,
) -> ExportSamples:
    """Write a snapshot to a new folder as `strata.data.export` does, and with it README.md, croissant.json, SHA256SUMS.

    about: what its owner says of it. A plot of the composition is added if matplotlib is installed. Raises what
    `strata.data.export` raises, and LostRows.
    """

    def papers(folder: Path, samples: ExportSamples) -> None:
        write_papers(folder, facts_of(store, snapshot, about, exported(request, samples, folder)))

    return export_data(store, snapshot, request, out, advance, papers)


def write_papers(folder: Path, facts: Facts) -> None:
    """Write the papers of an export into its folder. Raises OSError."""
    if plotted := importlib.util.find_spec("matplotlib") is not None:
        selected = f"{facts.title}: {counted(facts.count, 'row')}"
        plot_composition(facts.snapshot.manifest.composition, selected, folder / PLOT)
    (folder / CARD).write_text(card_of(facts, plotted), encoding="utf-8")
    sums = sums_of(folder, files_of(folder))
    metadata = metadata_of(facts, folder, sums)
    (folder / METADATA).write_text(json.dumps(metadata, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    sums |= sums_of(folder, [METADATA])
    (folder / SUMS).write_text(sums_text(sums), encoding="utf-8")
