"""What names shards: ranges, globs, lists of patterns, and the roots."""

from __future__ import annotations

import os
from pathlib import Path

import fsspec
import pytest

from strata.cli import arguments
from strata.cli.arguments import shards_of
from strata.errors import InvalidInput
from strata.shards.patterns import find_shards
from strata.shards.ranges import Expansion, TooManyShards, expand
from strata.shards.roots import OutsideRoots, Roots, ShardMissing, SourceError
from tests.service import Service, problem


def test_expand() -> None:
    assert expand("s/{00000..00331}.tar")[::331] == ["s/00000.tar", "s/00331.tar"]
    assert expand("{8..11}") == ["8", "9", "10", "11"]
    assert expand("{08..11}") == ["08", "09", "10", "11"]
    assert expand("{1..010}")[:2] == ["001", "002"]
    assert expand("{a,b}/{0..1}.tar") == ["a/0.tar", "a/1.tar", "b/0.tar", "b/1.tar"]
    assert expand("{x,z,x}.tar") == ["x.tar", "z.tar"]
    assert len(expand("{00000..99999}")) == 100_000


@pytest.mark.parametrize(
    "pattern",
    [
        *("{00..}", "{..3}", "{..}", "{}", "{a}", "{0..3", "0..3}", "{5..2}", "{0...3}", "{a..c}", "{0..9..2}"),
        *("{a,}", "{-1..3}", "", "  ", "{{0..3}}", "{0..100000}", "{0..999}{0..999}", "{1..2" * 50, "{1,2..3}"),
        *("{0..9999999999999999}", "{0..9}" * 1000, "{" * 4000, "{0..9}" * 500),
    ],
)
def test_expand_refuses(pattern: str) -> None:
    with pytest.raises(SourceError) as caught:
        expand(pattern)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_expand_bounds_the_sum() -> None:
    expansion = Expansion()
    assert sum(1 for _ in expansion.names_of("a{0..59999}")) == 60_000
    with pytest.raises(TooManyShards, match="more than"):
        next(expansion.names_of("b{0..59999}"))


# globs and lists of patterns


def test_globs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, other = tmp_path / "root", tmp_path / "other"
    for folder in (root / "a", root / "b", other):
        folder.mkdir(parents=True)
        for name in ("2.tar", "1.tar", "10.tar", "x.txt"):
            (folder / name).touch()
    (root / "a" / "[1].tar").touch()
    (root / "a" / "out.tar").symlink_to(other / "1.tar")
    (root / "c").symlink_to(other)

    def found(*patterns: str) -> list[str]:
        return [str(Path(uri).relative_to(root)) for uri in find_shards(patterns, [str(root)])]

    assert found(f"{root}/a/*.tar") == ["a/1.tar", "a/10.tar", "a/2.tar", "a/[1].tar"]
    assert found(f"{root}/{{b,a}}/?.tar", f"{root}/a/*.tar")[:4] == ["b/1.tar", "b/2.tar", "a/1.tar", "a/2.tar"]
    assert found(f"{root}/*/[12].tar") == ["a/1.tar", "a/2.tar", "b/1.tar", "b/2.tar"]
    assert found(f"file://{root}/b/1*") == ["b/1.tar", "b/10.tar"]
    # there is a file of just that name; a name with a star is always a pattern
    assert found(f"{root}/a/[1].tar") == ["a/[1].tar"]
    for name in ("*.zip", "1.zip", "?.zip"):
        (root / "b" / name).touch()
    assert found(f"{root}/b/?.zip") == ["b/?.zip"] and found(f"{root}/b/*.zip") == ["b/*.zip", "b/1.zip", "b/?.zip"]
    monkeypatch.chdir(root)
    assert found("b/?.tar", "./b/1.tar") == ["b/1.tar", "b/2.tar"]
    with pytest.raises(ShardMissing, match="matches nothing"):
        found(f"{root}/*.tar")
    for refused in (f"{other}/*.tar", "/*", f"{root}/../*/1.tar", f"{tmp_path}/*/1.tar", f"{root}/c/*.tar", "s3://b/*"):
        with pytest.raises(OutsideRoots):
            found(refused)
    for refused in (f"{root}/**/*.tar", f"{root}/*/../a/*.tar", "https://example.org/*.tar"):
        with pytest.raises(SourceError, match=r"not allowed|write a range"):
            find_shards([refused], [str(root), "https://example.org"])


