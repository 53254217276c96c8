"""A search equals a plain filter over the records; its pages give each row once; the index follows the store."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from strata.core.chunks import Chunk
from strata.core.claims import CheckedSentence, Verification
from strata.core.layers import Caption, Description, Mask, ObjectMask, Region, Tag, TextLine, head_of
from strata.core.records import ImageReference, Record, Status, table_to_records
from strata.core.schemas import Facets
from strata.search import BadSearchCursor, Query, Scope, Search, SearchIndex, facets, postings
from strata.search.pages import Position
from strata.snapshots import Selection, Snapshots
from strata.store import Source, last_attempts
from strata.store.part_paths import Part
from strata.store.store import Store
from tests.described import FINGERPRINT, described, write_part

KEPT = Path(__file__).parents[1] / "data_files" / "store-schema-2" / "store"
TEXTS = ("A red Car.", "two cars, one DOG", "Straße mit Café", "東京の車", "", "100% «wow»", "dog's dog", "naïve ﬁre")
PHRASES = ("a red car", "the dog on a road", "a café", None)
REASONS = ("low_match", "contradicted", "duplicate")


# records, and what a plain filter says of them


@st.composite
def records(draw: st.DrawFn, key: str) -> Record:
    texts = st.sampled_from(TEXTS)
    phrases = st.sampled_from(PHRASES)
    match = st.sampled_from([None, 0.0, 0.25, 0.5, 1.0])

    def evidence() -> dict[str, Any]:
        kept = draw(st.booleans())
        return {"kept": kept, "match": draw(match), "reason": None if kept else draw(st.sampled_from(REASONS))}

    made = Record(
        key=key,
        image=ImageReference(uri="a.tar", offset=512, size=9),
        width=draw(st.sampled_from([None, 64])),
        height=48,
        alt_text=draw(st.none() | texts),
        caption=draw(st.none() | st.builds(lambda text: Caption(text=text, **evidence()), texts)),
        regions=draw(
            st.none()
            | st.lists(st.builds(lambda p: Region(box=(0, 0, 9, 9), phrase=p or "", **evidence()), phrases), max_size=2)
        ),
        objects=draw(st.none() | st.lists(st.builds(lambda p: _mask(p, evidence()), phrases), max_size=3)),
        text=draw(
            st.none()
            | st.lists(st.builds(lambda t: TextLine(box=(0, 0, 9, 9), text=t, **evidence()), texts), max_size=2)
        ),
        tags=draw(st.none() | st.lists(st.builds(lambda t: Tag(word=t, **evidence()), texts), max_size=2)),
        description=draw(st.none() | st.builds(lambda text: Description(text=text, sentences=[]), texts)),
        verification=draw(
            st.none() | st.just(_verification(draw(st.sampled_from([None, "wrong_count", "low_match"]))))
        ),
    )
    status = draw(st.sampled_from(list(Status)))
    if status is Status.FAILED:
        return made.failed("captioner", "truncated", "it is cut off")
    return made.filtered("min_side", "too small") if status is Status.FILTERED else made


def _mask(phrase: str | None, evidence: dict[str, Any]) -> ObjectMask:
    return ObjectMask(box=(0, 0, 9, 9), mask=Mask(size=(9, 9), counts="0"), area=9, phrase=phrase, **evidence)


def _verification(reason: Any) -> Verification:
    return Verification(text="x", sentences=[CheckedSentence(text="x", kept=None if reason else "x", reason=reason)])


def bare(text: str) -> str:
    """A text without accents, character by character."""
    kept = (one for one in unicodedata.normalize("NFD", text) if not "\u0300" <= one <= "\u036f")
    return unicodedata.normalize("NFC", "".join(kept))


def words(text: str) -> set[str]:
    """An independent cutting into words, character by character."""
    apart = ("CJK", "HIRAGANA", "KATAKANA", "THAI")
    spaced = ""
    for one in bare(unicodedata.normalize("NFKC", text).lower()):
        letter = unicodedata.category(one)[0] in "LNM"
        alone = unicodedata.name(one, "").startswith(apart)
        spaced += f" {one} " if letter and alone else one if letter else " "
    return set(spaced.split())


def plain(label: str) -> str:
    """A tag as it is compared; none of TEXTS ends with a plural."""
    return bare(unicodedata.normalize("NFKC", label).lower())


def facts(record: Record) -> dict[str, Any]:
    """What the search knows of a record, computed row by row."""
    layers = {
        "caption": [record.caption] if record.caption else [],
        **{name: list(getattr(record, name) or ()) for name in ("regions", "objects", "text", "tags")},
    }
    field = {"caption": "text", "regions": "phrase", "objects": "phrase", "text": "text", "tags": "word"}
    kept = {name: [one for one in entries if one.kept] for name, entries in layers.items()}
    texts = [getattr(one, field[name]) or "" for name, entries in kept.items() for one in entries]
    texts += [record.alt_text or "", record.description.text if record.description else ""]
    things = [one.phrase for name in ("regions", "objects") for one in kept[name] if one.phrase]
    matches = [one.match for name in ("caption", "regions", "objects") for one in kept[name] if one.match is not None]
    sentences = record.verification.sentences if record.verification else []
    return {
        "words": set().union(*map(words, texts)),
        "length": len(record.description.text.split()) if record.description else 0,
        "has_text": bool(kept["text"]),
        "score": sum(matches) / len(matches) if matches else None,
        "thing": {bare(head_of(phrase)) for phrase in things},
        "tag": {plain(one.word) for one in kept["tags"] if one.word},
        "dropped": {one.reason for entries in layers.values() for one in entries if not one.kept},
        "cut": {one.reason for one in sentences if one.reason},
        "failure": {record.failure.error_type} if record.failure else set(),
    }


def passes(record: Record, query: Query) -> bool:
    """Whether a record has all that a query asks for."""
    found = facts(record)
    for token in query.text.split():
        wanted = words(token)
        minus = len(token) > 1 and token.startswith("-")
        if wanted & found["words"] if minus else not wanted <= found["words"]:
            return False
    labels = ("thing", "tag", "dropped", "cut", "failure")
    score, length = found["score"], found["length"]
    return (
        (not query.status or record.status in query.status)
        and (query.has_text is None or found["has_text"] is query.has_text)
        and query.key in record.key
        and (query.least_score is None or (score is not None and score >= query.least_score))
        and (query.most_score is None or (score is not None and score <= query.most_score))
        and (query.least_words is None or length >= query.least_words)
        and (query.most_words is None or length <= query.most_words)
        and {bare(one.lower().removeprefix("two ").removesuffix("s")) for one in query.thing} <= found["thing"]
        and all(set(map(plain, getattr(query, name))) <= found[name] for name in labels[1:])
    )


def few(*values: str) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(values), max_size=1).map(tuple)


QUERIES = st.builds(
    Query,
    text=st.sampled_from(
        [
            "",
            "",
            "red",
            "RED car",
            "-dog",
            "dog -red",
            "東車",
            "strasse",
            "straße",
            "cafe\u0301",
            "café -dog",
            "fire",
            "%",
            "100",
            "'; drop table parts",
        ]
    ),
    key=st.sampled_from(["", "", "1", "%", "k-0", "\x00", "\\"]),
    status=st.lists(st.sampled_from(list(Status)), max_size=2, unique=True).map(tuple),
    has_text=st.sampled_from([None, None, True, False]),
    least_score=st.sampled_from([None, None, 0.0, 0.25, 0.5]),
    most_score=st.sampled_from([None, None, 0.5, 1.0]),
    least_words=st.sampled_from([None, None, 1, 3]),
    most_words=st.sampled_from([None, None, 0, 3]),
    thing=few("car", "Cars", "dog", "two dogs", "café", "Cafe", "no"),
    tag=few(*(text for text in TEXTS if text)),
    dropped=few(*REASONS),
    cut=few("wrong_count", "low_match"),
    failure=few("truncated", "min_side"),
)
ORDERS = ("store", "best", "worst", "longest", "shortest")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("search")


@pytest.fixture
def index(store: Store, tmp_path: Path) -> Iterator[SearchIndex]:
    made = SearchIndex(store, tmp_path / "index")
    yield made
    made.close()


def pages(
    index: SearchIndex, query: Query, scope: Scope | None = None, order: Any = "store", limit: int = 2
) -> list[Any]:
    """All rows of a search, page by page; each page says the whole number."""
    hits: list[Any] = []
    cursor = None
    while True:
        with index.cursor() as connection:
            found = Search(connection, scope or Scope.everything(), query).page(order, limit, cursor)
        hits += found.hits
        assert len(found.hits) <= limit
        cursor = found.next
        if cursor is None:
            assert len(hits) == found.total
            return hits
        assert len(found.hits) == limit


def keys(hits: Sequence[Any]) -> list[str]:
    return [hit.key for hit in hits]


def facets_of(index: SearchIndex, query: Query) -> Facets:
    with index.cursor() as connection:
        return facets(Search(connection, Scope.everything(), query))


@settings(max_examples=10, phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck))
@given(data=st.data(), least=st.sampled_from([postings.LEAST, 1]))
def test_a_search_equals_a_plain_filter_over_the_records(
    folder: Path, monkeypatch: pytest.MonkeyPatch, data: st.DataObject, least: int
) -> None:
    # in so few rows there are bitmaps only if they are wanted from one row on
    monkeypatch.setattr(postings, "LEAST", least)
    shutil.rmtree(folder, ignore_errors=True)
    store = Store(str(folder / "store"))
    rows: list[Record] = []
    for number, size in enumerate(data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=3))):
        part = [data.draw(records(f"k-{number}{row}")) for row in range(size)]
        write_part(store, part, number=number)
        rows += part
    index = SearchIndex(store, folder / "index")
    try:
        index.refresh()
        for query in data.draw(st.lists(QUERIES, min_size=8, max_size=8)):
            wanted = [record for record in rows if passes(record, query)]
            assert keys(pages(index, query)) == [record.key for record in wanted]
            if data.draw(st.booleans()):
                _copied(index)
            order = data.draw(st.sampled_from(ORDERS))
            assert keys(pages(index, query, order=order)) == [record.key for record in sorted(wanted, key=_rank(order))]
            assert_counts(facets_of(index, query), wanted)
    finally:
        index.close()


def _copied(index: SearchIndex) -> None:
    """Copy the file, as after many additions, in runs of few rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("strata.search.index.SMALL_RUNS", -1)
        patch.setattr("strata.search.database.COPIED_ROWS", 4)
        patch.setattr(index, "_copied", (0.0, 0.0))
        index._tidy()


