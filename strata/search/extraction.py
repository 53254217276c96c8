"""What the index keeps of a part: for each row its figures, its words, and its labels.

It iterates over the table of layers, so that a new layer is searched without code here. Only the columns that are
needed are read from the part; one that the part's version does not have is null.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from strata.core import LAYERS, LayerSpec, Status
from strata.search.labels import label_of
from strata.search.postings import Bitmap, divided
from strata.search.words import numbers_of, words_of_texts

Ints = np.typing.NDArray[np.int64]
Floats = np.typing.NDArray[np.float64]

TITLE_CHARACTERS = 200  # of a row's text that the index keeps, to show in a grid
STATUSES = tuple(status.value for status in Status)
# the kinds of labels, by which rows are filtered and counted; their places are the kinds' numbers in the index
LABELS = ("thing", "tag", "dropped", "cut", "failure")
WORD = len(LABELS)  # the kind of words, in the table of bitmaps
_CUTS = "verification.sentences.list.element.reason"
_SCORED = [layer for layer in LAYERS.values() if layer.scored]
_UNSCORED = [layer for layer in LAYERS.values() if not layer.scored]


def _columns() -> tuple[str, ...]:
    found = ["key", "status", "width", "height", "failure.error_type", _CUTS]
    found += [f"{layer.name}.{layer.words}".rstrip(".") for layer in _UNSCORED]
    for layer in _SCORED:
        inside = f"{layer.name}.list.element" if layer.many else layer.name
        fields = ("kept", "reason", layer.words, *(["match"] if layer.matched else []))
        found += [f"{inside}.{field}" for field in fields]
    return tuple(found)


COLUMNS = _columns()


@dataclass(frozen=True)
class Extract:
    """The rows of some parts. figures: a row for each, with its index among all of them in `row`.

    words: the columns term (number of a word) and row, sorted, each pair once. labels: kind (index in LABELS), term and
    row, sorted, each once. bitmaps: kind (also WORD), term, number and bits of the words and labels that many rows
    have, which the other two leave out. names: kind, term and the label's text, each once.
    """

    figures: pa.Table
    words: pa.Table
    labels: pa.Table
    bitmaps: pa.Table
    names: pa.Table


@dataclass(frozen=True)
class _Entries:
    """The entries of a layer in all rows. rows: the index of each one's row; words: "" where it has none."""

    layer: LayerSpec
    rows: Ints
    kept: np.typing.NDArray[np.bool_]
    words: pa.Array
    reasons: pa.Array
    matches: Floats | None


def extract(table: pa.Table) -> Extract:
    """What is kept of the rows of some parts, which have COLUMNS."""
    layers = [_entries(table, layer) for layer in _SCORED]
    words, common = _words(table, layers)
    labels, common_labels, names = _labels(table, layers)
    return Extract(_figures(table, layers), words, labels, bitmap_table({WORD: common} | common_labels), names)


def _entries(table: pa.Table, layer: LayerSpec) -> _Entries:
    column = table.column(layer.name).combine_chunks()
    if layer.many:
        rows = pc.list_parent_indices(column).to_numpy().astype(np.int64)
        entries = pc.list_flatten(column)
    else:
        rows = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False)).astype(np.int64)
        entries = column.drop_null()
    kept = np.asarray(pc.fill_null(pc.struct_field(entries, "kept"), False), bool)
    matches = _floats(pc.struct_field(entries, "match")) if layer.matched else None
    words = pc.fill_null(pc.struct_field(entries, layer.words), "")
    return _Entries(layer, rows, kept, words, pc.struct_field(entries, "reason"), matches)


def _floats(array: pa.Array) -> Floats:
    """Numbers as float64, NaN for null."""
    return np.asarray(pc.cast(array, pa.float64()).to_numpy(zero_copy_only=False), np.float64)


