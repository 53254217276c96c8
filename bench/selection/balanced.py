"""Select half of the rows, balanced over features; then again with a tenth more rows.

Measured are: the seconds for a snapshot, made twice; the deviation of each stratum from its target by water-filling,
which is computed independently, by bisection; and the overlap of the selections when a tenth of new rows is added, with
the same count or share, and with new strata or those of the first snapshot.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from bench.inputs.synthetic_parts import SyntheticParts
from strata.snapshots import Selection, Snapshot, Snapshots, axes_of, difference, read_rows
from strata.store import Part, Store

AXES = ("objects", "text", "words", "thing")  # all labels in equal shares, which the targets below are computed for
SMALL = 100  # rows: below, one row is more than a hundredth
Figures = dict[str, float]
Ints = np.typing.NDArray[np.int64]


def timed(snapshots: Snapshots, name: str, parts: Sequence[Part], selection: Selection) -> tuple[Snapshot, Figures]:
    """A snapshot, with the wall-clock and CPU seconds that it took."""
    # both clocks, since other load slows the wall clock
    wall, processor = time.perf_counter(), time.process_time()
    made = snapshots.create(name.replace(" ", "-"), parts, selection)
    spent = time.process_time() - processor
    return made, {f"{name}, seconds": time.perf_counter() - wall, f"{name}, CPU seconds": spent}


def whole(snapshots: Snapshots, parts: Sequence[Part], selection: Selection) -> tuple[Snapshot, Figures]:
    """Make the snapshot twice. Raises RuntimeError if they differ."""
    first, figures = timed(snapshots, "balanced snapshot", parts, selection)
    second, more = timed(snapshots, "the same again", parts, selection)
    if first.id != second.id:
        raise RuntimeError("two snapshots of the same rows differ")
    counts = first.manifest.counts
    figures |= {"rows that succeeded": counts.succeeded, "rows selected": counts.selected}
    return first, figures | more


def water_filled(supply: Ints, wanted: float) -> np.typing.NDArray[np.float64]:
    """Equal shares of `wanted`, limited by what each has; the rest goes to the others. Computed by bisection."""
    low, high = 0.0, float(supply.max(initial=0))
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if np.minimum(supply, middle).sum() < wanted else (low, middle)
    return np.minimum(supply, high)


def deviations(
    codes: Sequence[Ints], taken: np.typing.NDArray[np.bool_], wanted: float, rows: Ints
) -> Iterator[tuple[float, float]]:
    """For each stratum, axis by axis: its target by water-filling, and its selected rows."""
    if not codes or not wanted:
        return
    # the rows of each label on the first axis
    own = codes[0][rows]
    supply = np.bincount(own)
    got = np.bincount(own[taken[rows]], minlength=len(supply))
    # then the same within each label, on the next axes
    for label, target in enumerate(water_filled(supply, wanted)):
        yield float(target), float(got[label])
        yield from deviations(codes[1:], taken, float(target), rows[own == label])


def balance(store: Store, snapshot: Snapshot) -> Figures:
    """The deviations of a snapshot's strata from their targets."""
    selection = snapshot.manifest.selection
    table = read_rows(store, snapshot.parts, selection.features).table
    # which rows were selected, and the label of each row on each axis
    taken = np.isin(_places(table), _places(snapshot.rows()))
    codes = [axis.codes(table.column(axis.feature)) for axis in selection.axes]
    pairs = list(deviations(codes, taken, snapshot.manifest.counts.selected, np.arange(table.num_rows)))
    first = {f"share of objects {label}, %": 100 * after / taken.sum() for label, after in _after(snapshot, "objects")}
    return first | {
        "strata": sum(target > 0 for target, _ in pairs),
        f"farthest from its target of {SMALL} rows or more, %": max(
            100 * abs(got - target) / target for target, got in pairs if target >= SMALL
        ),
        "farthest from its target, rows": max(abs(got - target) for target, got in pairs),
    }


def _places(rows: pa.Table) -> Ints:
    """A unique number for each row, from its part and its index in the part."""
    return np.asarray(rows.column("part").to_numpy().astype(np.int64) << 32 | rows.column("row").to_numpy())


def _after(snapshot: Snapshot, feature: str) -> list[tuple[str, int]]:
    return [(label, after) for label, (_, after) in snapshot.manifest.composition[feature].items()]


def moved(name: str, old: Snapshot, new: Snapshot, added: Sequence[Part]) -> Figures:
    """The overlap of the new selection with the old one."""
    fresh = {part.identity for part in added}
    of_new = np.array([Part.parse(path).identity in fresh for path in new.parts])
    chosen = int(of_new[new.rows().column("part").to_numpy()].sum())
    gone = difference(old, new).rows.removed
    return {
        f"{name}: new rows chosen": chosen,
        f"{name}: old rows dropped": gone,
        f"{name}: old rows dropped, %": 100 * gone / old.manifest.counts.selected,
    }


def additions(snapshots: Snapshots, old: Snapshot, parts: Sequence[Part], added: Sequence[Part]) -> Figures:
    """Select with a tenth more rows: same count or share, same or new strata, and at random."""
    figures: Figures = {}
    every = [*parts, *added]
    # the same share of more rows is a larger count
    share = old.manifest.counts.selected / old.manifest.counts.passed
    kept = old.manifest.selection
    # a stored selection has fixed boundaries of strata; new axes have none
    anew = kept.model_copy(update={"axes": axes_of(AXES, [])})
    plain = Selection(count=kept.count, seed=kept.seed)
    random = snapshots.create("random", parts, plain)
    for name, before, selection in (
        ("strata kept", old, kept),
        ("strata anew", old, anew),
        ("random", random, plain),
    ):
        of_share = selection.model_copy(update={"count": None, "share": share})
        for amount, asked in (("same count", selection), ("same share", of_share)):
            after = snapshots.create(f"{name} {amount}".replace(" ", "-"), every, asked)
            figures |= moved(f"a tenth more, {name}, {amount}", before, after, added)
    return figures


def measure(store: Store, rows: int, taken: int) -> Figures:
    """Write parts, which is not counted, and measure all figures."""
    synthetic, snapshots = SyntheticParts(store, 1), Snapshots(store)
    began = time.perf_counter()
    parts, added = synthetic.write("old", rows), synthetic.write("new", rows // 10)
    size = sum(store.find("parts").values()) / 2**20
    print(f"{len(parts)} parts, {size:,.0f} MiB, written in {time.perf_counter() - began:.0f} s", flush=True)
    # the memory peak is that of the first selection
    old, figures = whole(snapshots, parts, Selection(method="balanced", count=taken, axes=axes_of(AXES, [])))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figures |= {"peak memory, MiB": peak} | balance(store, old)
    return figures | additions(snapshots, old, parts, added)
