"""Features of rows. Only the columns that they need are read from the parts, and they are computed column by column."""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from strata.core import LAYERS, THINGS, LayerSpec, Status, head_of
from strata.errors import InvalidInput
from strata.judgments import Judgments, Review, Subject, reviews
from strata.privacy import MAY_HOLD, Personal, personal_data
from strata.store import READERS, FeatureReader, Part, Store

Kind = Literal["number", "flag", "name"]
Floats = np.typing.NDArray[np.float64]
Ints = np.typing.NDArray[np.int64]

PARTS_AT_ONCE = 64  # parts whose columns are computed together in one thread
NOTHING = "none"  # the value of a name in rows without a kept entry
CLUSTER = "cluster"  # the feature that the selection computes from the embeddings of all rows
_ALWAYS = ("key", "status")


@dataclass(frozen=True)
class Feature:
    """A feature: its kind, its meaning for users, the columns of parts that it needs, and how it is computed.

    stage: of the group `features`, whose parts have the columns; None: the columns are those of `llm` parts. whole:
    whether it needs more than the row, and only the selection of a snapshot knows it.
    """

    kind: Kind
    meaning: str
    columns: tuple[str, ...]
    compute: Callable[[pa.Table], Any]
    stage: str | None = None
    whole: bool = False


def entries_of(table: pa.Table, layer: LayerSpec) -> tuple[pa.StructArray, Ints]:
    """The entries of a layer in all rows, flattened in order, and the index of each entry's row."""
    column = table.column(layer.name).combine_chunks()
    if not layer.many:
        return column, np.arange(table.num_rows)
    return pc.list_flatten(column), pc.list_parent_indices(column).to_numpy().astype(np.int64)


def is_kept(entries: pa.StructArray) -> np.typing.NDArray[np.bool_]:
    """Which entries of a layer are kept."""
    return np.asarray(pc.fill_null(pc.struct_field(entries, "kept"), False), bool)


def _count(*layers: LayerSpec) -> Callable[[pa.Table], Ints]:
    """A function that counts the kept entries of some layers in each row."""

    def count(table: pa.Table) -> Ints:
        found = [rows[is_kept(entries)] for entries, rows in (entries_of(table, layer) for layer in layers)]
        return np.bincount(np.concatenate(found), minlength=table.num_rows)

    return count


def _best(layer: LayerSpec) -> Callable[[pa.Table], pa.Array]:
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


def _has_text(table: pa.Table) -> np.typing.NDArray[np.bool_]:
    return _count(LAYERS["text"])(table) > 0


def _words(table: pa.Table) -> Any:
    texts = pc.struct_field(table.column("description"), "text")
    return pc.fill_null(pc.count_substring_regex(texts, r"\S+"), 0)


def _evidence(table: pa.Table) -> Floats:
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


def _told(table: pa.Table) -> Ints:
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


def _match(table: pa.Table) -> Floats:
    """The mean match probability of all kept entries that have one, 0..1; 0 without any."""
    rows, scores = [], []
    for entries, entry_rows in (entries_of(table, layer) for layer in _MATCHED):
        score = pc.cast(pc.struct_field(entries, "match"), pa.float64()).to_numpy(zero_copy_only=False)
        matched = is_kept(entries) & ~np.isnan(score)  # null scores became NaN
        rows.append(entry_rows[matched])
        scores.append(score[matched])
    return _means(np.concatenate(rows), np.concatenate(scores), table.num_rows)


def _means(rows: np.typing.NDArray[Any], values: Floats, count: int) -> Floats:
    """The mean of each row's values; 0 where it has none."""
    sums, numbers = np.bincount(rows, values, count), np.bincount(rows, minlength=count)
    return np.divide(sums, numbers, out=np.zeros(count), where=numbers > 0)


def _thing(table: pa.Table) -> pa.Array:
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