def _text(table: pa.Table, layer: LayerSpec) -> pa.Array:
    """The text of a layer that is one text."""
    column = table.column(layer.name).combine_chunks()
    return pc.struct_field(column, layer.words) if layer.words else column


def _figures(table: pa.Table, layers: list[_Entries]) -> pa.Table:
    """One row for each: row, status (index in STATUSES), key, words, has_text, score, width, height, title."""
    count = table.num_rows
    by_name = {entries.layer.name: entries for entries in layers}
    lines = by_name["text"]
    description = _text(table, LAYERS["description"])
    return pa.table(
        {
            "row": pa.array(np.arange(count), pa.uint32()),
            "status": pc.index_in(table.column("status"), pa.array(STATUSES)).combine_chunks().cast(pa.uint8()),
            "key": table.column("key").combine_chunks(),
            "words": pc.fill_null(pc.count_substring_regex(description, r"\S+"), 0).cast(pa.int32()),
            "has_text": pa.array(np.bincount(lines.rows[lines.kept], minlength=count) > 0),
            "score": _scores(layers, count),
            "width": table.column("width").combine_chunks().cast(pa.int64()),
            "height": table.column("height").combine_chunks().cast(pa.int64()),
            "title": _titles(table, by_name["caption"], description),
        }
    )


def _scores(layers: list[_Entries], count: int) -> pa.Array:
    """The mean of the matcher's probabilities of each row's kept entries; null for a row that has none."""
    rows, values = [], []
    for entries in layers:
        if entries.matches is not None:
            scored = entries.kept & ~np.isnan(entries.matches)
            rows.append(entries.rows[scored])
            values.append(entries.matches[scored])
    row = np.concatenate(rows)
    numbers = np.bincount(row, minlength=count)
    means = np.bincount(row, np.concatenate(values), count) / np.maximum(numbers, 1)
    return pa.array(means.astype(np.float32), pa.float32(), mask=numbers == 0)


def _titles(table: pa.Table, captions: _Entries, description: pa.Array) -> pa.Array:
    """The beginning of each row's description; without one of its kept caption, or of its alt text; else null."""
    caption = np.full(table.num_rows, None, object)
    caption[captions.rows[captions.kept]] = captions.words.filter(pa.array(captions.kept)).to_pylist()
    texts = [description, pa.array(caption, pa.string()), _text(table, LAYERS["alt_text"])]
    # an empty text is none
    given = [pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text) for text in texts]
    return pc.utf8_slice_codeunits(pc.coalesce(*given), 0, TITLE_CHARACTERS)


def bitmap_table(found: dict[int, list[Bitmap]]) -> pa.Table:
    """The bitmaps of each kind, as a table."""
    rows = [{"kind": kind, **one._asdict()} for kind, bitmaps in found.items() for one in bitmaps]
    return pa.Table.from_pylist(rows, schema=_BITMAPS)


def _words(table: pa.Table, layers: list[_Entries]) -> tuple[pa.Table, list[Bitmap]]:
    """The words of each row's texts: alt text and description, and the kept entries of the other layers."""
    rows = [np.arange(table.num_rows)] * len(_UNSCORED) + [entries.rows[entries.kept] for entries in layers]
    texts = [_text(table, layer) for layer in _UNSCORED]
    texts += [entries.words.filter(pa.array(entries.kept)) for entries in layers]
    found = words_of_texts(pa.concat_arrays(texts))
    # the words of all texts in a row, each with the row that its text is of
    row = np.concatenate(rows)[pc.list_parent_indices(found).to_numpy()]
    words = pc.list_flatten(found).dictionary_encode()
    terms = numbers_of(words.dictionary.to_pylist())
    places, row = _distinct(np.argsort(np.argsort(terms))[words.indices.to_numpy()], row, table.num_rows)
    found_terms = np.sort(terms)[places]
    listed, common = divided(found_terms, row, table.num_rows)
    return pa.table({"term": found_terms[listed], "row": pa.array(row[listed], pa.uint32())}), common