def _rank(order: str) -> Any:
    def rank(record: Record) -> float:
        found = facts(record)
        length, score = float(found["length"]), found["score"]
        worst, best = (2.0, 2.0) if score is None else (score, -score)
        ranks = {"store": 0.0, "best": best, "worst": worst, "longest": -length, "shortest": length}
        return ranks[order]

    return rank


def assert_counts(found: Facets, wanted: Sequence[Record]) -> None:
    """Facets are those of these records."""
    told = [facts(record) for record in wanted]
    assert found.total == len(wanted)
    assert {one.value: one.count for one in found.status} == {
        status.value: sum(record.status is status for record in wanted) for status in Status
    }
    assert {one.value: one.count for one in found.has_text}["true"] == sum(one["has_text"] for one in told)
    assert sum(one.count for one in found.words) == len(wanted)
    assert sum(one.count for one in found.score) == sum(one["score"] is not None for one in told)
    assert found.score[-1].count == sum(one["score"] is not None and one["score"] >= 0.9 for one in told)
    for name in ("thing", "tag", "dropped", "cut", "failure"):
        assert {one.value: one.count for one in getattr(found, name)} == Counter(
            label for one in told for label in one[name]
        )


# the index follows the store


def test_new_and_newer_parts_are_found_and_gone_ones_are_not(store: Store, index: SearchIndex) -> None:
    first = write_part(store, [described("a"), described("b", status=Status.FAILED)])
    index.refresh()
    assert keys(pages(index, Query())) == ["a", "b"]
    # a retry, and a part of another shard
    write_part(store, [described("a"), described("b2")], attempt=1)
    write_part(store, [described("c")], identity="b" * 16)
    index.refresh()
    assert keys(pages(index, Query())) == ["a", "b2", "c"]
    store.remove(store.path(first._replace(attempt=1).path))
    index.refresh()
    assert keys(pages(index, Query())) == ["c"]
    assert [one.count for one in facets_of(index, Query()).status] == [1, 0, 0]