def _personal(table: pa.Table) -> Ints:
    """The number of different personal data in all texts of each row, whether their entries are kept or not."""
    found: set[tuple[int, Personal]] = set()
    for name, layer, _ in _ALL_TEXTS:
        column = table.column(name).combine_chunks()
        many = pa.types.is_list(column.type)
        rows = pc.list_parent_indices(column).to_numpy() if many else np.arange(table.num_rows)
        entries = pc.list_flatten(column) if many else column
        texts = pc.struct_field(entries, layer) if layer else entries
        # only a few texts have an @ or a row of digits
        likely = np.flatnonzero(pc.fill_null(pc.match_substring_regex(texts, MAY_HOLD), False))
        for place, text in zip(likely.tolist(), texts.take(pa.array(likely)).to_pylist(), strict=True):
            found.update((int(rows[place]), one) for one in personal_data(text))
    return np.bincount(np.array([row for row, _ in found], np.int64), minlength=table.num_rows)


def _failure(table: pa.Table) -> Any:
    """The type of each row's failure; NOTHING for a row that succeeded."""
    return pc.fill_null(pc.struct_field(table.column("failure"), "error_type"), NOTHING)


def _image(table: pa.Table) -> Any:
    """The identity of each row's image: its SHA-256, or without one its file, offset and size."""
    uri, offset, size, digest = (pc.struct_field(table.column("image"), i) for i in range(4))
    location = pc.binary_join_element_wise(uri, pc.cast(offset, pa.string()), pc.cast(size, pa.string()), " ")
    return pc.coalesce(digest, location)


def _text_of(layer: LayerSpec) -> Callable[[pa.Table], pa.Array]:
    """A function that gives a layer as one text: itself, or the words of its kept entries, one a line; "" for null."""

    def text(table: pa.Table) -> Any:
        column = table.column(layer.name).combine_chunks()
        if not layer.many:
            words = pc.struct_field(column, layer.words) if layer.words else column
            return pc.fill_null(words, "")
        # the kept entries' words, joined row by row
        entries, rows = entries_of(table, layer)
        kept = is_kept(entries)
        words = pc.fill_null(pc.struct_field(entries, layer.words), "").filter(pa.array(kept))
        lengths = np.bincount(rows[kept], minlength=table.num_rows)
        starts = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
        return pc.binary_join(pa.ListArray.from_arrays(starts, words), "\n")

    return text


_head = functools.lru_cache(100_000)(head_of)


def _column(*path: str) -> Callable[[pa.Table], Any]:
    """A function that gives a column, or a field of it, unchanged."""
    return lambda table: functools.reduce(pc.struct_field, path[1:], table.column(path[0]))


def _of(layer: LayerSpec, *fields: str) -> tuple[str, ...]:
    """The paths of some fields of a layer's entries in the parts' Parquet schema."""
    inside = f"{layer.name}.list.element" if layer.many else layer.name
    return tuple(f"{inside}.{field}" for field in fields)


def _of_layer(layer: LayerSpec) -> dict[str, Feature]:
    """The features of a layer: the number of kept entries, and for layers without boxes the best entry's words."""
    counted = Feature("number", f"kept entries of the layer {layer.name}", _of(layer, "kept"), _count(layer))
    features = {layer.feature: counted}
    if not layer.boxed:
        columns = _of(layer, "kept", "score", layer.words)
        features[layer.entry] = Feature("name", f"the kept {layer.entry} with the highest score", columns, _best(layer))
    return features


def _text_path(layer: LayerSpec) -> str:
    """The path of a layer's texts in the parts' Parquet schema."""
    return _of(layer, layer.words)[0] if layer.many else f"{layer.name}.{layer.words}".rstrip(".")


def _text_feature(layer: LayerSpec) -> Feature:
    columns = _of(layer, "kept", layer.words) if layer.many else (_text_path(layer),)
    meaning = f"the words of the kept {layer.title}, one entry a line" if layer.many else f"the {layer.title}"
    return Feature("name", meaning, columns, _text_of(layer))


def _given(name: str) -> Callable[[pa.Table], Any]:
    """A function that gives a column which is not in the parts but added to a table; NOTHING in a table without."""

    def given(table: pa.Table) -> Any:
        there = name in table.column_names
        return table.column(name) if there else pa.array([NOTHING] * table.num_rows, pa.string())

    return given


