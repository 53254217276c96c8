"""How features are computed: functions of the columns of many rows of parts, which compute column by column."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from strata.core import LAYERS, THINGS, LayerSpec, head_of
from strata.privacy import MAY_HOLD, Personal, personal_data

Floats = np.typing.NDArray[np.float64]
Ints = np.typing.NDArray[np.int64]

NOTHING = "none"  # the value of a name in rows without a kept entry
MATCHED = [layer for layer in LAYERS.values() if layer.matched]
# every text of a row: the column, and the field of its entries, empty for a column of texts
TEXT_FIELDS = [*((layer.name, layer.words) for layer in LAYERS.values()), ("variants", "text")]


def entries_of(table: pa.Table, layer: LayerSpec) -> tuple[pa.StructArray, Ints]:
    """The entries of a layer in all rows, flattened in order, and the index of each entry's row."""
    column = table.column(layer.name).combine_chunks()
    if not layer.many:
        return column, np.arange(table.num_rows)
    return pc.list_flatten(column), pc.list_parent_indices(column).to_numpy().astype(np.int64)


def is_kept(entries: pa.StructArray) -> np.typing.NDArray[np.bool_]:
    """Which entries of a layer are kept."""
    return np.asarray(pc.fill_null(pc.struct_field(entries, "kept"), False), bool)


def count_of(*layers: LayerSpec) -> Callable[[pa.Table], Ints]:
    """A function that counts the kept entries of some layers in each row."""

    def count(table: pa.Table) -> Ints:
        found = [rows[is_kept(entries)] for entries, rows in (entries_of(table, layer) for layer in layers)]
        return np.bincount(np.concatenate(found), minlength=table.num_rows)

    return count


def best_of(layer: LayerSpec) -> Callable[[pa.Table], pa.Array]:
    """A function that gives the words of each row's kept entry with the highest score, the first of equal ones."""

    def best(table: pa.Table) -> pa.Array:
        # dropped entries get the score -1, so that they come last in their row
        entries, rows = entries_of(table, layer)
        score = pc.cast(pc.struct_field(entries, "score"), pa.float64()).to_numpy(zero_copy_only=False)
        score = np.where(is_kept(entries), np.nan_to_num(score), -1.0)
        # sort by row, then by falling score; take the first entry of each row unless it is a dropped one
        order = np.lexsort((np.arange(len(rows)), -score, rows))
        _, first = np.unique(rows[order], return_index=True)
        chosen = order[first][score[order[first]] >= 0]
        # rows without a kept entry stay NOTHING
        names = np.full(table.num_rows, NOTHING, object)
        words = pc.struct_field(entries, layer.words).take(pa.array(chosen))
        names[rows[chosen]] = words.to_numpy(zero_copy_only=False)
        return pa.array(names, pa.string())

    return best


def has_text(table: pa.Table) -> np.typing.NDArray[np.bool_]:
    return count_of(LAYERS["text"])(table) > 0


def words(table: pa.Table) -> Any:
    texts = pc.struct_field(table.column("description"), "text")
    return pc.fill_null(pc.count_substring_regex(texts, r"\S+"), 0)


def evidence(table: pa.Table) -> Floats:
    """The share of a description's sentences with evidence, 0..1; 0 without a sentence."""
    supported, numbers = _supported(table)
    return np.divide(supported, numbers, out=np.zeros(table.num_rows), where=numbers > 0)


def unsupported_sentences(table: pa.Table) -> Floats:
    """The share of a description's sentences without evidence, 0..1; 0 without a sentence."""
    supported, numbers = _supported(table)
    return np.divide(numbers - supported, numbers, out=np.zeros(table.num_rows), where=numbers > 0)


def _supported(table: pa.Table) -> tuple[Floats, Floats]:
    """The number of each description's sentences with evidence, and of all its sentences."""
    lists = pc.struct_field(table.column("description").combine_chunks(), "sentences")
    rows = pc.list_parent_indices(lists).to_numpy()
    lengths = pc.fill_null(pc.list_value_length(pc.struct_field(pc.list_flatten(lists), "evidence")), 0).to_numpy()
    count = table.num_rows
    supported, numbers = np.bincount(rows, lengths > 0, count), np.bincount(rows, minlength=count)
    return supported.astype(np.float64), numbers.astype(np.float64)


