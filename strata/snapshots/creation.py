"""Creating a snapshot: the rows that a selection chooses from parts, and the manifest that describes the choice."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NamedTuple

import pyarrow as pa

from strata.core import FINAL_GROUP, Chunk
from strata.snapshots.composition import Composition, composition_of, concept_counts
from strata.snapshots.duplicates import PictureHashes
from strata.snapshots.features import CLUSTER, NOTHING, Rows, read_rows
from strata.snapshots.manifests import ROW_SCHEMA, Counts, Manifest, manifest_of
from strata.snapshots.own_files import OwnFiles
from strata.snapshots.reviewing.texts import digest_of
from strata.snapshots.selection import (
    DEFAULT_AXES,
    Axis,
    Choice,
    Clusters,
    Given,
    Selection,
    SelectionError,
    check_labels,
    check_targets,
    select,
)
from strata.snapshots.selection.caps import Concepts, concepts_of
from strata.snapshots.selection.clusters import Ints, Vectors
from strata.snapshots.selection.embeddings import with_clusters
from strata.snapshots.selection.quotas import quota_counts
from strata.store import FeatureReader, Part, PartsOf, Provenance, Store, UnknownSource, last_attempts, provenance_of

log = logging.getLogger(__name__)

# reads the pictures of some rows (columns part and row) of parts: (parts, rows), and for embeddings `ways=`
PartPictures = Callable[..., PictureHashes]


@dataclass(frozen=True)
class Chosen:
    """The rows that a selection has chosen. paths: of the parts; rows: all that succeeded, with their features.

    clusters: of embeddings, if the selection has found some; concepts: of all rows, if it asks for some.
    """

    paths: list[str]
    rows: Rows
    choice: Choice
    axes: Mapping[str, Axis]
    clusters: Clusters | None = None
    concepts: Concepts | None = None

    @property
    def selected(self) -> pa.Table:
        """The chosen rows, of ROW_SCHEMA."""
        return self.rows.table.select(ROW_SCHEMA.names).take(pa.array(self.choice.indices)).cast(ROW_SCHEMA)

    def manifest(self, store: Store, selected: pa.Table, texts: pa.Table, origin: tuple[list[str], str]) -> Manifest:
        """The manifest of a snapshot of these rows. texts: as people have left them. origin: sources, tenant.

        Raises OSError.
        """
        sources, tenant = origin
        return manifest_of(
            self.paths,
            selected,
            self.choice.selection.model_copy(update={"reviewed": digest_of(texts)}),
            counts=_counts(len(self.paths), self.rows, self.choice),
            composition=_composition(self.rows.table, self.choice, self.axes, self.concepts),
            origin=(sources, _provenance(store, self.paths), tenant),
        )


def choose(
    store: Store,
    parts: Sequence[Part | Chunk | str],
    selection: Selection,
    given: tuple[OwnFiles, PartPictures | None, Sequence[str]],
    advance: Callable[[int], object] = lambda parts: None,
    accept_shortfall: bool = False,
    tell: Callable[[str], object] = log.warning,
) -> Chosen:
    """Select rows of parts of the group `llm`. given: the user's files, what reads pictures, the sources.

    The other arguments and the errors are those of `Snapshots.create`.
    """
    chosen_from = last_attempts(map(_part, parts))
    if not chosen_from:
        raise SelectionError("none of these sources is described yet: there is no part to select rows from")
    own, pictures, sources = given
    selection = _with_files(selection, own)
    # read the features of the selection, and of the default axes, which the composition always shows
    axes = {axis.feature: axis for axis in (*DEFAULT_AXES, *selection.axes)}
    paths, names = [part.path for part in chosen_from], selection.features | (axes.keys() - own.kinds.keys())
    rows = _joined(read_rows(store, paths, names, advance, selection.ways, whole=True), own, tell)
    selection = _with_ways(store, selection, rows.ways, chosen_from, own)
    asked = selection.clusters if selection.centroids is None else None
    table, selection, clusters, embedded = with_whole(store, sources, chosen_from, rows.table, selection)
    if clusters is not None and asked is not None and len(clusters.names) < asked:
        tell(f"there are {len(clusters.names):,} clusters, not {asked:,}: no more rows have an embedding")
    rows = replace(rows, table=table)
    ways = {"ways": selection.ways} if selection.same == "embedding" else {}
    reads = functools.partial(pictures, paths, **ways) if pictures else None
    if selection.method != "diverse":
        embedded = None  # gigabytes, which nothing reads from here on
    concepts = concepts_of(rows.table, selection.concepts) if selection.names_concepts else None
    fingerprints = [part.fingerprint for part in chosen_from]
    beside = Given(fingerprints, own.excluded, reads, own.benchmarks, embedded, concepts)
    choice = _choice(rows.table, chosen_from, selection, beside, accept_shortfall)
    axes |= {} if clusters is None else {CLUSTER: Axis(feature=CLUSTER).with_clusters(clusters.names)}
    return Chosen(paths, rows, choice, {**axes, **choice.axes}, clusters, concepts)


class Whole(NamedTuple):
    """Rows with the features that need all rows, and the selection with its clusters.

    clusters: of embeddings, with the vector and the cluster of each row; None if the selection asks for none.
    """

    table: pa.Table
    selection: Selection
    clusters: Clusters | None = None
    embedded: tuple[Vectors, Ints] | None = None


def with_whole(
    store: Store, sources: Sequence[str], parts: Sequence[Part], table: pa.Table, selection: Selection
) -> Whole:
    """Rows with those of their features that need more than a row: their sources, and clusters of all embeddings.

    Raises what `with_clusters` raises, and OSError.
    """
    if "source" in table.column_names:
        names = pa.array(_sources_of(store, sources, parts), pa.string())
        column = names.take(table.column("part").combine_chunks())
        table = table.set_column(table.schema.get_field_index("source"), "source", column)
    if CLUSTER not in table.column_names:
        return Whole(table, selection)
    return Whole(*with_clusters(store, [part.path for part in parts], table, selection))


def _sources_of(store: Store, sources: Sequence[str], parts: Sequence[Part]) -> list[str]:
    """The first of some jobs and data sets that has each part, NOTHING for a part that none has. Raises OSError."""
    first: dict[tuple[object, ...], str] = {}
    for source in sources:
        # a job may be gone when its rows are looked at again; a source may have another attempt at the same chunk
        with suppress(UnknownSource):
            for part in PartsOf(store).sources([source], single_images=True):
                first.setdefault(part[:-1], source)
    return [first.get(part[:-1], NOTHING) for part in parts]


def _with_files(selection: Selection, own: OwnFiles) -> Selection:
    """The selection with what it gets from the user's files. Raises SelectionError if one that it needs is absent."""
    given = dict(own.sha256s)
    needed = {option for option, _ in selection.files} - set(given)
    if selection.split is not None:
        raise SelectionError("a part of a split snapshot cannot be repeated; split another snapshot")
    if needed:
        raise SelectionError(f"the selection needs a file: give --{' and --'.join(sorted(needed))}")
    return selection.model_copy(update={"own": own.kinds, "files": own.sha256s})