# the texts of layers, by the names of their features; "text" and "tags" are other features
TEXTS = {
    **{"alt_text": "alt_text", "caption": "caption", "description": "description"},
    **{"phrases": "regions", "read": "text", "tag_words": "tags"},
}
# every text of a row: the column, the field of its entries, and the path in the parts' Parquet schema
_ALL_TEXTS = [(layer.name, layer.words, _text_path(layer)) for layer in LAYERS.values()]
_ALL_TEXTS += [("variants", "text", "variants.list.element.text")]
_MATCHED = [layer for layer in LAYERS.values() if layer.matched]
_KEPT = tuple(column for layer in THINGS for column in _of(layer, "kept"))
_BOXES = tuple(column for layer in THINGS for column in _of(layer, "kept", layer.words, "box.list.element"))
_MATCHES = tuple(column for layer in _MATCHED for column in _of(layer, "kept", "match"))
_SENTENCES = "description.sentences.list.element.evidence.list.element"
FEATURES: dict[str, Feature] = {
    "objects": Feature("number", "things that are kept: regions and masks together", _KEPT, _count(*THINGS)),
    **{name: feature for layer in LAYERS.values() if layer.many for name, feature in _of_layer(layer).items()},
    "text": Feature("flag", "whether a line of text is kept", _of(LAYERS["text"], "kept"), _has_text),
    "words": Feature("number", "words of the description", ("description.text",), _words),
    "thing": Feature("name", "the noun of the largest kept region or mask that has a phrase", _BOXES, _thing),
    "evidence": Feature("number", "share of sentences that rest on a layer, 0 to 1", (_SENTENCES,), _evidence),
    "told": Feature("number", "entries of layers that the description rests on", (_SENTENCES,), _told),
    "match": Feature("number", "mean of the matcher's probabilities of kept entries, 0 to 1", _MATCHES, _match),
    "width": Feature("number", "pixels", ("width",), _column("width")),
    "height": Feature("number", "pixels", ("height",), _column("height")),
    **{name: _text_feature(LAYERS[layer]) for name, layer in TEXTS.items()},
    "review": Feature("name", "what people said in review: none, accepted, edited, rejected", (), _given("review")),
    "source": Feature("name", "the job or data set of --from that has the row", (), _given("source"), whole=True),
    CLUSTER: Feature("name", "the cluster of embeddings that the image is in", (), _given(CLUSTER), whole=True),
    "status": Feature("name", "how the row ended: succeeded, filtered, failed", ("status",), _column("status")),
    "failure": Feature("name", "why it ended so: the type of the error, or the rule; none", ("failure",), _failure),
    "key": Feature("name", "the image's key", ("key",), _column("key")),
    "uri": Feature("name", "the file that holds the image", ("image.uri",), _column("image", "uri")),
    "personal": Feature(
        "number",
        "different e-mail addresses and numbers of phones, accounts and cards in all texts",
        tuple(path for _, _, path in _ALL_TEXTS),
        _personal,
    ),
    "sharpness": Feature(
        "number", "variance of the Laplacian of the grey image", ("sharpness",), _column("sharpness"), "sharpness"
    ),
    "nsfw": Feature("number", "probability of pornography, 0 to 1", ("nsfw",), _column("nsfw"), "nsfw"),
    "faces": Feature("number", "faces that were found", ("faces",), _column("faces"), "faces"),
    "image": Feature("name", "its SHA-256 where that is known, else its file, offset and size", ("image",), _image),
}


@dataclass(frozen=True)
class Rows:
    """The succeeded rows of some parts, and the number of all rows by status.

    table: part (int32, index in the list of parts), row (int32, index in the part), key, and one column per feature;
    sorted by part and row. ways: how the stages of the group `features` have computed that were read.
    """

    table: pa.Table
    statuses: Counter[str]
    ways: Mapping[str, str] = field(default_factory=dict)


