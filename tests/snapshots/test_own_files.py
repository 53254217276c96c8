"""Scores of a user's own file in filters, and keys that are left out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from strata.errors import InvalidInput
from strata.publishing.papers.commands import selection_options
from strata.snapshots.own_files import OwnFiles, read_own_files
from strata.snapshots.selection import Selection, SelectionError
from strata.snapshots.selection.axes import axes_of
from strata.snapshots.snapshot import Snapshot
from strata.snapshots.snapshots import Snapshots
from strata.store.store import Store
from tests.snapshots.test_snapshots import keys_of, some_parts

SCORES = "key,rating,unsafe,camera\n02,5.5,false,nikon\n03,4,true,\n04,nan,false,leica\n99,9,false,nikon\n"


def chosen(store: Store, own: OwnFiles, **values: Any) -> list[str]:
    made = Snapshots(store).create(
        f"n{len(store.find())}", some_parts(store), Selection(own=own.kinds, **values), own=own
    )
    return sorted({key for _, key in keys_of(store, made)})


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_columns_are_joined_by_key(store: Store, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"scores.{suffix}"
    if suffix == "csv":
        path.write_text(SCORES, encoding="utf-8")
    else:
        columns: dict[str, Any] = {"key": ["02", "03", "04", "99"], "rating": [5.5, 4, float("nan"), 9]}
        columns |= {"unsafe": [False, True, False, False], "camera": ["nikon", None, "leica", "nikon"]}
        pq.write_table(pa.table(columns), path)
    own = read_own_files(path, None)
    assert own.kinds == {"rating": "number", "unsafe": "flag", "camera": "name"}
    assert chosen(store, own, where="rating > 4.5") == ["02"]
    assert chosen(store, own, where="rating >= 4 and not unsafe or camera == 'leica'") == ["02", "04"]
    assert chosen(store, own, where="'ik' in camera or unsafe") == ["02", "03"]
    # rows without a score do not pass, whatever is asked of it
    assert chosen(store, own, where="not (rating > 5)") == ["03"]


def test_rows_are_balanced_by_own_columns(store: Store, tmp_path: Path) -> None:
    parts, snapshots, path = some_parts(store), Snapshots(store), tmp_path / "scores.csv"
    # each key is in two shards
    keys = sorted({key for _, key in keys_of(store, snapshots.create("all", parts, Selection()))})
    flags, domains = ("false", "true"), ("a", "a", "b")
    lines = [f"{key},{n % 3},{flags[n % 2]},{domains[n % 3]}" for n, key in enumerate(keys[1:])]
    path.write_text("\n".join(["key,score,indoor,domain", f"{keys[0]},,,", *lines, ""]), encoding="utf-8")
    own = read_own_files(path, None)
    assert own.kinds == {"score": "number", "indoor": "flag", "domain": "name"}
    axes = axes_of(["score:1,2", "indoor", "domain"], ["domain=b:0.25"], own=own.kinds)
    made = snapshots.create("fair", parts, Selection(method="balanced", axes=axes, count=4, own=own.kinds), own=own)
    composition = made.manifest.composition
    # rows of which a number or a flag is not known have a label of their own
    assert list(composition["score"]) == ["0", "1", "2+", "unknown"] and composition["score"]["unknown"][0] == 2
    assert list(composition["indoor"]) == ["no", "yes", "unknown"] and composition["domain"]["other"][0] == 2
    assert sum(after for _, after in composition["domain"].values()) == 4
    assert made.fault() is None and "--by score:1,2 --by indoor" in " ".join(selection_options(made.manifest.selection))
    # it is repeated with the file, as long as that has the columns
    assert snapshots.create("again", parts, made.manifest.selection, own=own).id == made.id
    with pytest.raises(InvalidInput, match=r"no feature 'domain'; there are: .*"):
        axes_of(["domain"], [])


def test_labels_of_own_numbers_and_of_a_text_called_other(store: Store, tmp_path: Path) -> None:
    parts, snapshots, path = some_parts(store), Snapshots(store), tmp_path / "scores.csv"
    keys = sorted({key for _, key in keys_of(store, snapshots.create("all", parts, Selection()))})
    texts = ("a", "other", "")
    lines = [f"{key},{n % 3},{n % 3 + 0.5},{texts[n % 3]}" for n, key in enumerate(keys)]
    path.write_text("\n".join(["key,stars,rating,kind", *lines, ""]), encoding="utf-8")
    own = read_own_files(path, None)
    assert own.fractions == {"rating"}
    by, targets = ["kind", "stars:1,2", "rating:1,2"], ["kind=other:0.5", "rating=1-2:0.5"]
    axes = axes_of(by, targets, own=own.kinds, fractions=own.fractions)
    selection = Selection(method="balanced", axes=axes, count=4, own=own.kinds)
    composition = snapshots.create("fair", parts, selection, own=own, accept_shortfall=True).manifest.composition
    assert list(composition["stars"]) == ["0", "1", "2+", "unknown"]
    assert list(composition["rating"]) == ["<1", "1-2", "2+", "unknown"]
    # the text and the rows without one have one label, and every row is counted
    assert set(composition["kind"]) == {"a", "other"} and composition["kind"]["other"][1] == 2
    assert sum(before for before, _ in composition["kind"].values()) == sum(
        before for before, _ in composition["stars"].values()
    )


def test_a_selection_says_which_files_it_used(store: Store, tmp_path: Path) -> None:
    path, keys = tmp_path / "scores.csv", tmp_path / "keys.txt"
    path.write_text(SCORES, encoding="utf-8")
    keys.write_bytes(b"\xef\xbb\xbf02\r\n\r\n03\r\n")
    own, snapshots, parts = read_own_files(path, keys), Snapshots(store), some_parts(store)

    def create(name: str, selection: Selection, files: OwnFiles | None) -> Snapshot:
        return snapshots.create(name, parts, selection, own=files)

    first = create("first", Selection(own=own.kinds, where="unsafe or camera == 'leica'"), own)
    assert {key for _, key in keys_of(store, first)} == {"04"}
    assert first.fault() is None and [option for option, _ in first.manifest.selection.files] == ["scores", "exclude"]
    again = snapshots.open("first").manifest.selection
    assert create("again", again, own).id == first.id
    with pytest.raises(SelectionError, match="needs a file: give --exclude and --scores"):
        create("without", again, None)
    # other files are another selection
    keys.write_text("02\n", encoding="utf-8")
    assert create("other", again, read_own_files(path, keys)).id != first.id


def test_a_file_that_is_no_list_of_keys_is_told_in_a_short_line(store: Store, tmp_path: Path) -> None:
    told, path = list[str](), tmp_path / "keys.json"
    path.write_text(f'["{"02 " * 500}"]', encoding="utf-8")
    own = read_own_files(None, path)
    Snapshots(store).create("some", some_parts(store), Selection(), own=own, tell=told.append)
    assert len(told) == 1 and told[0].startswith("no row has a key of --exclude, which has a key a line: they are like")
    assert len(told[0]) < 200


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("a.csv", "id,x\n1,2\n", "it has no column 'key'; it has: id, x"),
        ("a.csv", "key,words\n1,2\n", "'words' cannot be used: a feature has this name"),
        ("a.csv", "key,a b\n1,2\n", "'a b' cannot be used: letters, digits"),
        ("a.csv", "key,x\n7,2\n1,2\n1,3\n1,4\n", "each key must be there once, but '1' is 3 times"),
        ("a.csv", "key,class\n1,2\n", "'class' cannot be used: it is a word of the language of filters"),
        ("a.csv", "key,key\n1,2\n", "'key' cannot be used: letters, digits and _ are possible, each name once"),
        ("a.csv", "key;x\n1;2\n", "it has no column 'key'; it has: key;x"),
        ("a.csv", "key,x\n1,2,3\n", "Expected 2 columns"),
        ("a.csv", "", "CSV"),
        ("a.csv", "key,x\n", "it has no rows"),
        ("a.parquet", "no parquet", "Parquet"),
        ("a.json", "{}", "a .parquet or a .csv file"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(tmp_path: Path, name: str, content: str, line: str) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InvalidInput, match=f"{re.escape(str(path))}: .*{re.escape(line)}") as caught:
        read_own_files(path, None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1", "cp1252"])
def test_another_encoding_is_told(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "scores.csv"
    path.write_text("key,x\nä,1\n", encoding=encoding)
    with pytest.raises(InvalidInput, match=r"scores\.csv: it is not UTF-8 text"):
        read_own_files(path, None)


def test_the_type_of_a_column_is_that_of_all_its_rows(tmp_path: Path) -> None:
    """pyarrow guesses it from the first block, of a million bytes."""
    path = tmp_path / "scores.csv"
    rows = [f"{number:09d},{'' if number < 90_000 else number},1,{'x' * (number % 2)}" for number in range(100_000)]
    rows[-1] = "last,2.5,1.5,y"
    path.write_text("\n".join(["key,late,whole,camera", *rows]) + "\n", encoding="utf-8")
    own = read_own_files(path, None)
    assert own.kinds == {"late": "number", "whole": "number", "camera": "name"} and own.scores is not None
    assert own.scores.slice(99_999).to_pylist() == [{"key": "last", "late": 2.5, "whole": 1.5, "camera": "y"}]
    # an empty text is not known, as it is null in Parquet
    assert own.scores.slice(0, 2).column("camera").to_pylist() == [None, "x"]


def test_what_is_odd_of_the_keys_is_told(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text("key,x\na,1\nb,2\nn,nan\nm,\n", encoding="utf-8")
    own = read_own_files(path, None)
    for keys, lines in (
        (["a", "b"], []),
        (["a", "c", "d"], ["2 of 3 rows have no scores, such as 'c'"]),
        (["a", "a", "b"], ["1 row with the key of another row: both have the same scores"]),
        (["a", "m", "n"], ["the column 'x' of --scores has no value for 2 rows with a key there"]),
        (["1.jpg"], ["no row has a key of --scores: they are like 'a', those of rows like '1.jpg'"]),
    ):
        assert own.gaps(pa.table({"key": keys})) == lines


def test_keys_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    path.write_bytes(b"\xff\xfe0")
    with pytest.raises(InvalidInput, match="it is not UTF-8 text"):
        read_own_files(None, path)