def test_globs_pass_over_hidden_names(tmp_path: Path) -> None:
    """As a shell does, in each folder of the pattern; a pattern or a name that begins with a dot finds them."""
    names = ("0.tar", "._0.tar", ".x.jpg", "a/1.tar", ".git/1.tar", "__MACOSX/1.tar", "a/._1.tar", "a/.b/1.tar")
    memory = fsspec.filesystem("memory")
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
        memory.pipe_file(f"/hidden/{name}", b"1")
    for top in (str(tmp_path), "memory://hidden"):
        for pattern, found in (
            ("*.tar", ["0.tar"]),
            ("*/*.tar", ["a/1.tar"]),
            ("*/", ["a/"]),
            ("._*.tar", ["._0.tar"]),
            (".*/1.tar", [".git/1.tar"]),
            ("*/._*", ["a/._1.tar"]),
            ("a/.b/*", ["a/.b/1.tar"]),
            ("__MACOSX/*", ["__MACOSX/1.tar"]),
            (".x.jpg", [".x.jpg"]),
        ):
            assert find_shards([f"{top}/{pattern}"], [top]) == [f"{top}/{name}".rstrip("/") for name in found], pattern
        with pytest.raises(ShardMissing, match="matches nothing"):
            find_shards([f"{top}/*.jpg"], [top])
    with pytest.raises(ShardMissing, match="matches nothing"):
        find_shards([f"{tmp_path}/[._]*.jpg"], [str(tmp_path)])


def test_globs_elsewhere() -> None:
    memory = fsspec.filesystem("memory")
    for name in ("b", "a"):
        memory.pipe_file(f"/bucket/set/{name}.tar", b"1")
    roots = ["memory://bucket/set", "https://example.org/sets"]
    assert find_shards(["memory://bucket/set/*.tar"], roots) == [f"memory://bucket/set/{n}.tar" for n in "ab"]
    for refused in ("memory://bucket/*", "memory://bucket/s*/a.tar"):
        with pytest.raises(OutsideRoots):
            find_shards([refused], roots)
    signed = "https://example.org/sets/a.tar?sig=[*]"
    assert find_shards([signed], roots) == [signed]
    with pytest.raises(SourceError, match="cannot be listed: ValueError"):
        find_shards(["nothing://bucket/*"], ["nothing://bucket"])


def test_lists_of_patterns(tmp_path: Path) -> None:
    for name in ("0.tar", "1.tar", "x1.tar"):
        (tmp_path / name).touch()
    listed, roots = tmp_path / "list.txt", [str(tmp_path)]
    listed.write_text(f"\ufeff# shards\n\n {{0..1}}.tar \n{tmp_path}/x*.tar\r\n0.tar")
    assert find_shards([f"@{listed}"], roots) == [f"{tmp_path}/{name}.tar" for name in ("0", "1", "x1")]
    for text, words in ((b"@list.txt", "another list"), (b"\xff", "is not text"), (b"{0..", "braces")):
        listed.write_bytes(text)
        with pytest.raises(SourceError, match=words):
            find_shards([f"@{listed}"], roots)
    with pytest.raises(OutsideRoots):
        find_shards(["@/etc/hostname"], roots)
    with pytest.raises(ShardMissing, match="no such list"):
        find_shards([f"@{listed}.none"], roots)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(SourceError, match="is not a file"):
        find_shards([f"@{tmp_path}/fifo"], roots)


def test_a_shard_named_twice_is_one(tmp_path: Path) -> None:
    (tmp_path / "0.tar").touch()
    names = [f"{tmp_path}/0.tar", f"{tmp_path}/./{{0,0}}.tar", f"file://{tmp_path}/0.tar", f"{tmp_path}/*.tar"]
    assert find_shards(names, [str(tmp_path)]) == [f"{tmp_path}/0.tar"]