def told(table: pa.Table) -> Ints:
    """The number of different entries that the sentences of each row's description rest on."""
    sentences = pc.struct_field(table.column("description").combine_chunks(), "sentences")
    evidence = pc.struct_field(pc.list_flatten(sentences), "evidence")
    # the row of each sentence, then of each entry that it names
    of_sentence = pc.list_parent_indices(sentences).to_numpy()
    rows = of_sentence[pc.list_parent_indices(evidence).to_numpy()]
    names = pc.list_flatten(evidence).dictionary_encode()
    # a row's entry that several sentences name counts once
    pairs = np.unique(rows.astype(np.int64) * max(1, len(names.dictionary)) + names.indices.to_numpy())
    return np.bincount(pairs // max(1, len(names.dictionary)), minlength=table.num_rows)


def match(table: pa.Table) -> Floats:
    """The mean match probability of all kept entries that have one, 0..1; 0 without any."""
    return _means(*matches_of(table), table.num_rows)


def matches_of(table: pa.Table) -> tuple[Ints, Floats]:
    """The row and the match probability of each kept entry that has one."""
    rows, scores = [], []
    for entries, entry_rows in (entries_of(table, layer) for layer in MATCHED):
        score = pc.cast(pc.struct_field(entries, "match"), pa.float64()).to_numpy(zero_copy_only=False)
        matched = is_kept(entries) & ~np.isnan(score)  # null scores became NaN
        rows.append(entry_rows[matched])
        scores.append(score[matched])
    return np.concatenate(rows), np.concatenate(scores)


def _means(rows: np.typing.NDArray[Any], values: Floats, count: int) -> Floats:
    """The mean of each row's values; 0 where it has none."""
    sums, numbers = np.bincount(rows, values, count), np.bincount(rows, minlength=count)
    return np.divide(sums, numbers, out=np.zeros(count), where=numbers > 0)


_head = functools.lru_cache(100_000)(head_of)


def thing(table: pa.Table) -> pa.Array:
    """The head noun of the kept region or object with the largest box in each row."""
    rows, areas, phrases = [], [], []
    # areas (square pixels) and phrases of all kept entries that have a phrase
    for layer in THINGS:
        entries, entry_rows = entries_of(table, layer)
        kept = is_kept(entries) & pc.is_valid(pc.struct_field(entries, layer.words)).to_numpy(zero_copy_only=False)
        boxes = pc.list_flatten(pc.struct_field(entries, "box")).to_numpy().reshape(-1, 4)[kept]
        rows.append(entry_rows[kept])
        areas.append((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
        phrases.append(pc.struct_field(entries, layer.words).filter(pa.array(kept)))
    # sort by row, then by falling area, and take the first entry of each row
    row, area = np.concatenate(rows), np.concatenate(areas)
    order = np.lexsort((-area, row))
    found, first = np.unique(row[order], return_index=True)
    # find the head noun once for each distinct phrase
    named = pa.concat_arrays(phrases).take(pa.array(order[first])).dictionary_encode()
    heads = pa.array([_head(phrase) for phrase in named.dictionary.to_pylist()], pa.string())
    things = np.full(table.num_rows, NOTHING, object)
    things[found] = heads.take(named.indices).to_numpy(zero_copy_only=False)
    return pa.array(things, pa.string())


def personal(table: pa.Table) -> Ints:
    """The number of different personal data in all texts of each row, whether their entries are kept or not."""
    found: set[tuple[int, Personal]] = set()
    for name, field in TEXT_FIELDS:
        column = table.column(name).combine_chunks()
        many = pa.types.is_list(column.type)
        rows = pc.list_parent_indices(column).to_numpy() if many else np.arange(table.num_rows)
        entries = pc.list_flatten(column) if many else column
        texts = pc.struct_field(entries, field) if field else entries
        # only a few texts have an @ or a row of digits
        likely = np.flatnonzero(pc.fill_null(pc.match_substring_regex(texts, MAY_HOLD), False))
        for place, text in zip(likely.tolist(), texts.take(pa.array(likely)).to_pylist(), strict=True):
            found.update((int(rows[place]), one) for one in personal_data(text))
    return np.bincount(np.array([row for row, _ in found], np.int64), minlength=table.num_rows)


def failure(table: pa.Table) -> Any:
    """The type of each row's failure; NOTHING for a row that succeeded."""
    return pc.fill_null(pc.struct_field(table.column("failure"), "error_type"), NOTHING)


def image(table: pa.Table) -> Any:
    """The identity of each row's image: its SHA-256, or without one its file, offset and size."""
    uri, offset, size, digest = (pc.struct_field(table.column("image"), i) for i in range(4))
    location = pc.binary_join_element_wise(uri, pc.cast(offset, pa.string()), pc.cast(size, pa.string()), " ")
    return pc.coalesce(digest, location)


def text_of(layer: LayerSpec) -> Callable[[pa.Table], pa.Array]:
    """A function that gives a layer as one text: itself, or the words of its kept entries, one a line; "" for null.

    The texts of millions of rows have more bytes than the 2**31 that a `string` column can be put together of.
    """

    def text(table: pa.Table) -> Any:
        column = table.column(layer.name).combine_chunks()
        if not layer.many:
            words = pc.struct_field(column, layer.words) if layer.words else column
            return pc.fill_null(words, "").cast(pa.large_string())
        # the kept entries' words, joined row by row
        entries, rows = entries_of(table, layer)
        kept = is_kept(entries)
        words = pc.fill_null(pc.struct_field(entries, layer.words), "").filter(pa.array(kept))
        lengths = np.bincount(rows[kept], minlength=table.num_rows)
        starts = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
        return pc.binary_join(pa.ListArray.from_arrays(starts, words), "\n").cast(pa.large_string())

    return text


def column_of(*path: str) -> Callable[[pa.Table], Any]:
    """A function that gives a column, or a field of it, unchanged."""
    return lambda table: functools.reduce(pc.struct_field, path[1:], table.column(path[0]))


def given_as(name: str) -> Callable[[pa.Table], Any]:
    """A function that gives a column which is not in the parts but added to a table; NOTHING in a table without."""

    def given(table: pa.Table) -> Any:
        there = name in table.column_names
        return table.column(name) if there else pa.array([NOTHING] * table.num_rows, pa.string())

    return given
