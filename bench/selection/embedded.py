"""Select half of the rows by their embeddings: time, memory, what is covered, and what a tenth more rows changes.

Every selection is measured with the same clusters, those of the first one:

- covered: the mean over all rows of the highest cosine to a selected row of their cluster (the objective of facility
  location, over the rows);
- copies: the share of the selected rows with another selected row of their cluster at a cosine of NEAR or more;
- worth: the mean of what the selected rows are worth (evidence × match × told / (told + 3));
- even: as how many equally large clusters the selected rows are spread.
"""

from __future__ import annotations

import itertools
import resource
import time
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from bench.inputs.synthetic_parts import SyntheticParts
from bench.inputs.synthetic_vectors import SyntheticVectors
from bench.selection.balanced import Figures, moved, timed
from bench.selection.by_hand import best_of_clusters, facility_location
from strata.snapshots import Selection, Snapshot, Snapshots, axes_of, evenness_of, read_rows
from strata.snapshots.selection.clusters import nearest
from strata.snapshots.selection.embeddings import kept_clusters, read_vectors
from strata.snapshots.selection.order import scores_of
from strata.store import Part, Store

NEAR = 0.9
BY_CLUSTER = axes_of(["cluster"], [])
SELECTIONS = {
    "random": Selection(),
    "best": Selection(method="best"),
    "concepts": Selection(method="concepts"),
    "by cluster": Selection(method="balanced", axes=BY_CLUSTER),
    "diverse": Selection(method="diverse"),
}
Ints = np.typing.NDArray[np.int64]
Floats = np.typing.NDArray[np.float64]
Vectors = np.typing.NDArray[np.float32]


def covered(vectors: Vectors, labels: Ints, worth: Floats, chosen: Ints) -> Figures:
    """What a selection (indices of rows) has of all rows."""
    taken = np.zeros(len(labels), bool)
    taken[chosen] = True
    highest, copies = 0.0, 0
    order = np.argsort(labels, kind="stable")
    bounds = np.searchsorted(labels[order], np.arange(labels.max() + 2))
    for first, last in itertools.pairwise(bounds.tolist()):
        rows = order[first:last]
        here = rows[taken[rows]]
        if len(here):
            cosines = vectors[rows] @ vectors[here].T
            highest += float(cosines.max(axis=1).sum())
            copies += int(((cosines[taken[rows]] >= NEAR).sum(axis=1) > 1).sum())
    counts = np.bincount(labels[taken], minlength=labels.max() + 1)
    return {
        "covered": highest / len(labels),
        "copies, %": 100 * copies / len(chosen),
        "worth": float(worth[chosen].mean()),
        "even": evenness_of({str(place): (1, int(count)) for place, count in enumerate(counts)})[1],
    }


def stability(
    snapshots: Snapshots, selection: Selection, old: Snapshot, parts: Sequence[Part], added: Sequence[Part]
) -> Figures:
    """Old rows that the same share of a tenth more rows drops: with the clusters of before, and with new ones."""
    kept = old.manifest.selection
    share = old.manifest.counts.selected / old.manifest.counts.passed
    of_share = kept.model_copy(update={"count": None, "share": share})
    anew = of_share.model_copy(update={"centroids": None, "axes": selection.axes})
    figures: Figures = {}
    for name, asked in (("kept", of_share), ("anew", anew)) if kept.centroids else (("", of_share),):
        after = snapshots.create(f"{old.name}-more-{name or 'rows'}", [*parts, *added], asked)
        dropped = moved("", old, after, added)[": old rows dropped, %"]
        figures[f"same share, a tenth more rows{f', clusters {name}' if name else ''}: dropped, %"] = dropped
    return figures


