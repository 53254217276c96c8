"""The rules of a selection, in words."""

from __future__ import annotations

from collections.abc import Iterator

from strata.snapshots import SHORT_ID, Selection
from strata.snapshots.duplicates.pictures import HASHED
from strata.snapshots.features import CLUSTER
from strata.snapshots.selection.settings import BENCHMARKS

_FILES = {
    "scores": "own scores (--scores)",
    "exclude": "keys of rows that were left out (--exclude)",
    "without": "pictures of benchmarks, which were left out (--without)",
}
_METHODS = {
    "random": "Rows were drawn at random",
    "balanced": "Rows were taken so that the labels of some features have equal shares, as far as there are rows",
    "best": "The rows with the best scores were taken",
    "concepts": "Rows were taken so that concepts that many rows name are rarer among them",
    "diverse": "Of each cluster of embeddings the best rows, and those that differ most, were taken first",
}
# what `rules_of` tells in sentences, and what is of no use to a reader
_TOLD = frozenset(
    "method count share seed where unique axes score cap own files same split reviewed alike bits keep leave_out ways "
    "centroids".split()
)
_SCORES = {
    "content": "The score is evidence × match × told / (told + 3): the share of sentences that rest on a layer, the "
    "mean probability of the kept entries, and how many of them the description tells.",
    "evidence": "The score is evidence × match: the share of sentences that rest on a layer, and the mean "
    "probability of the kept entries.",
}
# which pictures are one to `--unique` and `--without` (strata.snapshots.duplicates.pictures)
_SAME = {
    None: "have the same image reference (copies of a picture in two files count as two)",
    "bytes": "have equal bytes",
    "pixels": "have equal pixels",
    "near": "have equal pixels or look alike",
    "mirrored": "have equal pixels, look alike, or are mirror images of such",
    "cropped": "have equal pixels, look alike, are mirror images of such, or lost up to 5 % of their sides",
    "embedding": "have equal pixels, look alike, are mirror images of such, lost up to 5 % of their sides, or have "
    "embeddings near each other",
}
_KEPT = {"first": "first", "largest": "largest in pixels", "best": "best by the score"}


def rules_of(selection: Selection) -> list[str]:
    """What decided which rows are in a snapshot: one sentence or two a line, plain text."""
    return list(_rules(selection))


def _rules(selection: Selection) -> Iterator[str]:
    amount = "all rows that pass" if selection.share is None else f"a share of {selection.share:.4g} of those that pass"
    if selection.count is not None:
        amount = f"{selection.count:,} rows"
    if selection.method == "random" and selection.count is selection.share is None:
        yield "All rows that pass were taken."
    else:
        taken = _METHODS.get(selection.method, f"Rows were taken by the method {selection.method}")
        yield f"{taken}: {amount}, with the seed {selection.seed}."
    if selection.where:
        yield f"Rows that do not fulfil this were left out: {selection.where}"
    for name, rule in selection.leave_out:
        yield f"Rows of the rule {name} were left out, and rows of which it is not known: {rule}"
    yield from _duplicates(selection)
    if selection.cap:
        yield f"Rows were dropped so that each noun of the descriptions keeps about {selection.cap:,}."
    for axis in selection.axes:
        wanted = [f"{label} {share:.4g}" for label, share in axis.targets.items()]
        held = [f"{label} its share among all rows, or less" for label in axis.held]
        asked = f" Wanted: {', '.join([*wanted, *held])}." if wanted or held else ""
        of = f"{len(axis.names or ()):,} clusters" if axis.feature == CLUSTER else f"labels {', '.join(axis.labels)}"
        yield f"Balanced by {axis.feature}, with the {of}.{asked}"
    if selection.score or (selection.unique and selection.keep == "best"):
        yield _SCORES[selection.score or "content"]
    for option, digest in selection.files:
        yield f"A file of the owner was used for {_FILES.get(option, option)}; its SHA-256 is {digest}."
    yield from _others(selection)
    if selection.reviewed:
        yield "The texts that people left in review are part of the snapshot, as they were when it was made."
    if (split := selection.split) is not None:
        yield (
            f"It is the part {split.part} of the snapshot {split.of[:SHORT_ID]}: {split.validation:.4g} of the "
            "pictures are in the part validation, and no picture is in both."
        )


def _others(selection: Selection) -> Iterator[str]:
    """The settings that no sentence tells, if they are not the usual ones: nothing that decides stays untold."""
    for name, about in type(selection).model_fields.items():
        value = getattr(selection, name)
        if name not in _TOLD and value != about.get_default(call_default_factory=True):
            shown = ", ".join(map(str, value)) if isinstance(value, tuple) else value
            yield f"The setting {name}: {shown}"


def compares_benchmarks(selection: Selection) -> bool:
    """Whether the pictures of a file of benchmarks were left out."""
    return BENCHMARKS in dict(selection.files)


def _duplicates(selection: Selection) -> Iterator[str]:
    """Which pictures were taken for one, which of those stays, and whether those of benchmarks were left out."""
    if not selection.unique and not compares_benchmarks(selection):
        return
    measures = []
    if selection.same in HASHED:
        measures.append(f"pictures look alike if their perceptual hashes (PDQ) differ in at most {selection.bits} bits")
    if selection.alike is not None:
        measures.append(f"embeddings are near if their cosine is at least {selection.alike:g}")
    yield f"Pictures were taken for one if they {_SAME[selection.same]}{'; '.join(['', *measures])}."
    if selection.unique:
        yield f"Of pictures that are one only the {_KEPT[selection.keep]} was taken."
    if compares_benchmarks(selection):
        yield "Pictures that are one with a picture of the benchmarks' file were left out."
