"""What a shard is: judged by the name as given, and by its first bytes where the name says nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strata.shards.image_reader import read_images
from strata.shards.kinds import EXTENSIONS, IMAGE_EXTENSIONS, is_hidden, kind_by_name
from strata.shards.patterns import find_shards
from strata.shards.roots import OutsideRoots
from strata.shards.sources import index_shard
from strata.store import file_folder, file_name
from tests.fakes import jpeg
from tests.shards.test_captions import folder_of, tar_of

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/"), min_size=1, max_size=20)


@given(NAMES, st.sampled_from(sorted(EXTENSIONS)), st.booleans(), st.text("abc&=?%.parquet", max_size=20))
def test_the_extension_tells_in_any_case_and_a_query_does_not(stem: str, ext: str, upper: bool, query: str) -> None:
    name = f"{stem}.{ext.upper() if upper else ext}"
    assert kind_by_name(f"/data/{name}") == kind_by_name(f"s3://bucket/{name}") == EXTENSIONS[ext]
    # of a local file a question mark is a character of its name
    assert (file_name(f"/a?b/{name}"), file_folder(f"/a?b/{name}")) == (name, "/a?b")
    address = f"https://host/set/{name.replace('?', '')}?{query}"
    assert kind_by_name(address) == EXTENSIONS[ext] and file_folder(address) == "https://host/set"


@given(st.lists(NAMES, min_size=1, max_size=4))
def test_hidden_is_what_has_a_segment_with_a_dot_first(segments: list[str]) -> None:
    names = [part for segment in segments for part in segment.split("\\")]
    hidden = any(name == "__MACOSX" or (name[:1] == "." and name not in (".", "..")) for name in names)
    assert is_hidden("/".join(segments)) == hidden


def test_a_link_is_what_its_name_says_and_lists_lie_where_it_is(tmp_path: Path) -> None:
    """As in the cache of a model hub: snapshots/REVISION/list.jsonl is a link to blobs/SHA."""
    root = tmp_path / "cache"
    folder_of(root / "snapshots" / "1", {"a.jpg": b"image", "sub/b.jpg": b"other"})
    folder_of(root / "blobs", {"c0ffee": json.dumps({"image": "a.jpg", "text": "an a"}).encode()})
    link = root / "snapshots" / "1" / "list.jsonl"
    link.symlink_to("../../blobs/c0ffee")
    (root / "snapshots" / "1" / "folder").symlink_to("sub")
    (root / "snapshots" / "1" / "c.jpg").symlink_to("../../../outside.jpg")
    (tmp_path / "outside.jpg").write_bytes(b"secret")
    for pattern in (str(link), str(root / "snapshots" / "*" / "*.jsonl"), f"file://{link}"):
        assert find_shards([pattern], [str(root)]) == [str(link)]
    (row,) = index_shard(str(link), [str(root)]).rows
    assert row.alt_text == "an a" and read_images([row]) == [b"image"]
    # images that are links themselves keep the names that the list gives
    (root / "blobs" / "77").write_bytes(b"image")
    (link.parent / "img").mkdir()
    (link.parent / "img" / "one 1.x.jpg").symlink_to("../../../blobs/77")
    paths = ["img/one 1.x.jpg", f"{link.parent}/img/one 1.x.jpg", f"file://{link.parent}/img/one%201.x.jpg"]
    named = root / "named.jsonl"
    named.write_text("".join(f'{{"file_name": "{path}"}}\n' for path in (f"snapshots/1/{paths[0]}", *paths[1:])))
    rows = index_shard(str(named), [str(root)]).rows
    assert [row.key for row in rows] == ["one 1", "one 1-2", "one 1-3"] and read_images(rows) == [b"image"] * 3
    # folders have one name, and what a link leads to lies under the roots
    assert find_shards([f"{link.parent}/folder"], [str(root)]) == [f"{link.parent}/sub"]
    with pytest.raises(OutsideRoots):
        find_shards([f"{link.parent}/c.jpg"], [str(root)])
    with pytest.raises(OutsideRoots):
        find_shards([str(link)], [str(link.parent)])
    assert find_shards([f"{link.parent}/*.jpg"], [str(root)]) == [f"{link.parent}/a.jpg"]


def test_images_are_shards(tmp_path: Path) -> None:
    files = {f"{number}.{extension}": b"image" for number, extension in enumerate(sorted(IMAGE_EXTENSIONS))}
    folder = folder_of(
        tmp_path / "f", files | {"0.txt": b"text", "1.JPG": b"upper", "1.TXT": b"TEXT", "empty.jpg": b""}
    )
    uris = find_shards([f"{folder}/*[!tT]"], [folder])
    assert len(uris) == len(files) + 2
    indexes = {Path(uri).name: index_shard(uri) for uri in uris}
    rows = [index.rows[0] for index in indexes.values()]
    assert all(index.failure is None and index.table.num_rows == 1 for index in indexes.values())
    assert read_images([row for row in rows if not row.error]) == [b"image", b"upper", *[b"image"] * (len(files) - 1)]
    first, upper = indexes["0.avif"].rows[0], indexes["1.JPG"].rows[0]
    assert (first.key, first.uri, first.offset, first.alt_text) == ("0", f"{folder}/0.avif", 0, "text")
    assert (upper.key, upper.alt_text) == ("1", "TEXT")
    assert "an empty file" in str(indexes["empty.jpg"].rows[0].error)
    # the text may change without the image: the shard is looked at again, and is another one then
    before = index_shard(f"{folder}/0.avif")
    assert before.stamp is None and before.identity == indexes["0.avif"].identity
    (tmp_path / "f" / "0.txt").write_bytes(b"another")
    assert index_shard(f"{folder}/0.avif").identity != before.identity


def test_content_tells_where_the_name_does_not(tmp_path: Path) -> None:
    tar = Path(tar_of(tmp_path / "blob1", {"a.jpg": b"1"}))
    folder_of(tmp_path, {"blob2": jpeg(), "blob3": b"PAR1 and no more", "blob.4": b"no tar"})
    assert read_images(index_shard(str(tar)).rows) == [b"1"]
    assert read_images(index_shard(str(tmp_path / "blob2")).rows) == [jpeg()]
    assert "not a Parquet file" in str(index_shard(str(tmp_path / "blob3")).failure)
    assert index_shard(str(tmp_path / "blob.4")).failure == "not a tar"