def read_rows(
    store: Store,
    parts: Sequence[str],
    features: Iterable[str],
    advance: Callable[[int], object] = lambda parts: None,
    ways: Mapping[str, str] | None = None,
    statuses: Collection[Status] = (Status.SUCCEEDED,),
    whole: bool = False,
) -> Rows:
    """Read features of all rows of parts that have ended so (statuses), which are those that succeeded.

    parts: paths from the store's root. advance: gets the numbers of parts that were read. ways: of stages of the group
    `features`, where there are several. whole: whether features that need all rows may be asked for; the caller sets
    them. Raises FileNotFoundError for a missing part, LostJudgments for `review`, MissingFeatures and InvalidInput.
    """
    names = _names(features, whole)
    own, beside = ([FEATURES[name] for name in names if bool(FEATURES[name].stage) is there] for there in (False, True))
    columns = list(dict.fromkeys((*_ALWAYS, *(column for feature in own for column in feature.columns))))
    reader = FeatureReader(store, ways) if beside else None
    said = reviews(Judgments(store).of_fingerprints(_fingerprints(parts)).whole()) if "review" in names else {}

    def read(start: int) -> tuple[pa.Table, Counter[str], int]:
        batch = parts[start : start + PARTS_AT_ONCE]
        tables = [_with_origin(index, store.read_columns(path, columns)) for index, path in enumerate(batch, start)]
        tables = [_with_features(*each, reader, beside) for each in zip(tables, batch, strict=True)]
        table = pa.concat_tables(tables).combine_chunks()
        table, counts = _ended_so(table, statuses)
        if "review" in names:
            table = table.append_column("review", _reviewed(table, parts, said))
        computed = {name: FEATURES[name].compute(table) for name in names}
        return pa.table({"part": table["part"], "row": table["row"], **computed}), counts, len(batch)

    found, ended = [], Counter[str]()
    # threads wait for a remote store, and compute on a local one
    with ThreadPoolExecutor(os.cpu_count() if store.local else READERS) as pool:
        for table, counts, number in pool.map(read, range(0, len(parts), PARTS_AT_ONCE)):
            found.append(table)
            ended += counts
            advance(number)
    return Rows(pa.concat_tables(found).combine_chunks(), ended, reader.used if reader is not None else {})


def _ended_so(table: pa.Table, statuses: Collection[Status]) -> tuple[pa.Table, Counter[str]]:
    """The rows with some statuses, and the number of all rows by status."""
    column, wanted = table.column("status"), pa.array([status.value for status in statuses], pa.string())
    return table.filter(pc.is_in(column, value_set=wanted)).combine_chunks(), Counter(column.to_pylist())


def _names(features: Iterable[str], whole: bool) -> list[str]:
    """The features that are read, sorted. Raises InvalidInput for one that only the selection of a snapshot knows."""
    names = sorted({*features, "key"})
    for name in names:
        if FEATURES[name].whole and not whole:
            raise InvalidInput(f"the feature {name!r} needs all rows: only `strata snapshot create` has it")
    return names


def _with_features(table: pa.Table, path: str, reader: FeatureReader | None, features: Sequence[Feature]) -> pa.Table:
    """A part's columns with those of its parts of the group `features`, which have the same rows."""
    for stage in dict.fromkeys(feature.stage for feature in features):
        assert reader is not None
        columns = [column for feature in features if feature.stage == stage for column in feature.columns]
        found = reader.read(Part.parse(path), str(stage), columns)
        for name in found.column_names:
            table = table.append_column(name, found.column(name))
    return table


def _fingerprints(parts: Sequence[str]) -> set[str]:
    return {Part.parse(path).fingerprint for path in parts}


def _reviewed(table: pa.Table, parts: Sequence[str], said: Mapping[Subject, Review]) -> pa.Array:
    """What people said of each row, by its part and key."""
    rows = zip(table.column("part").to_pylist(), table.column("key").to_pylist(), strict=True)
    named = ((Part.parse(parts[part]), key) for part, key in rows) if said else ()
    found = [said.get(Subject(part.fingerprint, part.identity, key), NOTHING) for part, key in named]
    return pa.array(found if said else [NOTHING] * table.num_rows, pa.string())


def _with_origin(index: int, table: pa.Table) -> pa.Table:
    """A part's columns, with the index of the part and of each row in it."""
    rows = np.arange(table.num_rows, dtype=np.int32)
    return table.append_column("part", pa.array(np.full_like(rows, index))).append_column("row", pa.array(rows))
