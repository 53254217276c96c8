"""Boxes of AVIF and HEIC files: when metadata are overwritten, no byte of another box changes."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strata.images.boxes import boxes, without_metadata_boxes

FTYP = struct.pack(">I4s4sI", 16, b"ftyp", b"avis", 0)


def box(name: bytes, body: bytes, large: bool = False) -> bytes:
    """large: with a size of 64 bits."""
    if large:
        return struct.pack(">I4sQ", 1, name, 16 + len(body)) + body
    return struct.pack(">I4s", 8 + len(body), name) + body


@pytest.mark.parametrize("large", [False, True])
def test_the_box_before_a_removed_one_stays(large: bool) -> None:
    """The only place of a chunk, before `udta`, looks like the beginning of a header with 64 bits."""
    table = box(b"stco", struct.pack(">III", 0, 1, 0x1234))
    movie = box(b"stbl", table + box(b"udta", b"a text", large))
    expected = box(b"stbl", table + box(b"free", bytes(6), large))
    assert without_metadata_boxes(FTYP + box(b"moov", movie)) == FTYP + box(b"moov", expected)


BOXES = st.tuples(
    st.sampled_from([b"stco", b"stsz", b"mdhd", b"udta", b"uuid", b"free", b"meta"]),
    st.lists(st.sampled_from([b"\0\0\0\1", b"\0\0\0\0", b"stco", b"udta", b"\xff"]), max_size=6).map(b"".join),
    st.booleans(),
)


@given(parts=st.lists(BOXES, max_size=6))
def test_only_bytes_of_removed_boxes_change(parts: list[tuple[bytes, bytes, bool]]) -> None:
    gone = (b"udta", b"uuid", b"free", b"meta")
    before = b"".join(box(*part) for part in parts)
    after = b"".join(
        box(b"free", bytes(len(body)), large) if name in gone else box(name, body, large) for name, body, large in parts
    )
    assert without_metadata_boxes(FTYP + box(b"moov", before)) == FTYP + box(b"moov", after)


@given(parts=st.lists(BOXES, max_size=6))
def test_boxes_tell_where_their_headers_are(parts: list[tuple[bytes, bytes, bool]]) -> None:
    data = b"".join(box(*part) for part in parts)
    found = [(one.name, data[one.start : one.end], one.start - one.header == 16) for one in boxes(data, 0, len(data))]
    assert found == parts


def test_an_item_that_is_cut_off_changes_no_other_box() -> None:
    item = box(b"infe", b"\2\0\0\0" + struct.pack(">H", 1))
    meta = box(b"meta", bytes(4) + box(b"iinf", bytes(4) + struct.pack(">H", 1) + item) + box(b"pitm", bytes(6)))
    with pytest.raises(IndexError, match="an item is cut off"):
        without_metadata_boxes(FTYP + meta)