def by_hand(vectors: Vectors, worth: Floats, taken: int, clusters: int) -> tuple[Ints, Figures]:
    """What a user would write, and its time."""
    wall, processor = time.perf_counter(), time.process_time()
    chosen = best_of_clusters(vectors, worth, taken, clusters)
    spent = {"seconds": time.perf_counter() - wall, "CPU seconds": time.process_time() - processor}
    return chosen, spent


def measure(store: Store, rows: int, taken: int, width: int, greedy: bool) -> Figures:
    """Write parts and embeddings, which is not counted, and measure all figures."""
    synthetic, snapshots = SyntheticParts(store, 1), Snapshots(store)
    began = time.perf_counter()
    parts, added = synthetic.write("old", rows), synthetic.write("new", rows // 10)
    SyntheticVectors(store, 2, width).write([*parts, *added])
    size = sum(store.find("parts").values()) / 2**20
    print(f"{len(parts)} parts, {size:,.0f} MiB, written in {time.perf_counter() - began:.0f} s", flush=True)
    made: dict[str, Snapshot] = {}
    figures: Figures = {}
    for name, selection in SELECTIONS.items():
        asked = selection.model_copy(update={"count": taken})
        made[name], spent = timed(snapshots, name, parts, asked)
        figures |= spent | {f"{name}, peak memory so far, MiB": peak()}
        print(f"{name}: {spent[f'{name}, seconds']:.0f} s", flush=True)
    figures |= compared(store, made, greedy)
    # by hand nothing is read from parts, and no snapshot is written
    figures["diverse, seconds, in those by hand"] = figures["diverse, seconds"] / figures["by hand, seconds"]
    return figures | steady(snapshots, made, parts, added)


def peak() -> float:
    """The highest memory of this process, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def steady(snapshots: Snapshots, made: Mapping[str, Snapshot], parts: Sequence[Part], added: Sequence[Part]) -> Figures:
    """What a tenth more rows changes in each selection."""
    figures: Figures = {}
    for name, old in made.items():
        found = stability(snapshots, SELECTIONS[name], old, parts, added)
        figures |= {f"{name}, {figure}": value for figure, value in found.items()}
        print(f"{name}: measured with a tenth more rows", flush=True)
    return figures


def compared(store: Store, made: Mapping[str, Snapshot], greedy: bool) -> Figures:
    """What each selection has of all rows, and the same for what a user would write."""
    diverse = made["diverse"]
    table = read_rows(store, diverse.parts, diverse.manifest.selection.features, whole=True).table
    vectors = read_vectors(store, diverse.parts, table, diverse.manifest.selection.ways)
    worth = scores_of(table, diverse.manifest.selection)
    centroids, taken = _centroids(store, diverse), diverse.manifest.counts.selected
    labels, whole = nearest(vectors, centroids), vectors.astype(np.float32)
    chosen = {name: _indices(table, snapshot.rows()) for name, snapshot in made.items()}
    chosen["by hand"], spent = by_hand(whole, worth, taken, len(centroids))
    figures = {f"by hand, {name}": value for name, value in spent.items()}
    if greedy:
        began = time.perf_counter()
        quotas = np.bincount(labels[chosen["diverse"]], minlength=len(centroids))
        chosen["facility location"] = facility_location(whole, worth, labels, quotas)
        figures["facility location, seconds"] = time.perf_counter() - began
    for name, rows in chosen.items():
        figures |= {f"{name}, {what}": value for what, value in covered(whole, labels, worth, rows).items()}
    return figures


def _centroids(store: Store, snapshot: Snapshot) -> Vectors:
    digest = snapshot.manifest.selection.centroids
    assert digest is not None
    return np.asarray(kept_clusters(store, digest).centroids, np.float32)


def _indices(table: pa.Table, rows: pa.Table) -> Ints:
    """The indices of a snapshot's rows in the table of all rows."""
    whole, some = (
        one.column("part").to_numpy().astype(np.int64) << 32 | one.column("row").to_numpy() for one in (table, rows)
    )
    return np.asarray(np.searchsorted(whole, some), np.int64)
