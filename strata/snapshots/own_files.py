"""What users bring to a selection: a table of own scores, joined by key, keys to leave out, pictures of benchmarks."""

from __future__ import annotations

import hashlib
import io
import keyword
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from strata.counts import counted
from strata.errors import InvalidInput
from strata.snapshots.duplicates import Benchmarks, read_benchmarks
from strata.snapshots.features import FEATURES, Kind

KEY = "key"
MOST_BLOCK = 2**31 - 1  # bytes, of pyarrow
SHOWN = 80  # characters of a key


@dataclass(frozen=True)
class OwnFiles:
    """The content of a user's files.

    scores: a table with `key` and other columns, each key once; excluded: keys; benchmarks: pictures whose rows are
    left out. sha256s: of the files that were read, by their option, so that a selection says exactly what it has used.
    """

    scores: pa.Table | None = None
    excluded: pa.Array | None = None
    sha256s: tuple[tuple[str, str], ...] = ()
    benchmarks: Benchmarks | None = None

    @property
    def kinds(self) -> dict[str, Kind]:
        """The kinds of the columns of scores, for a filter."""
        fields = [] if self.scores is None else [field for field in self.scores.schema if field.name != KEY]
        return {field.name: _kind(field.type) for field in fields}

    @property
    def fractions(self) -> set[str]:
        """The columns of scores with a number that is not whole."""
        numbers = [name for name, kind in self.kinds.items() if kind == "number"]
        columns = {name: self.scores.column(name) for name in numbers} if self.scores is not None else {}
        return {name for name, one in columns.items() if pc.any(pc.not_equal(one, pc.floor(one))).as_py()}

    def join(self, rows: pa.Table) -> pa.Table:
        """A table of rows with the columns of scores, null where a key is not among them."""
        if self.scores is None:
            return rows
        places = self._places(rows).combine_chunks()
        for name in self.kinds:
            rows = rows.append_column(name, self.scores.column(name).combine_chunks().take(places))
        return rows

    def gaps(self, rows: pa.Table) -> list[str]:
        """A line for each file of which some keys are not those of the rows: it may be that of other rows."""
        lines = []
        if self.scores is not None:
            places = self._places(rows)
            lines += _gaps_of_scores(rows.column(KEY), self.scores.column(KEY), places)
            lines += self._unknown(places)
        if self.excluded is not None:
            unknown = self.excluded.filter(pc.invert(pc.is_in(self.excluded, rows.column(KEY).combine_chunks())))
            if len(unknown):
                some = f"of the keys of --exclude, no row has {len(unknown):,}, such as {_one(unknown)}"
                none = f"no row has a key of --exclude, which has a key a line: they are like {_one(unknown)}"
                lines.append(some if len(unknown) < len(self.excluded) else none)
        return lines

    def _unknown(self, places: pa.ChunkedArray) -> list[str]:
        """What rows with a key of scores have no value there, by column. places: as of `_places`."""
        assert self.scores is not None
        known, lines = places.drop_null().combine_chunks(), []
        for name in self.kinds:
            if empty := self.scores.column(name).combine_chunks().take(known).null_count:
                lines.append(
                    f"the column {name!r} of --scores has no value for {counted(empty, 'row')} with a key there"
                )
        return lines

    def _places(self, rows: pa.Table) -> pa.ChunkedArray:
        assert self.scores is not None
        return pc.index_in(rows.column(KEY), self.scores.column(KEY).combine_chunks())


def _gaps_of_scores(keys: pa.ChunkedArray, scored: pa.ChunkedArray, places: pa.ChunkedArray) -> list[str]:
    """What is odd of the keys of rows and of scores. places: of each row's key among the scored ones, or null."""
    lines, missing = [], places.null_count
    if missing == len(keys) and len(scored):
        lines.append(f"no row has a key of --scores: they are like {_one(scored)}, those of rows like {_one(keys)}")
    elif missing:
        without = keys.filter(pc.is_null(places))
        lines.append(f"{missing:,} of {len(keys):,} rows have no scores, such as {_one(without)}")
    if doubled := len(keys) - len(keys.unique()):
        lines.append(f"{counted(doubled, 'row')} with the key of another row: both have the same scores")
    return lines


def _one(keys: pa.ChunkedArray | pa.Array) -> str:
    """The first key, in quotation marks; of a long one, which is none, the beginning."""
    key = keys[0].as_py() if len(keys) else ""
    return repr(key if len(key) <= SHOWN else f"{key[:SHOWN]}…")


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{path}: {error.strerror or error}") from None