def test_a_part_with_another_content_is_read_again(store: Store, index: SearchIndex) -> None:
    part = write_part(store, [described("a")])
    index.refresh()
    store.remove(store.path(part.path))
    write_part(store, [described("a", things=["dog"], words=50)])
    index.refresh()
    assert keys(pages(index, Query(thing=("dog",)))) == ["a"]


@pytest.mark.parametrize("least", [postings.LEAST, 1])
def test_words_and_labels_of_a_removed_row_are_not_those_of_a_later_one(
    store: Store, index: SearchIndex, monkeypatch: pytest.MonkeyPatch, least: int
) -> None:
    monkeypatch.setattr(postings, "LEAST", least)
    part = write_part(store, [described("a", things=["zebra"])])
    index.refresh()
    store.remove(store.path(part.path))
    # the file is not copied meanwhile
    index._copied = (time.monotonic(), 3600.0)
    write_part(store, [described("b", things=["dog"], words=50)])
    index.refresh()
    assert keys(pages(index, Query(thing=("dog",)))) == ["b"]
    assert keys(pages(index, Query(thing=("zebra",)))) == [] == keys(pages(index, Query(text="zebra")))
    assert [one.value for one in facets_of(index, Query()).thing] == ["dog"]


@pytest.mark.parametrize(
    ("thing", "found"),
    [
        ("sign", "ab"),
        ("signs", "ab"),
        ("Signs", "ab"),
        ("two red signs", "ab"),
        ("women", "c"),
        ("Woman", "c"),
        ("si", ""),
    ],
)
def test_a_label_is_found_in_every_form(store: Store, index: SearchIndex, thing: str, found: str) -> None:
    for number, phrase in enumerate(["signs", "Sign", "woman"]):
        write_part(store, [described("abc"[number], things=[phrase])], number=number)
    index.refresh()
    assert "".join(keys(pages(index, Query(thing=(thing,))))) == found
    counted = {one.value: one.count for one in facets_of(index, Query()).thing}
    assert counted == {"sign": 2, "woman": 1}


