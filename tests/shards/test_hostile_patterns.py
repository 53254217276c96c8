"""Patterns that cost too much, or lead out of the roots: each is refused, at once and in one line."""

from __future__ import annotations

import asyncio
import fnmatch
import glob
import itertools
import math
import os
import re
import tempfile
import threading
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.jobs import shard_finder
from app.jobs.shard_finder import ShardFinder
from app.problems import ProblemError
from bench.hostile.crafted_shards import hostile_patterns
from strata.shards import globs
from strata.shards.globs import Glob
from strata.shards.patterns import find_shards
from strata.shards.ranges import Expansion, TooManyShards
from strata.shards.roots import OutsideRoots, ShardMissing, SourceError
from tests.service import Service, problem
from tests.shards.bounded import bounded


@given(st.text("ab*?[]!-^\\.&|~é", max_size=12), st.text("ab]-!^.é\n&|~[", max_size=8))
@example("[]-a]", "^")
@example("[!z-a]", "b")
@example("[z-ab-c]", "b")
@example("a*b*c", "abbc")
def test_a_glob_means_what_fnmatch_means(glob: str, name: str) -> None:
    assert Glob(glob).matches(name) == fnmatch.fnmatchcase(name, glob)


@given(st.text("ab*?[]", max_size=12), st.text("ab?[]", max_size=8))
def test_only_the_star_is_special_in_a_bucket(glob: str, name: str) -> None:
    pattern = ".*".join(re.escape(part) for part in glob.split("*"))
    assert Glob(glob, only_star=True).matches(name) == bool(re.fullmatch(pattern, name))


NAMES = st.sampled_from(["a", "b", "ab", ".a", "a[b]", "[a]", "-", "ba.tar", "a*", "b?", "__MACOSX"])


@settings(max_examples=60)
@given(
    st.lists(st.tuples(NAMES, NAMES, NAMES), max_size=8),
    st.lists(st.text("ab*?[]!.", min_size=1, max_size=4).filter(lambda text: "**" not in text), min_size=1, max_size=3),
)
def test_a_listing_finds_what_glob_finds(files: list[tuple[str, str, str]], segments: list[str]) -> None:
    pattern = "/".join(segments)
    if not re.search(r"[*?[]", pattern) or {".", ".."} & set(segments):
        return
    with tempfile.TemporaryDirectory() as folder:
        for first, second, third in files:
            (Path(folder) / first / second).mkdir(parents=True, exist_ok=True)
            (Path(folder) / first / second / f"{third}.x").touch()
        # pathlib's has no root_dir
        expected = glob.glob(pattern, root_dir=folder)  # noqa: PTH207
        # Python's glob knows dots alone
        expected = [name for name in expected if "__MACOSX" not in name]
        # a star is one in each name
        if "*" not in pattern and (Path(folder) / pattern).exists():
            expected = [pattern]
        try:
            found = find_shards([f"{folder}/{pattern}"], [folder])
        except ShardMissing:
            found = []
        assert found == sorted(f"{folder}/{name}" for name in expected)


NUMBERS = st.text("0123456789", min_size=1, max_size=4)


@given(st.lists(st.one_of(st.tuples(NUMBERS, NUMBERS), st.lists(st.text("xy", min_size=1), min_size=2)), max_size=3))
def test_a_range_has_exactly_its_numbers(pieces: list[tuple[str, str] | list[str]]) -> None:
    texts, pattern = [], "s"
    for piece in pieces:
        if isinstance(piece, list):
            texts.append(piece)
            pattern += "{" + ",".join(piece) + "}"
            continue
        low, high = piece
        width = max(len(low), len(high)) if re.match("0.", low) or re.match("0.", high) else 1
        texts.append([str(number).zfill(width) for number in range(int(low), int(high) + 1)])
        pattern += f"{{{low}..{high}}}"
    count = math.prod(map(len, texts))
    expansion = Expansion()
    if not 0 < count <= 100_000:
        with pytest.raises(SourceError, match=r"backwards|more than"):
            next(expansion.names_of(pattern))
        return
    names = list(expansion.names_of(pattern))
    assert len(names) == expansion.names == count
    assert expansion.characters >= sum(map(len, names))
    if count < 2000:
        assert names == ["s" + "".join(parts) for parts in itertools.product(*texts)]


