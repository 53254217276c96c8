"""The rules of a selection, in words."""

from __future__ import annotations

from collections.abc import Iterator

from strata.snapshots import SHORT_ID, Selection

_METHODS = {
    "random": "Rows were drawn at random",
    "balanced": "Rows were taken so that the labels of some features have equal shares, as far as there are rows",
    "best": "The rows with the best scores were taken",
}
_SCORES = {
    "content": "The score is evidence × match × told / (told + 3): the share of sentences that rest on a layer, the "
    "mean probability of the kept entries, and how many of them the description tells.",
    "evidence": "The score is evidence × match: the share of sentences that rest on a layer, and the mean "
    "probability of the kept entries.",
}
_SAME = {
    "near": "Of pictures that are equal or look alike only the first was taken (perceptual hashes: they find copies "
    "that were scaled or compressed anew, not all that were cropped or mirrored).",
    "bytes": "Of pictures with equal bytes only the first was taken.",
    None: "Of each image reference only the first row was taken. Copies of a picture in two files count as two.",
}


def rules_of(selection: Selection) -> list[str]:
    """What decided which rows are in a snapshot: one sentence or two a line, plain text."""
    return list(_rules(selection))


def _rules(selection: Selection) -> Iterator[str]:
    amount = "all rows that pass" if selection.share is None else f"a share of {selection.share:.4g} of those that pass"
    if selection.count is not None:
        amount = f"{selection.count:,} rows"
    yield f"{_METHODS[selection.method]}: {amount}, with the seed {selection.seed}."
    if selection.where:
        yield f"Rows that do not fulfil this were left out: {selection.where}"
    if selection.unique:
        yield _SAME[selection.same]
    if selection.cap:
        yield f"Rows were dropped so that each noun of the descriptions keeps about {selection.cap:,}."
    for axis in selection.axes:
        wanted = [f"{label} {share:.4g}" for label, share in axis.targets.items()]
        held = [f"{label} its share among all rows, or less" for label in axis.held]
        asked = f" Wanted: {', '.join([*wanted, *held])}." if wanted or held else ""
        yield f"Balanced by {axis.feature}, with the labels {', '.join(axis.labels)}.{asked}"
    if selection.score:
        yield _SCORES[selection.score]
    for option, digest in selection.files:
        yield f"A file of the owner was used for --{option}; its SHA-256 is {digest}."
    if selection.reviewed:
        yield "The texts that people left in review are part of the snapshot, as they were when it was made."
    if (split := selection.split) is not None:
        yield (
            f"It is the part {split.part} of the snapshot {split.of[:SHORT_ID]}: {split.validation:.4g} of the "
            "pictures are in the part validation, and no picture is in both."
        )