@pytest.mark.parametrize("asked", ["cafe", "Café", "cafe\u0301", "CAFÉS"])
def test_accents_make_no_difference(store: Store, index: SearchIndex, asked: str) -> None:
    words = ["café", "cafe", "cafe\u0301", "\u0915\u0947"]
    rows = [described(f"{number}-é", things=[word]) for number, word in enumerate(words)]
    write_part(
        store, [row.model_copy(update={"tags": [Tag(word=word)]}) for row, word in zip(rows, words, strict=True)]
    )
    index.refresh()
    found = ["0-é", "1-é", "2-é"]
    assert keys(pages(index, Query(thing=(asked,)))) == found
    assert keys(pages(index, Query(tag=(asked,)))) == found
    assert keys(pages(index, Query(text=asked.removesuffix("S")))) == found
    assert len(keys(pages(index, Query(key="e\u0301")))) == 4
    # one label with one count, as a person writes it; a mark of Devanagari is no accent
    values = facets_of(index, Query())
    assert [one.count for one in values.thing] == [3, 1]
    assert bare(values.thing[0].value) == "cafe"
    assert keys(pages(index, Query(text="\u0915"))) == []


def test_what_no_row_has_is_told_with_the_most_similar_label(store: Store, index: SearchIndex) -> None:
    query = Query(text="sing -dog", thing=("signz", "sign", "xylophone"), dropped=("low_matsch",))
    with index.cursor() as cursor:
        assert Search(cursor, Scope.everything(), query).hints() == []  # nothing is indexed yet
    write_part(store, [described("a", things=["sign"])])
    index.refresh()
    with index.cursor() as cursor:
        assert Search(cursor, Scope.everything(), query).hints() == [
            "no row has the word 'sing'; did you mean 'sign'?",
            "no row has the thing 'signz'; did you mean 'sign'?",
            "no row has the thing 'xylophone'",
            "no row has the reason 'low_matsch'; did you mean 'low_match'?",
        ]


def test_the_index_is_made_anew_if_its_file_is_lost_or_damaged(store: Store, tmp_path: Path) -> None:
    write_part(store, [described("a"), described("b")])
    folder = tmp_path / "index"
    for damage in (None, b"", b"no database" * 1000):
        index = SearchIndex(store, folder)
        index.refresh()
        assert keys(pages(index, Query())) == ["a", "b"]
        index.close()
        (path,) = folder.glob("index-*.duckdb")
        path.unlink()
        if damage is not None:
            path.write_bytes(damage)
    index = SearchIndex(store, folder)
    index.refresh()
    assert keys(pages(index, Query())) == ["a", "b"]
    index.close()