@given(st.text("{}.,0123456789-+_ a²٣१", max_size=30))
def test_any_braces_give_names_or_one_line(pattern: str) -> None:
    try:
        names = list(itertools.islice(Expansion().names_of(pattern), 10))
    except SourceError as error:
        assert "\n" not in str(error)
    else:
        assert names and not any(set("{}") & set(name) for name in names)


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("{9..1}", "runs backwards"),
        ("{-3..3}", "neither a range nor a list"),
        ("{1..9..2}", "neither a range nor a list"),
        ("{٠..٩}", "neither a range nor a list"),
        (f"{{0..{'9' * 16}}}", "more than 15 digits"),
        ("{0..100000}", "more than 100,000 shards"),
        ("{0..99999}" * 372, "more than 100,000 shards"),
        ("x" * 4000 + "{0..9999}", "more than 16,777,216 characters"),
        ("x" * 4097, "longer than 4,096"),
    ],
)
def test_what_a_range_may_not_be(pattern: str, words: str) -> None:
    with pytest.raises(SourceError, match=words):
        next(Expansion().names_of(pattern))


def test_hostile_patterns_are_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for i in range(20):
        (tmp_path / "a" / ("a" * 200 + str(i))).touch()
    (tmp_path / "list.txt").write_text("\n".join(f"{i:06d}.tar" for i in range(30_000)))
    (tmp_path / "lists").mkdir()
    for i in range(200):
        (tmp_path / "lists" / f"{i}.txt").write_text("#")
    outcomes = bounded(200, 60, hostile_patterns, str(tmp_path))
    words = {name: text for name, (text, _) in outcomes.items()}
    assert all("matches nothing" in words[name] for name in ("stars", "many stars", "classes"))
    assert words["product"].startswith("TooManyShards") and words["long names"].startswith("TooManyShards")
    assert words["lists"].startswith("TooManyShards") and "more than 32 folders" in words["deep"]
    assert words["dots"].startswith("OutsideRoots")
    assert words["the same list"].startswith("ShardMissing: line 1 of @") and "29,999 more" in words["the same list"]
    assert words["many patterns"].startswith("ShardMissing") and "9,999 more" in words["many patterns"]
    assert max(seconds for _, seconds in outcomes.values()) < 20, outcomes


def test_listing_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(30):
        (tmp_path / f"{i}.tar").touch()
    (tmp_path / "loop").symlink_to(tmp_path)
    glob, roots = f"{tmp_path}/*", [str(tmp_path)]
    # a link to its own folder is followed as often as the glob has folders
    assert find_shards([f"{tmp_path}/loop/loop/*.tar"], roots) == find_shards([f"{tmp_path}/*.tar"], roots)
    monkeypatch.setattr(globs, "MAX_ENTRIES", 100)
    assert len(find_shards([glob] * 3, roots)) == 31
    with pytest.raises(TooManyShards, match="more than 100 files and folders"):
        find_shards([glob] * 4, roots)
    with pytest.raises(TooManyShards, match="more than 100 files and folders"):
        find_shards([f"{tmp_path}{'/*' * 32}"], roots)
    monkeypatch.setattr(globs, "MAX_SECONDS", -1.0)
    with pytest.raises(TooManyShards, match="takes longer"):
        find_shards([f"{tmp_path}/0.tar"], roots)