def test_globs_through_the_service(idle_service: Service) -> None:
    inside = Path(idle_service.settings.shard_roots[0])
    (inside / "glob").mkdir()
    (inside / "glob" / "0.tar").touch()
    (inside / "glob" / "list.txt").write_text("*.tar\n")
    for name in ("*.tar", "?.tar"):
        assert idle_service.submit(f"{inside}/glob/{name}").status_code == 202
    assert idle_service.submit(f"@{inside}/glob/list.txt").status_code == 202
    problem(idle_service.submit(f"{inside}/glob/*.zip"), 422, "shard-not-found")
    problem(idle_service.submit(f"@{inside}/none.txt"), 422, "shard-not-found")
    problem(idle_service.submit(f"{inside}/../*"), 422, "shard-outside-roots")
    problem(idle_service.submit(f"{inside}/**"), 422, "invalid-shards")


def test_arguments_with_globs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    names = ["a/*/x.tar", "*.tar", "a/{0..1}/x.tar", "none/*.tar", "/data/*.tar", "s3://b/*.tar"]
    here = [f"{tmp_path}/{name}" for name in names[:3]]
    assert list(shards_of(names)) == [*here, *names[3:]]


def test_a_list_on_the_command_line_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "list.txt").write_text("a\n" * 1000)
    monkeypatch.setattr(arguments, "MAX_LIST", 2000)
    assert len(list(shards_of([f"@{tmp_path}/list.txt"]))) == 1000
    monkeypatch.setattr(arguments, "MAX_LIST", 1999)
    with pytest.raises(InvalidInput, match="a list of more than 1,999 characters"):
        list(shards_of([f"@{tmp_path}/list.txt"]))


# roots


def test_local_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, other = tmp_path / "root", tmp_path / "root-other"
    root.mkdir()
    other.mkdir()
    (root / "link").symlink_to(other)
    (tmp_path / "alias").symlink_to(root)
    roots = [str(tmp_path / "alias"), "s3://bucket/data"]
    inside = str(root / "a.tar")
    assert Roots(roots).check(inside) == inside
    assert Roots(roots).check(f"file://{root}/b/../a.tar") == inside
    assert Roots(roots).check(str(root)) == str(root)
    monkeypatch.chdir(root)
    assert Roots(roots).check("a.tar") == inside
    outside = [f"{root}/../x.tar", f"{other}/x.tar", f"{root}/link/x.tar", f"file://{root}/%2e%2e/x.tar"]
    for uri in [*outside, "/etc/passwd", "../x", "memory://x"]:
        with pytest.raises(OutsideRoots):
            Roots(roots).check(uri)
    assert Roots(["/"]).check(inside) == inside
    with pytest.raises(OutsideRoots):
        Roots([]).check(inside)


def test_remote_roots() -> None:
    roots = ["s3://bucket/data/", "https://Example.org/sets", "gs://whole"]
    assert Roots(roots).check("s3://bucket/data//a/./b.tar") == "s3://bucket/data//a/./b.tar"
    assert Roots(roots).check("https://example.org/sets//a/./b.tar") == "https://example.org/sets/a/b.tar"
    assert Roots(roots).check("HTTPS://EXAMPLE.org/sets/A.tar?sig=1#x") == "https://example.org/sets/A.tar?sig=1"
    assert Roots(roots).check("gs://whole/x.tar") == "gs://whole/x.tar"
    for uri in (
        "s3://bucket/database/x",
        "s3://bucket",
        "https://example.org.evil.com/sets/x",
        "gs://wholesome/x",
        "http://example.org/sets/x",
        "https://example.org:8080/sets/x",
        "https://example.org/Sets/x",
    ):
        with pytest.raises(OutsideRoots):
            Roots(roots).check(uri)


@pytest.mark.parametrize(
    "uri",
    [
        *("s3://bucket/data/../x", "s3://bucket/data/%2e%2E/x", "s3://bucket/data/%252e%252e/x", "s3:///x"),
        *("https://a@example.org/sets/x", "zip://x::file:///etc/passwd", "simplecache::s3://bucket/data/x", "a\nb"),
        *("s3://bucket/data/x?versionId=1", "file://host/x", "https://[broken/x", "s3://bucket/data/..\\x"),
        *("", "a\0b"),
    ],
)
def test_unreadable_uris(uri: str) -> None:
    with pytest.raises(SourceError):
        Roots(["s3://bucket/data", "https://example.org/sets"]).check(uri)
