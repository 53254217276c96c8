"""Write made-up embeddings beside the parts of `synthetic_parts`: topics of very different sizes, and copies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from bench.inputs.synthetic_parts import CHUNK_ROWS, FINGERPRINT
from strata.core import feature_fingerprint
from strata.core.layers.features import part_schema
from strata.store import Part, Provenance, Store
from strata.store.feature_parts import FeatureKind, keep_kind, write_features

WAY = "5e1ec7ed00000001"
TOPICS, SUBTOPICS, FAMOUS = 2000, 8, 1000  # topics and famous pictures follow Zipf's law
COPIES = 0.1  # share of the rows that are near a famous picture
TOPIC, SUBTOPIC, OWN, COPY = 1.0, 0.6, 0.8, 0.15  # lengths of the parts of a vector
Floats = np.typing.NDArray[np.float32]


class SyntheticVectors:
    """Writes embeddings that the seed determines.

    A vector is the sum of its topic's, its subtopic's and its own random direction. Vectors of one subtopic have a
    cosine of about 0.68, of one topic 0.5, of different topics 0, copies of a famous picture 0.98.
    """

    def __init__(self, store: Store, seed: int, width: int) -> None:
        self.store, self.width, self.random = store, width, np.random.default_rng(seed)
        self.topics = self._directions(TOPICS)
        self.subtopics = self._directions(TOPICS * SUBTOPICS)
        self.famous = self._directions(FAMOUS)
        # the store must know of how many rows the chunks are
        known = Provenance(fingerprint=FINGERPRINT, settings={"chunk_size": CHUNK_ROWS})
        store.put(store.path("profiles", f"{FINGERPRINT}.json"), known.model_dump_json().encode())
        self.kind = FeatureKind(
            fingerprint=feature_fingerprint(WAY, CHUNK_ROWS),
            stage="embedding",
            way=WAY,
            profile="synthetic",
            chunk_size=CHUNK_ROWS,
        )
        keep_kind(store, self.kind)

    def write(self, parts: Sequence[Part]) -> None:
        """Write the embeddings of the rows of some parts."""
        for part in parts:
            keys = self.store.read_columns(part.path, ["key"]).column("key")
            vectors = self.vectors(len(keys)).astype(np.float16)
            starts = np.arange(0, vectors.size + 1, self.width, dtype=np.int32)
            lists = pa.ListArray.from_arrays(pa.array(starts), pa.array(vectors.ravel()))
            table = pa.table([keys, lists, pa.nulls(len(keys), pa.string())], schema=part_schema("embedding"))
            write_features(self.store, part, self.kind, "synthetic", table)

    def vectors(self, count: int) -> Floats:
        """Vectors of length 1, (count, width)."""
        topics = self._zipf(TOPICS, count)
        subtopics = topics * SUBTOPICS + self._zipf(SUBTOPICS, count)
        whole = TOPIC * self.topics[topics] + SUBTOPIC * self.subtopics[subtopics] + OWN * self._directions(count)
        copies = np.flatnonzero(self.random.random(count) < COPIES)
        whole[copies] = self.famous[self._zipf(FAMOUS, len(copies))] + COPY * self._directions(len(copies))
        return np.asarray(whole / np.linalg.norm(whole, axis=1, keepdims=True), np.float32)

    def _directions(self, count: int) -> Floats:
        drawn = self.random.standard_normal((count, self.width), np.float32)
        return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), np.float32)

    def _zipf(self, of: int, count: int) -> np.typing.NDArray[np.int64]:
        bounds = np.cumsum(1 / np.arange(1, of + 1))
        return np.asarray(np.searchsorted(bounds, self.random.random(count) * bounds[-1]), np.int64)
