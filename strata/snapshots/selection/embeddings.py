"""The embeddings of rows and their clusters, read from a store and kept in it.

The clusters of a selection are `snapshots/objects/DIGEST.centroids.parquet`, which all snapshots with them share.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa

from strata.errors import DamagedFile
from strata.snapshots.duplicates import FilledRows, vectors_of
from strata.snapshots.features import CLUSTER
from strata.snapshots.places import by_part
from strata.snapshots.selection.clusters import Clusters, Ints, Vectors, find_clusters, nearest
from strata.snapshots.selection.order import row_hashes
from strata.snapshots.selection.settings import Selection, SelectionError
from strata.store import READERS, FeatureReader, Part, Store

SUFFIX = "centroids.parquet"
_VECTOR = "embedding.list.element"


def read_vectors(store: Store, parts: Sequence[str], rows: pa.Table, ways: Mapping[str, str]) -> Vectors:
    """The embeddings of rows (columns part and row, sorted), (rows, width), zeros for a row without one.

    Raises MissingFeatures, InvalidInput for vectors of different lengths, and OSError.
    """
    reader, found = FeatureReader(store, ways), FilledRows(rows.num_rows)
    places = list(by_part(rows))
    starts = np.cumsum([0, *(len(some) for _, some in places)]).tolist()

    def of_part(held: tuple[int, Ints], start: int) -> None:
        number, wanted = held
        column = reader.read(Part.parse(parts[number]), "embedding", [_VECTOR]).column("embedding")
        found.fill(start, vectors_of(column.take(pa.array(wanted))))

    with ThreadPoolExecutor(os.cpu_count() if store.local else READERS) as pool:
        for _ in pool.map(of_part, places, starts):
            pass
    filled = found.rows()
    return np.zeros((rows.num_rows, 0), np.float16) if filled is None else filled.whole


def with_clusters(
    store: Store, parts: Sequence[str], rows: pa.Table, selection: Selection
) -> tuple[pa.Table, Selection, Clusters, tuple[Vectors, Ints]]:
    """Rows with their feature `cluster`, the selection with its clusters, these, and vector and cluster of each row.

    The clusters are those that the selection names, or found. Raises SelectionError if they are not in the store,
    DamagedFile, MissingFeatures and OSError.
    """
    vectors = read_vectors(store, parts, rows, selection.ways)
    if selection.centroids is not None:
        clusters = kept_clusters(store, selection.centroids)
        if clusters.centroids.shape[1] != vectors.shape[1]:
            raise SelectionError("the clusters are those of embeddings of another model")
        places = nearest(vectors, clusters.centroids)
    else:
        hashes = row_hashes(rows, [Part.parse(path).identity for path in parts], selection.seed)
        clusters, places = find_clusters(vectors, hashes, rows.column("thing"), selection.clusters)
    place = rows.schema.get_field_index(CLUSTER)
    rows = rows.set_column(place, CLUSTER, clusters.labels(places))
    return rows, selection.with_clusters(clusters.names, clusters.digest), clusters, (vectors, places)


def keep_clusters(store: Store, clusters: Clusters) -> None:
    """Write clusters to a store. Raises OSError."""
    store.write_table(_path(clusters.digest), clusters.to_table())


def clusters_fault(store: Store, digest: str) -> str | None:
    """Why the kept clusters are not those of a digest; None if they are. Raises OSError."""
    try:
        kept_clusters(store, digest)
    except SelectionError:
        return f"{_path(digest)} is missing"
    except DamagedFile as error:
        return str(error)
    return None


def kept_clusters(store: Store, digest: str) -> Clusters:
    """The clusters of a digest. Raises SelectionError if the store does not have them, DamagedFile and OSError."""
    try:
        found = Clusters.of_table(store.parse_table(_path(digest)))
    except FileNotFoundError:
        raise SelectionError(f"the store has lost the clusters {digest[:12]} of the selection") from None
    except (pa.ArrowException, KeyError, ValueError) as error:  # another table
        raise DamagedFile(_path(digest), str(error)) from None
    if found.digest != digest:
        raise DamagedFile(_path(digest), "it has other clusters")
    return found


def _path(digest: str) -> str:
    return f"snapshots/objects/{digest}.{SUFFIX}"