def test_a_second_process_gets_an_index_of_its_own(store: Store, index: SearchIndex, tmp_path: Path) -> None:
    write_part(store, [described("a")])
    index.refresh()
    script = (
        "import sys; from pathlib import Path; from strata.search import SearchIndex; from strata.store import Store\n"
        "index = SearchIndex(Store(sys.argv[1]), Path(sys.argv[2])); index.refresh()\n"
        "print(index.database().fetch('select count(*) from images')[0][0]); index.close()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, store.uri, str(tmp_path / "index")], capture_output=True, text=True, check=True
    )
    assert ended.stdout == "1\n" and "in use by another process" in ended.stderr


def test_a_broken_part_is_named_and_passed_over(store: Store, index: SearchIndex) -> None:
    write_part(store, [described("a")])
    part = write_part(store, [described("b")], number=1)
    path = Path(store.path(part.path))
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    index.refresh()
    with index.cursor() as cursor:
        (broken,) = Search(cursor, Scope.everything(), Query()).broken()
    assert part.path in broken and keys(pages(index, Query())) == ["a"]
    # it has been computed again
    path.write_bytes(whole)
    index.refresh()
    assert keys(pages(index, Query())) == ["a", "b"]
    with index.cursor() as cursor:
        assert Search(cursor, Scope.everything(), Query()).broken() == []


def test_nothing_of_a_deleted_part_stays_in_the_file(store: Store, index: SearchIndex, tmp_path: Path) -> None:
    write_part(store, [described("a", things=["zebra"])])
    gone = write_part(store, [described("secretkey", things=["unicorn"])], identity="b" * 16)
    index.refresh()
    index.database().fetch("checkpoint")
    assert b"unicorn" in _bytes_of(tmp_path) and b"secretkey" in _bytes_of(tmp_path)
    with index.cursor() as begun:
        begun.execute("select count(*) from images")
        store.remove(store.path(gone.path))
        index.forget([_chunk(gone)])
        assert keys(pages(index, Query())) == ["a"]
        index.refresh()
    index.database().fetch("checkpoint")
    assert b"unicorn" not in _bytes_of(tmp_path) and b"secretkey" not in _bytes_of(tmp_path)
    assert keys(pages(index, Query(thing=("zebra",)))) == ["a"] and keys(pages(index, Query(text="red"))) == ["a"]
    assert [one.value for one in facets_of(index, Query()).thing] == ["zebra"]


