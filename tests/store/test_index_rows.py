"""The identity of a shard stays the one that existing parts are named by; rows of earlier versions are read."""

from __future__ import annotations

import hashlib
import json

from hypothesis import given, settings
from hypothesis import strategies as st

from strata.store.index_rows import IndexRow, identity_of, index_table, located_rows

texts = st.text(st.characters(exclude_categories=["Cs"]))
rows = st.builds(
    IndexRow,
    key=texts,
    uri=texts,
    offset=st.integers(0, 2**62),
    size=st.integers(-(2**62), 2**62),
    alt_text=st.none() | texts,
    error=st.none() | texts,
    stamp=st.none() | texts,
    note=st.none() | texts,
)


@settings(max_examples=50)
@given(st.lists(rows, max_size=5), st.integers(0, 2**40))
def test_the_identity_is_a_hash_of_each_row_as_json_without_its_note(found: list[IndexRow], size: int) -> None:
    digest = hashlib.sha256(str(size).encode())
    for row in found:
        digest.update(json.dumps(row[:-1]).encode())
    assert identity_of(size, index_table(found)) == digest.hexdigest()[:16]


@settings(max_examples=50)
@given(st.lists(rows, max_size=5))
def test_rows_are_read_as_they_were_written(found: list[IndexRow]) -> None:
    own = [row._replace(uri="./a.jpg") for row in found]
    assert located_rows(index_table(own), "/s") == [row._replace(uri="/s/a.jpg") for row in found]
    # an earlier version had neither stamps nor notes
    earlier = index_table(own).drop_columns(["stamp", "note"])
    assert located_rows(earlier, "/s") == [row._replace(uri="/s/a.jpg", stamp=None, note=None) for row in found]
