"""The known limits of a data set: what its profiles warn of, and what nobody has checked."""

from __future__ import annotations

from collections.abc import Iterator

from strata.counts import counted
from strata.publishing.papers.facts import Facts
from strata.publishing.papers.rules import compares_benchmarks
from strata.snapshots.duplicates.pictures import HASHED


def limits_of(facts: Facts) -> list[str]:
    """One limit a line, plain text."""
    return list(_limits(facts))


def _limits(facts: Facts) -> Iterator[str]:
    layer = facts.export.layer if facts.export else None
    if layer is not None and layer.name == "alt_text":
        yield "The texts came with the images. Strata has not checked them."
    elif layer is not None and layer.name == "reviewed":
        yield "The texts were written by models, and accepted or edited by people."
    else:
        yield "The texts were written by models. No check finds every sentence that is wrong."
    for line in facts.warnings:
        yield f"The profile warns: {line}"
    if facts.truth is not None and not facts.truth.records:
        yield "Nobody reviewed a text, so the share of true ones is unknown."
    if facts.export is not None and facts.export.counts["without_text"]:
        yield f"{counted(facts.export.counts['without_text'], 'selected row')} had no text in this layer."
    if facts.export is not None and facts.export.counts["broken"]:
        yield f"{counted(facts.export.counts['broken'], 'image')} could not be read; _skipped.jsonl lists them."
    selection = facts.snapshot.manifest.selection
    if not selection.unique:
        yield "The selection did not compare pictures, so that copies of one may be in several rows."
    elif selection.same not in HASHED:
        yield "The selection did not look for pictures that look alike: one may be in several rows."
    yield personal(facts)
    if not compares_benchmarks(selection):
        yield "The pictures were not compared with those of benchmarks."


def personal(facts: Facts) -> str:
    """What is known of personal data in it."""
    seen = "Faces, names and numbers that can be seen in pictures or read in texts were not removed by the export."
    if facts.export is None:
        return seen
    if facts.export.request.blur_faces:
        seen = (
            "The faces that a detector has found were blurred. Those that it has not found, and names and numbers that "
            "can be seen in pictures or read in texts, were not removed by the export."
        )
    kept = "were left in" if facts.export.request.keep_metadata else "(EXIF, places) were removed"
    return f"{seen} Metadata of images {kept}."