def test_a_deletion_does_not_wait_for_a_long_step(
    store: Store, index: SearchIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strata.search.index.FORGET_SECONDS", 0.05)
    gone = write_part(store, [described("b")])
    index.refresh()
    store.remove(store.path(gone.path))
    with index._writer:
        thread = threading.Thread(target=index.forget, args=([_chunk(gone)],))
        thread.start()
        thread.join(60)
        assert not thread.is_alive() and keys(pages(index, Query())) == ["b"]
    index.refresh()
    assert keys(pages(index, Query())) == []


def _bytes_of(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.glob("index/*"))


def _chunk(part: Part) -> Chunk:
    return Chunk(part.group, "fake", part.fingerprint, "a.tar", part.identity, part.number, 1, part.attempt)


def test_many_small_additions_are_copied_into_larger_runs(
    store: Store, index: SearchIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strata.search.index.SMALL_RUNS", 3)
    for number in range(5):
        write_part(store, [described(f"{number}-{row}", things=["dog"]) for row in range(3)], number=number)
        index.refresh()
    assert index.database().fetch("select runs from meta") == [(2,)]
    assert len(pages(index, Query(thing=("dog",)), limit=4)) == 15


def test_a_full_disk_stops_the_index_and_says_so(
    store: Store, index: SearchIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_part(store, [described("a")])
    monkeypatch.setattr("strata.search.index.FREE_BYTES", 2**62)
    index.refresh()
    assert pages(index, Query()) == [] and index.note == "the disk of the index is nearly full"
    assert index.waiting(Scope.everything(), None, 0) == 1
    monkeypatch.setattr("strata.search.index.FREE_BYTES", 0)
    index.refresh()
    assert keys(pages(index, Query())) == ["a"] and index.note is None


# scopes


def test_a_job_has_only_its_shards_and_what_was_written_when_it_ended(store: Store, index: SearchIndex) -> None:
    for identity in "abc":
        for number in range(2):
            write_part(store, [described(f"{identity}{number}")], identity=identity * 16, number=number)
    write_part(store, [described("other")], fingerprint="e" * 16, identity="a" * 16)
    index.refresh()
    scope = Scope.of_job(FINGERPRINT, ["a" * 16, "b" * 16])
    assert keys(pages(index, Query(), scope)) == ["a0", "a1", "b0", "b1"]
    scope = Scope.of_job(FINGERPRINT, ["a" * 16, "b" * 16], {"a" * 16: [1], "b" * 16: []})
    assert keys(pages(index, Query(), scope)) == ["a1"]
    assert keys(pages(index, Query(), Scope.of_job(FINGERPRINT, []))) == []
    assert len(pages(index, Query())) == 7


def test_a_snapshot_has_its_rows_also_those_of_an_earlier_attempt(store: Store, index: SearchIndex) -> None:
    part = write_part(store, [described("a", words=3), described("b", words=30), described("f", status=Status.FAILED)])
    Snapshots(store).create("first", [part], Selection(where="words > 10"))
    write_part(store, [described("a2"), described("b2"), described("f2")], attempt=1)
    index.refresh()
    snapshot = Snapshots(store).open("first")
    rows = snapshot.rows()
    scope = Scope.of_snapshot(snapshot.parts, rows["part"].to_numpy(), rows["row"].to_numpy())
    assert keys(pages(index, Query(), scope)) == ["b"]
    assert keys(pages(index, Query(least_words=31), scope)) == []
    # the earlier attempt is in no other search
    assert keys(pages(index, Query())) == ["a2", "b2", "f2"]


def test_stores_of_earlier_versions_are_searched(tmp_path: Path) -> None:
    shutil.copytree(KEPT, tmp_path / "store")
    store = Store(str(tmp_path / "store"))
    index = SearchIndex(store, tmp_path / "index")
    index.refresh()
    parts = last_attempts(part for path in store.find("parts", "llm") if (part := Part.find(path)))
    tables = (store.first(Source(part, part.path), store.decoded)[0] for part in parts)
    wanted = [record for table in tables for record in table_to_records(table)]
    assert_counts(facets_of(index, Query()), wanted)
    assert keys(pages(index, Query())) == [record.key for record in wanted]
    index.close()


# paging and hostile input


def test_pages_give_each_row_once_while_rows_are_added(store: Store, index: SearchIndex) -> None:
    for number in (1, 3, 5):
        write_part(store, [described(f"{number}{row}") for row in range(3)], number=number)
    index.refresh()
    with index.cursor() as cursor:
        first = Search(cursor, Scope.everything(), Query()).page("store", 4, None)
    write_part(store, [described("new")], number=0)
    write_part(store, [described("later")], number=4)
    index.refresh()
    with index.cursor() as cursor:
        second = Search(cursor, Scope.everything(), Query()).page("store", 20, first.next)
    assert keys([*first.hits, *second.hits]) == ["10", "11", "12", "30", "31", "32", "later", "50", "51", "52"]


@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda data: data.decode("latin-1")))
def test_a_cursor_that_no_page_has_returned_is_refused(text: str) -> None:
    with pytest.raises(BadSearchCursor):
        Position.decode(text, "store")


def test_a_cursor_of_another_order_is_refused() -> None:
    cursor = Position("store", 0.0, "f" * 16, "a" * 16, 0, 0).encode()
    assert Position.decode(cursor, "store").row == 0
    with pytest.raises(BadSearchCursor):
        Position.decode(cursor, "best")


@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(text=st.text(max_size=40))
def test_no_text_is_more_than_a_value(hostile_index: SearchIndex, text: str) -> None:
    text = text.encode("utf-8", "ignore").decode()
    query = Query(text=text, key=text, thing=(text,), tag=(text,), dropped=(text,), cut=(text,), failure=(text,))
    assert pages(hostile_index, query) == []
    assert len(pages(hostile_index, Query())) == 1


@pytest.fixture(scope="module")
def hostile_index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SearchIndex]:
    folder = tmp_path_factory.mktemp("hostile")
    store = Store(str(folder / "store"))
    write_part(store, [described("a")])
    index = SearchIndex(store, folder / "index")
    index.refresh()
    yield index
    index.close()


def test_the_database_opens_no_other_file(hostile_index: SearchIndex, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("a\n1\n")
    with hostile_index.cursor() as cursor:
        for statement in (
            f"select * from read_csv('{file}')",
            f"copy parts to '{file}'",
            "install httpfs",
            "set threads = 64",
        ):
            with pytest.raises(duckdb.Error):
                cursor.execute(statement)