def test_a_glob_does_not_list_outside_of_the_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, other = tmp_path / "root", tmp_path / "root-other"
    for folder in (root, other):
        folder.mkdir()
    (other / "1.tar").touch()
    (root / "link").symlink_to(other)
    listed: list[str] = []
    scan = os.scandir

    def noted(path: str) -> Any:
        listed.append(path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", noted)
    with pytest.raises(ShardMissing, match="matches nothing"):
        find_shards([f"{root}/*/*.tar"], [str(root)])
    assert listed == [str(root)]


@pytest.mark.parametrize("name", ["a\nb.jpg", "a::b.jpg", "a\udcff.jpg", "\x1b[31m.jpg"])
def test_a_file_that_cannot_be_a_shard_is_named(name: str, tmp_path: Path) -> None:
    """The message of a glob names the one file of its matches, in one line that can be printed."""
    for good in ("0.jpg", "1.jpg"):
        (tmp_path / good).touch()
    (tmp_path / name).touch()
    for link in (False, True):
        if link:
            (tmp_path / name).unlink()
            (tmp_path / name).symlink_to("0.jpg")
        with pytest.raises(SourceError) as caught:
            find_shards([f"{tmp_path}/*.jpg"], [str(tmp_path)])
        message = str(caught.value)
        assert ascii(name) in message and message.isprintable()
    (tmp_path / name).rename(tmp_path / "2.jpg")
    assert len(find_shards([f"{tmp_path}/*.jpg"], [str(tmp_path)])) == 3


SECRETS = ["DB_PASSWORD=hunter2", "/etc/hunter2", "s3://hunter2/x", "memory://b/hunter2", "{hunter2", "@hunter2"]
SECRETS += ["hunter2/*", "https://hunter2/*", "~hunter2", "x" * 5000 + "hunter2", "zip://hunter2::x", "*/../hunter2"]
SECRETS += ["https://hunter2:a@b/"]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("place", ["folder", "bucket"])
def test_errors_quote_no_line_of_a_list(secret: str, place: str, tmp_path: Path) -> None:
    if place == "folder":
        (tmp_path / "any.txt").write_text(f"# {secret}\n\n{secret}\n")
        listed, roots = f"@{tmp_path}/any.txt", [str(tmp_path)]
    else:
        fsspec.filesystem("memory").pipe_file("/b/any.txt", f"# {secret}\n\n{secret}\n".encode())
        listed, roots = "@memory://b/any.txt", ["memory://b"]
    with pytest.raises(SourceError, match=r"^line 3 of @") as caught:
        find_shards([listed], roots)
    assert "hunter2" not in f"{caught.value} {getattr(caught.value, 'places', '')}"


def test_the_service_quotes_no_line_of_a_list(idle_service: Service) -> None:
    inside = Path(idle_service.settings.shard_roots[0])
    (inside / "any.txt").write_text("DB_PASSWORD=hunter2\n" * 3)
    answer = idle_service.submit(f"@{inside}/any.txt")
    found = problem(answer, 422, "shard-not-found")
    assert "hunter2" not in answer.text
    assert found["errors"][0]["location"] == [f"line 1 of @{inside}/any.txt"]


@pytest.mark.parametrize("spelling", ["{root}/../database/x", "{root}base/x", "{root}/link/x", "{root}/%2e%2e/x"])
@pytest.mark.parametrize("prefix", ["", "file://", "FILE://", "//", "file:////", "/./"])
def test_no_spelling_leads_out_of_a_root(spelling: str, prefix: str, tmp_path: Path) -> None:
    root, other = tmp_path / "data", tmp_path / "database"
    for folder in (root, other):
        folder.mkdir()
    (other / "x").touch()
    (root / "link").symlink_to(other)
    path = spelling.format(root=root)
    uri = prefix.rstrip("/") + "/" * prefix.count("/") + path if "://" in prefix else prefix + path
    for text in (uri, f"@{uri}", uri + "*"):
        with pytest.raises(SourceError) as caught:
            find_shards([text], [str(root)])
        # a path may also be one that does not exist below the root
        assert isinstance(caught.value, OutsideRoots | ShardMissing)
    assert find_shards([str(root), f"/{root}", f"FILE://{root}/."], [str(root)]) == [str(root)]


@pytest.mark.parametrize(
    "uri", ["~/x", "$HOME/x", "a\0b", "\x1b[31m", "file://localhost/etc/x", "x" * 5000, "/" * 5000]
)
def test_paths_that_are_none(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError) as caught:
        find_shards([uri], [str(tmp_path)])
    assert str(caught.value).isprintable()


def test_limits_are_problems(idle_service: Service) -> None:
    answer = problem(idle_service.submit("{0..99999}" * 372), 413, "too-many-shards")
    assert "more than 100,000 shards" in answer["detail"]
    problem(idle_service.submit("{0..9}" * 700), 422, "invalid-shards")
    inside = idle_service.settings.shard_roots[0]
    for metadata in ({"x" * 65: "1"}, {"x": "1" * 513}, {str(i): "" for i in range(17)}):
        problem(idle_service.submit(f"{inside}/x.tar", metadata=metadata), 422, "invalid-request")


def test_few_submissions_are_expanded_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    most = shard_finder.AT_ONCE + shard_finder.MAX_WAITING
    began, go_on = threading.Semaphore(0), threading.Event()

    def slow(patterns: list[str], roots: list[str]) -> list[str]:
        began.release()
        assert go_on.wait(60)
        return patterns

    async def submit(finder: ShardFinder, name: str) -> list[str]:
        async with finder.turn():
            return await finder.find([name])

    async def submissions() -> list[Any]:
        finder = ShardFinder([])
        waiting = [asyncio.create_task(submit(finder, str(i))) for i in range(most)]
        # those that have their turn are in threads, so the event loop goes on
        for _ in range(shard_finder.AT_ONCE):
            await asyncio.to_thread(began.acquire)
        while finder.waiting < shard_finder.MAX_WAITING:
            await asyncio.sleep(0)
        with pytest.raises(ProblemError, match="wait for their turn"):
            await submit(finder, "one more")
        go_on.set()
        return await asyncio.gather(*waiting)

    monkeypatch.setattr(shard_finder, "find_shards", slow)
    assert len(asyncio.run(submissions())) == most