def read_own_files(scores: Path | None, exclude: Path | None, without: Path | None = None) -> OwnFiles:
    """Read a file of scores (.parquet or .csv), one of keys, one a line, and one of hashes. Raises InvalidInput."""
    given = (("scores", scores), ("exclude", exclude), ("without", without))
    contents = {name: _bytes_of(path) for name, path in given if path}
    table = _scores_of(scores, contents["scores"]) if scores else None
    excluded = None
    if exclude:
        try:
            lines = contents["exclude"].decode("utf-8-sig").splitlines()
        except UnicodeDecodeError:
            raise InvalidInput(f"{exclude}: it is not UTF-8 text") from None
        excluded = pa.array(sorted({line for line in lines if line}), pa.string())
    sums = tuple((name, hashlib.sha256(content).hexdigest()) for name, content in contents.items())
    return OwnFiles(table, excluded, sums, read_benchmarks(without, contents["without"]) if without else None)


def _scores_of(path: Path, content: bytes) -> pa.Table:
    """The table of a file of scores: keys as texts, numbers as float64. Raises InvalidInput."""
    try:
        if path.suffix.lower() == ".parquet":
            table = pq.read_table(io.BytesIO(content))
        elif path.suffix.lower() == ".csv":
            content.decode("utf-8-sig")
            table = _csv_of(content)
        else:
            raise InvalidInput(f"{path}: scores are read from a .parquet or a .csv file")
        if not table.num_rows:
            raise InvalidInput(f"{path}: it has no rows")
        return _checked(path, table)
    except UnicodeDecodeError:
        raise InvalidInput(f"{path}: it is not UTF-8 text") from None
    except pa.ArrowException as error:
        raise InvalidInput(f"{path}: {str(error).splitlines()[0]}") from None


def _csv_of(content: bytes) -> pa.Table:
    """A CSV file as a table, in which an empty text is null. Raises pyarrow.ArrowException."""
    # keys such as 000000012 are texts; one block, since the types of the columns are guessed from the first
    as_text = pa.csv.ConvertOptions(column_types={KEY: pa.string()})
    whole = pa.csv.ReadOptions(block_size=min(len(content) + 1, MOST_BLOCK))
    table = pa.csv.read_csv(io.BytesIO(content), whole, convert_options=as_text)
    for number, field in enumerate(table.schema):
        if pa.types.is_string(field.type) and field.name != KEY:
            texts = table.column(number)
            known = pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts)
            table = table.set_column(number, field.name, known)
    return table


def _checked(path: Path, table: pa.Table) -> pa.Table:
    if KEY not in table.column_names:
        raise InvalidInput(f"{path}: it has no column {KEY!r}; it has: {', '.join(table.column_names)}")
    # names that a filter can use, each once
    for name in table.column_names:
        if reason := _fault_of(name, table.column_names):
            raise InvalidInput(f"{path}: the column {name!r} cannot be used: {reason}")
    columns: dict[str, Any] = {name: _typed(path, name, table.column(name)) for name in table.column_names}
    keys = columns[KEY]
    if keys.null_count:
        raise InvalidInput(f"{path}: a row has no key")
    if len(keys.unique()) < len(keys):
        counts = keys.value_counts()
        often = counts.filter(pc.greater(counts.field("counts"), 1))[0].as_py()
        key, times = often["values"][:SHOWN], often["counts"]
        raise InvalidInput(f"{path}: each key must be there once, but {key!r} is {times} times")
    return pa.table(columns)


def _fault_of(name: str, names: list[str]) -> str:
    """Why a filter could not read a column of this name; "" if it can."""
    if name != KEY and name in FEATURES:
        return "a feature has this name"
    if keyword.iskeyword(name):
        return "it is a word of the language of filters"
    usable = name.isidentifier() and names.count(name) == 1
    return "" if usable else "letters, digits and _ are possible, each name once"


def _typed(path: Path, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column as texts, flags, or numbers, in which NaN is null. Raises InvalidInput for other types."""
    kind = column.type
    if name == KEY:
        return column.cast(pa.string())
    if pa.types.is_boolean(kind):
        return column
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        numbers = column.cast(pa.float64())
        return pc.if_else(pc.is_nan(numbers), pa.scalar(None, pa.float64()), numbers)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind):
        return column.cast(pa.string())
    raise InvalidInput(f"{path}: the column {name!r} is {kind}; numbers, texts and yes or no can be used")


def _kind(kind: pa.DataType) -> Kind:
    return "flag" if pa.types.is_boolean(kind) else "name" if pa.types.is_string(kind) else "number"


def without(rows: pa.Table, indices: np.typing.NDArray[np.int64], excluded: pa.Array) -> np.typing.NDArray[np.int64]:
    """Those indices of rows whose key is not excluded."""
    keys = rows.column(KEY).take(pa.array(indices))
    return np.asarray(indices[~pc.is_in(keys, excluded).to_numpy()])
