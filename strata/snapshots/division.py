"""Dividing the rows of a snapshot for training and validation, so that no picture is in both."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Literal

import numpy as np
import pyarrow as pa

from strata.snapshots.composition import composition_of
from strata.snapshots.creation import PartPictures, with_whole
from strata.snapshots.duplicates import PictureHashes, same_pictures
from strata.snapshots.features import read_rows
from strata.snapshots.manifests import Manifest, manifest_of
from strata.snapshots.places import places_of
from strata.snapshots.reviewing.texts import digest_of
from strata.snapshots.selection import DEFAULT_AXES, SelectionError, Split
from strata.snapshots.snapshot import Snapshot
from strata.store import Part, Store

PARTS: tuple[Literal["train", "validation"], ...] = ("train", "validation")


def divided(
    store: Store, snapshot: Snapshot, how: tuple[float, int, Literal["bytes", "near"]], pictures: PartPictures
) -> Iterator[tuple[Manifest, pa.Table, pa.Table]]:
    """The manifest, the rows and the reviewed texts of each of PARTS. how: validation, seed, same.

    The arguments and the errors are those of `Snapshots.split`.
    """
    validation, seed, same = how
    rows = snapshot.rows()
    held_out = _held_out(pictures(snapshot.parts, rows), same == "near", validation, seed)
    if not 0 < held_out.sum() < len(held_out):
        raise SelectionError(f"of {len(held_out):,} rows one part would have none; choose another --validation")
    # the features of all rows, for the composition of the parts; columns of own scores are not at hand
    axes = {axis.feature: axis for axis in (*DEFAULT_AXES, *snapshot.manifest.selection.axes) if axis.own is None}
    manifest, found = snapshot.manifest, list(map(Part.parse, snapshot.parts))
    table = read_rows(store, snapshot.parts, axes, ways=manifest.selection.ways, whole=True).table
    table = _chosen(with_whole(store, manifest.sources, found, table, manifest.selection).table, rows)
    for part, places in zip(PARTS, (~held_out, held_out), strict=True):
        setting = Split(of=snapshot.id, part=part, validation=validation, seed=seed, same=same)
        indices = np.flatnonzero(places)
        selected = rows.take(pa.array(indices))
        texts = snapshot.reviewed().join(selected, ["part", "row"], join_type="left semi")
        texts = texts.sort_by([("part", "ascending"), ("row", "ascending")])
        made = manifest_of(
            snapshot.parts,
            selected,
            manifest.selection.model_copy(update={"split": setting, "reviewed": digest_of(texts)}),
            counts=manifest.counts.model_copy(update={"selected": len(indices)}),
            composition=composition_of(table, indices, axes.values()),
            origin=(manifest.sources, snapshot.provenance, manifest.tenant),
        )
        yield made, selected, texts


def _held_out(hashes: PictureHashes, near: bool, validation: float, seed: int) -> np.typing.NDArray[np.bool_]:
    """Which rows are for validation, by the smallest hash of the seed and the bytes of each row's picture."""
    groups = same_pictures(hashes, "near" if near else "bytes")
    digests = (hashlib.blake2b(f"{seed}/{one}".encode(), digest_size=8).digest() for one in hashes.sha256)
    drawn = np.frombuffer(b"".join(digests), np.dtype("<u8"))
    smallest = np.full(len(drawn), np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(smallest, groups, drawn)
    return np.asarray(smallest[groups] / 2.0**64 < validation)


def _chosen(table: pa.Table, rows: pa.Table) -> pa.Table:
    """The rows of a table of features that a snapshot has, in order."""
    return table.take(pa.array(np.searchsorted(places_of(table), places_of(rows))))