def _with_ways(
    store: Store, selection: Selection, read: Mapping[str, str], parts: Sequence[Part], own: OwnFiles
) -> Selection:
    """The selection with how the features were computed that it reads. Raises SelectionError for other embeddings."""
    ways = {**selection.ways, **read}
    if selection.embedded:
        ways["embedding"] = FeatureReader(store, ways).way(parts, "embedding")
        if selection.same == "embedding" and own.benchmarks is not None and own.benchmarks.way != ways["embedding"]:
            raise SelectionError("the embeddings in the file of --without are not those of the rows' profile")
    return selection.model_copy(update={"ways": ways})


def _joined(rows: Rows, own: OwnFiles, tell: Callable[[str], object]) -> Rows:
    """The rows with the columns of the user's files, whose gaps are told."""
    table = own.join(rows.table)
    for line in own.gaps(table):
        tell(line)
    return replace(rows, table=table)


def _provenance(store: Store, paths: Sequence[str]) -> list[Provenance]:
    fingerprints = sorted({Part.parse(path).fingerprint for path in paths})
    return [provenance_of(store, fingerprint) for fingerprint in fingerprints]


def _choice(table: pa.Table, parts: Sequence[Part], selection: Selection, given: Given, accept: bool) -> Choice:
    """Select rows; an empty snapshot is refused, and, unless they are accepted, targets that cannot be met."""
    if not accept:
        check_labels(table, selection)
    choice = select(table, [part.identity for part in parts], selection, given)
    if not len(choice.indices):
        raise SelectionError(f"no row to select: {table.num_rows} succeeded, of which {choice.passed} pass")
    if not accept:
        check_targets(table, choice)
    return choice


def _composition(table: pa.Table, choice: Choice, axes: Mapping[str, Axis], concepts: Concepts | None) -> Composition:
    selection, counted = choice.selection, composition_of(table, choice.indices, axes.values())
    if selection.quotas:
        counted["quotas"] = quota_counts(table, selection.quotas, choice.indices)
    if concepts is not None:
        name = "concepts" if len(selection.concepts) > 1 else selection.concepts[0]
        named = concept_counts(concepts, table.num_rows, choice.indices)
        counted |= {name: named} if named else {}  # no tagger, no tags
    return counted


def _part(form: Part | Chunk | str) -> Part:
    """The part of any form, which must be of the group `llm`. Raises ValueError."""
    part = Part.of_chunk(form) if isinstance(form, Chunk) else Part.parse(form) if isinstance(form, str) else form
    if part.group != FINAL_GROUP:
        raise ValueError(f"{part.path} is no part of {FINAL_GROUP}, the only group with descriptions")
    return part


def _counts(parts: int, rows: Rows, choice: Choice) -> Counts:
    ended = {name: rows.statuses[name] for name in ("succeeded", "filtered", "failed")}
    numbers = {"passed": choice.passed, "selected": len(choice.indices)}
    return Counts(parts=parts, **ended, **numbers, left_out=choice.left_out, better=choice.better)
