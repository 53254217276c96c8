"""Write made-up `llm` parts to a store; their layers vary as those of photographs do. Made column by column."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa

from strata.core import RECORD_SCHEMA, SCHEMA_VERSION, Chunk
from strata.store import Part, Store

SHARD_ROWS, CHUNK_ROWS = 10_000, 256
FINGERPRINT = "5e1ec7ed00000000"
SIDE = 512  # pixels of an image
SENTENCES = 4
MASK = "PRd03h?3M2N2N101N10001O0O2O0O1O1O1N3N1N2O1N101N10000O1" * 3  # of the usual length
Ints = np.typing.NDArray[np.int64]


class SyntheticParts:
    """Writes shards of parts that the seed determines.

    Numbers of objects and regions are geometric, words of a description log-normal about 45, one image in three has
    text, and things follow Zipf's law over 2,000 nouns: few are common, most are rare.
    """

    def __init__(self, store: Store, seed: int, nouns: int = 2000) -> None:
        self.store = store
        self.random = np.random.default_rng(seed)
        self.phrases = pa.array([f"a {_letters(number)} on the ground" for number in range(nouns)])
        self.bounds = np.cumsum(1 / np.arange(1, nouns + 1))
        self.text = " ".join(_letters(number) for number in range(200))

    def write(self, name: str, rows: int) -> list[Part]:
        """Write the parts of a number of rows, in shards of SHARD_ROWS whose names begin with a prefix."""
        parts: list[Part] = []
        for shard, start in enumerate(range(0, rows, SHARD_ROWS)):
            identity = hashlib.sha256(f"{name}/{shard}".encode()).hexdigest()[:16]
            images = min(SHARD_ROWS, rows - start)
            for number, first in enumerate(range(0, images, CHUNK_ROWS)):
                count = min(CHUNK_ROWS, images - first)
                chunk = Chunk("llm", "synthetic", FINGERPRINT, f"{name}-{shard:05d}.tar", identity, number, count)
                self.store.write_rows(chunk, self._table(chunk, first, count))
                parts.append(Part.of_chunk(chunk))
        return parts

    def _table(self, chunk: Chunk, first: int, rows: int) -> pa.Table:
        numbers = np.arange(first, first + rows)
        # every image has the same size, at consecutive offsets
        image = [_repeated(chunk.shard, rows), numbers * 42_000 + 512, np.full(rows, 40_000), pa.nulls(rows)]
        columns: dict[str, Any] = {
            "schema_version": np.full(rows, SCHEMA_VERSION),
            "key": [f"{number:09d}" for number in numbers],
            "image": self._structs("image", dict(zip(("uri", "offset", "size", "sha256"), image, strict=True))),
            "width": np.full(rows, SIDE),
            "height": np.full(rows, SIDE),
            "status": np.where(self.random.random(rows) < 0.01, "failed", "succeeded").tolist(),
            "alt_text": _repeated(self.text[:60], rows),
            "caption": self._structs("caption", self._evidence(rows) | {"text": _repeated(self.text[:60], rows)}),
            "regions": self._layer("regions", self.random.geometric(0.22, rows) - 1),
            "objects": self._layer("objects", self.random.geometric(0.3, rows) - 1),
            "text": self._layer("text", np.where(self.random.random(rows) < 0.33, 2, 0)),
            "description": self._descriptions(numbers),
        }
        for field in RECORD_SCHEMA:  # fields that a selection does not use
            columns.setdefault(field.name, pa.nulls(rows, field.type))
        return pa.table([_typed(columns[field.name], field.type) for field in RECORD_SCHEMA], schema=RECORD_SCHEMA)

    def _structs(self, column: str, fields: dict[str, Any], type_: pa.DataType | None = None) -> pa.StructArray:
        kinds = type_ or RECORD_SCHEMA.field(column).type
        return pa.StructArray.from_arrays([_typed(fields[kind.name], kind.type) for kind in kinds], fields=list(kinds))

    def _layer(self, layer: str, lengths: Ints) -> pa.ListArray:
        """A layer with given numbers of entries per row."""
        count = int(lengths.sum())
        # random boxes: two sorted corners
        corners = np.sort(self.random.random((count, 2, 2)) * SIDE, axis=1).reshape(-1).astype(np.float32)
        masks = {"size": pa.FixedSizeListArray.from_arrays(pa.array([SIDE] * 2 * count, pa.int32()), 2)}
        # nouns by Zipf's law, as in captions
        named = np.searchsorted(self.bounds, self.random.random(count) * self.bounds[-1])
        kind = RECORD_SCHEMA.field(layer).type.value_type
        fields = self._evidence(count) | {
            "box": pa.FixedSizeListArray.from_arrays(pa.array(corners), 4),
            "phrase": self.phrases.take(pa.array(named)),
            "text": _repeated("EXIT", count),
            "area": np.full(count, 9000),
        }
        if layer == "objects":
            mask = masks | {"counts": _repeated(MASK, count)}
            fields["mask"] = self._structs("mask", mask, kind.field("mask").type)
        return _lists(lengths, self._structs(layer, fields, kind))

    def _evidence(self, count: int) -> dict[str, Any]:
        score, match = self.random.random((2, count))
        reason = pa.array(["low_match"] * count, pa.string(), mask=match > 0.2)
        return {"score": score, "match": match, "kept": match > 0.2, "reason": reason}

    def _descriptions(self, numbers: Ints) -> pa.StructArray:
        """Descriptions of four sentences, of which some have evidence; no two texts of a shard are the same."""
        # lengths of descriptions: log-normal with a median of 45 words
        words = np.clip(self.random.lognormal(np.log(45), 0.5, len(numbers)), 5, 190).astype(int)
        count = len(numbers) * SENTENCES
        supported = self.random.integers(0, 2, count)
        kind = RECORD_SCHEMA.field("description").type
        evidence = _lists(supported, _repeated("caption", int(supported.sum())))
        sentence = {"text": _repeated(self.text[:60], count), "evidence": evidence}
        sentences = self._structs("", sentence, kind.field("sentences").type.value_type)
        pairs = zip(numbers, words, strict=True)
        texts = [
            f"{_letters(number)} {self.text[: 4 * length - 5]}" for number, length in pairs
        ]  # words of three letters
        fields = {"text": texts, "sentences": _lists(np.full(len(numbers), SENTENCES), sentences)}
        return self._structs("", fields, kind)


def _letters(number: int) -> str:
    """Encode a number as three letters, since nouns have no digits."""
    return "".join(chr(ord("a") + number // 26**digit % 26) for digit in range(3))


def _repeated(text: str, count: int) -> pa.Array:
    return pa.repeat(text, count)


def _lists(lengths: Ints, values: pa.Array) -> pa.ListArray:
    return pa.ListArray.from_arrays(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32), values)


def _typed(values: Any, kind: pa.DataType) -> pa.Array:
    """Convert values to an array of a type."""
    return (values if isinstance(values, pa.Array) else pa.array(values)).cast(kind)