def _distinct(terms: Ints, rows: Ints, count: int) -> tuple[Ints, Ints]:
    """Pairs of small terms and rows below count, sorted, each once."""
    # sorting takes a tenth of the time of numpy.unique, which hashes
    pairs = np.sort(terms * max(1, count) + rows)
    pairs = pairs[np.diff(pairs, prepend=-1) > 0]
    return pairs // max(1, count), pairs % max(1, count)


def _labels(table: pa.Table, layers: list[_Entries]) -> tuple[pa.Table, dict[int, list[Bitmap]], pa.Table]:
    """The labels of rows, the bitmaps of those that many rows have by kind, and the texts of labels."""
    found: list[tuple[str, Ints, pa.Array]] = []
    for entries in layers:
        found.append(("dropped", entries.rows[~entries.kept], entries.reasons.filter(pa.array(~entries.kept))))
        kept = entries.words.filter(pa.array(entries.kept))
        if entries.layer.names_things:
            found.append(("thing", entries.rows[entries.kept], kept))
        if entries.layer.name == "tags":
            found.append(("tag", entries.rows[entries.kept], kept))
    sentences = pc.struct_field(table.column("verification").combine_chunks(), "sentences")
    rows = pc.list_parent_indices(sentences).to_numpy().astype(np.int64)
    found.append(("cut", rows, pc.struct_field(pc.list_flatten(sentences), "reason")))
    failures = pc.struct_field(table.column("failure").combine_chunks(), "error_type")
    found.append(("failure", np.arange(table.num_rows), failures))
    return _numbered(found, table.num_rows)


def _numbered(
    found: list[tuple[str, Ints, pa.Array]], count: int
) -> tuple[pa.Table, dict[int, list[Bitmap]], pa.Table]:
    """The labels of rows with their kinds and numbers, sorted, each once; their bitmaps; and the labels' texts."""
    kinds, terms, rows, names = [], [], [], []
    common: dict[int, list[Bitmap]] = {}
    for number, kind in enumerate(LABELS):
        one = [(row, values) for name, row, values in found if name == kind]
        row, values = np.concatenate([row for row, _ in one]), pa.concat_arrays([values for _, values in one])
        values = _as_kept(kind, values)
        given = pc.fill_null(pc.not_equal(values, ""), False)
        texts = values.filter(given).dictionary_encode()
        row = row[given.to_numpy(zero_copy_only=False)]
        # two labels may have one number: "café" and "cafe"
        each = numbers_of(texts.dictionary.to_pylist())
        numbers, first, same = np.unique(each, return_index=True, return_inverse=True)
        places, row = _distinct(same[texts.indices.to_numpy()].astype(np.int64), row, count)
        listed, common[number] = divided(numbers[places], row, count)
        kinds.append(np.full(listed.sum(), number))
        terms.append(numbers[places][listed])
        rows.append(row[listed])
        named = zip(numbers.tolist(), texts.dictionary.take(pa.array(first)).to_pylist(), strict=True)
        names += [{"kind": number, "term": term, "name": text} for term, text in named]
    labels = {"kind": pa.array(np.concatenate(kinds), pa.uint8()), "term": np.concatenate(terms)}
    labels["row"] = pa.array(np.concatenate(rows), pa.uint32())
    return pa.table(labels), common, pa.Table.from_pylist(names, schema=_NAMES)


def _as_kept(kind: str, values: pa.Array) -> pa.Array:
    """Labels as they are kept; each distinct text is looked at once."""
    texts = values.dictionary_encode()
    kept = [label_of(kind, text) if text else None for text in texts.dictionary.to_pylist()]
    return pa.array(kept, pa.string()).take(texts.indices)


_BITMAPS = pa.schema([("kind", pa.uint8()), ("term", pa.int64()), ("number", pa.uint32()), ("bits", pa.binary())])
_NAMES = pa.schema([("kind", pa.uint8()), ("term", pa.int64()), ("name", pa.string())])
