"""Features beside plain Python over the records, and filters beside Python's own answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strata.core.layers import LAYERS, Tag, head_of
from strata.core.records import (
    Caption,
    Description,
    ImageReference,
    Mask,
    ObjectMask,
    Record,
    Region,
    Sentence,
    Status,
    TextLine,
    records_to_table,
)
from strata.errors import StrataError
from strata.judgments import Judgments, LostJudgments
from strata.privacy import personal_data
from strata.snapshots import Selection, Snapshots
from strata.snapshots.features import FEATURES, read_rows
from strata.snapshots.features.catalogue import TEXTS
from strata.snapshots.filters import Filter, FilterError
from strata.store.store import Store
from tests.described import described, write_part
from tests.judged import judgment

SCORE = st.none() | st.integers(0, 64).map(lambda n: n / 64)  # exact in float32
BOX = st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(10, 99), st.integers(10, 99))
PHRASE = st.sampled_from(["a red car", "the dog on a mat", "two cups", "42", "a cat with a hat"])
EVIDENCE = {"score": st.none(), "match": SCORE, "kept": st.booleans()}
MASK = Mask(size=(1, 1), counts="0")
RECORDS = st.builds(
    Record,
    key=st.text("abc", min_size=1),
    image=st.builds(ImageReference, uri=st.just("u"), size=st.just(1), sha256=st.none() | st.just("0" * 64)),
    width=st.just(3),
    height=st.just(4),
    status=st.sampled_from(Status),
    alt_text=st.none() | st.just("an alt text"),
    caption=st.none() | st.builds(Caption, text=st.just("a"), **EVIDENCE),
    tags=st.none() | st.lists(st.builds(Tag, word=st.sampled_from(["cat", "night"]), **EVIDENCE), max_size=3),
    regions=st.none() | st.lists(st.builds(Region, box=BOX, phrase=PHRASE, **EVIDENCE), max_size=4),
    objects=st.none()
    | st.lists(
        st.builds(ObjectMask, box=BOX, phrase=PHRASE, mask=st.just(MASK), area=st.just(1), **EVIDENCE), max_size=4
    ),
    text=st.none() | st.lists(st.builds(TextLine, box=BOX, text=st.just("x"), **EVIDENCE), max_size=3),
    description=st.none()
    | st.builds(
        Description,
        text=st.text(" ab\n", max_size=20),
        sentences=st.lists(
            st.builds(
                Sentence,
                text=st.just("s"),
                evidence=st.lists(st.sampled_from(["caption", "regions/0", "text/1"]), max_size=3),
            )
        ),
    ),
)


def area(box: Sequence[float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def layer_features(record: Record) -> dict[str, Any]:
    """For every layer of entries the number of kept ones, and of words without boxes the best of them."""
    found: dict[str, Any] = {}
    for layer in LAYERS.values():
        if layer.many:
            kept = [entry for entry in getattr(record, layer.name) or () if entry.kept]
            found[layer.feature] = len(kept)
            if not layer.boxed:
                best = max(kept, key=lambda entry: entry.score or 0, default=None)
                found[layer.entry] = layer.words_of(best) if best else "none"
    return found


def features_of(record: Record) -> dict[str, Any]:
    """The features of a record, said in plain Python."""
    kept = [entry for layer in (record.regions, record.objects) for entry in layer or () if entry.kept]
    asked = [entry.match for entry in (record.caption, *kept) if entry and entry.kept and entry.match is not None]
    sentences = record.description.sentences if record.description else []
    image = record.image
    return layer_features(record) | {
        "objects": len(kept),
        "review": "none",
        "source": "none",
        "cluster": "none",
        "status": record.status.value,
        "failure": record.failure.error_type if record.failure else "none",
        "text": any(entry.kept for entry in record.text or ()),
        "words": len(record.description.text.split()) if record.description else 0,
        "thing": head_of(max(kept, key=lambda entry: area(entry.box)).phrase or "") if kept else "none",
        "evidence": sum(bool(one.evidence) for one in sentences) / len(sentences) if sentences else 0,
        "alt_text": record.alt_text or "",
        "caption": record.caption.text if record.caption else "",
        "description": record.description.text if record.description else "",
        "phrases": "\n".join(one.phrase for one in record.regions or () if one.kept),
        "read": "\n".join(one.text for one in record.text or () if one.kept),
        "tag_words": "\n".join(one.word for one in record.tags or () if one.kept),
        "told": len({name for one in sentences for name in one.evidence}),
        "match": sum(asked) / len(asked) if asked else 0,
        "width": record.width,
        "height": record.height,
        "key": record.key,
        "uri": image.uri,
        "image": image.sha256 or f"{image.uri} {image.offset} {image.size}",
        "personal": len({one for text in texts_of(record) for one in personal_data(text)}),
    }


def texts_of(record: Record) -> list[str]:
    """Every text of a record, kept or not."""
    texts = [variant.text for variant in record.variants or ()]
    for layer in LAYERS.values():
        value = getattr(record, layer.name)
        entries = value if isinstance(value, list) else [value]
        texts += [one if isinstance(one, str) else layer.words_of(one) for one in entries if one is not None]
    return texts


@given(st.lists(RECORDS, max_size=8))
@settings(max_examples=300)
def test_features_are_those_of_the_records(records: list[Record]) -> None:
    table = records_to_table(records)
    own = {name: feature for name, feature in FEATURES.items() if feature.stage is None}
    found = pa.table({name: feature.compute(table) for name, feature in own.items()}).to_pylist()
    assert len(found) == len(records)
    for row, record in zip(found, records, strict=True):
        assert row == pytest.approx(features_of(record)), record


def test_texts_of_millions_of_rows_can_be_put_together(store: Store) -> None:
    """A `string` column holds 2**31 bytes: 650 of each of 3.3 million rows are more."""
    table = records_to_table([described("a", ["car"])])
    assert {FEATURES[name].compute(table).type for name in TEXTS} == {pa.large_string()}
    # rows are copied without the texts that only say which pass
    asked = Selection(where="'picture' in caption", leave_out=(("terse", "len(description) < 4"),), cap=99)
    assert {"caption", "description"} <= asked.features and asked.compared == {"part", "row", "key"}
    part = write_part(store, [described(f"{n}", ["car"] * (n % 2), n) for n in range(9)])
    made = Snapshots(store).create("few", [part], asked)
    assert made.rows().column("row").to_pylist() == list(range(1, 9)) and made.manifest.counts.left_out == {"terse": 1}


def test_rows_are_read_of_many_parts(store: Store) -> None:
    parts = [
        write_part(store, [described("ok", ["car"] * n), described("bad", status=Status.FAILED)] * 2, number=n)
        for n in range(70)  # more than are computed together
    ]
    told: list[int] = []
    rows = read_rows(store, [part.path for part in parts], ["objects"], told.append)
    assert rows.table.column_names == ["part", "row", "key", "objects"]
    assert rows.table.column("part").to_pylist() == [n for n in range(70) for _ in range(2)]
    assert rows.table.column("row").to_pylist() == [0, 2] * 70
    assert rows.table.column("objects").to_pylist() == rows.table.column("part").to_pylist()
    assert rows.statuses == {"succeeded": 140, "failed": 140}
    assert sum(told) == 70


def test_a_part_that_is_gone_is_told(store: Store) -> None:
    with pytest.raises(FileNotFoundError):
        read_rows(store, [f"parts/llm/{'f' * 16}/{'a' * 16}/00000.parquet"], ["objects"])


ROWS = [
    {"objects": objects, "text": text, "thing": thing, "match": match, "description": f"A Dog and {objects} {thing}s"}
    for objects in (0, 1, 2, 5)
    for text in (True, False)
    for thing in ("cat", "dog")
    for match in (0.0, 0.5, 1.0)
]


@pytest.mark.parametrize(
    "text",
    [
        "objects >= 2 and text",
        "not text or objects == 0",
        "1 <= objects < 5",
        "thing in ('cat', 'cup') and not (match < 0.5)",
        "thing not in ['cat']",
        "objects / 2 >= 1 and objects - 1 != 4",
        "objects * match + 1 > 2",
        "-objects <= -2",
        "thing == 'dog'",
        "text == False",
        "objects in (1, 5)",
        "'cat' == thing",
        "True",
        "'cat' in description",
        "'dog' not in description and text",
        "'dog' in lower(description)",
        "len(description) > 14",
        "lower(thing) == 'cat'",
        "matches(description, '[15] cats?$')",
        "'t' in thing and 'a' in thing",
    ],
)
def test_filters_mean_what_they_mean_in_python(text: str) -> None:
    functions = {"lower": str.lower, "matches": lambda text, pattern: re.search(pattern, text) is not None}
    wanted = [place for place, row in enumerate(ROWS) if eval(text, functions, row)]
    assert len(wanted) > 0
    assert Filter(text).rows(pa.Table.from_pylist(ROWS)).to_pylist() == wanted


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "syntax"),
        ("objects >", "syntax"),
        ("objects = 2", "syntax|equal"),
        ("objekts > 2", "no feature 'objekts'; there are: objects"),
        ("objects", "a number, but yes or no is expected there"),
        ("objects and text", "a number, but yes or no is expected there"),
        ("objects > 'two'", "a text, but a number is expected there"),
        ("thing + 1 > 2", "a text, but a number is expected there"),
        ("thing in 'cat'", "a list of constants"),
        ("5 in description", "a text is expected before `in`, not '5'"),
        ("'a' in objects", "a number, but a text is expected there"),
        ("len(objects) > 1", "a number, but a text is expected there"),
        ("lower(description)", "a text, but yes or no is expected there"),
        ("lower()", r"lower is used as lower\(TEXT\)"),
        ("matches(description, thing)", "matches is used as matches"),
        ("exec('x') == 'x'", "not allowed"),
        ("thing in ()", "a list of constants"),
        ("thing in ('cat', 1)", "a list of constants"),
        ("thing is None", "not allowed"),
        ("__import__('os').system('true')", "not allowed"),
        ("text.__class__", "not allowed"),
        ("[x for x in (1,)]", "not allowed"),
        ("objects ** 9 > 1", "not allowed"),
        ("None", "not allowed"),
        ("(" * 5000, "."),
        ("not " * 3000 + "text", "."),
        ("objects > 1 " * 2000, "longer than"),
        ("text\0", "null"),
        ("objects > 1" + "0" * 30, "."),
        ("objects > 1" + "0" * 5000, "."),
    ],
)
def test_what_is_no_filter_is_one_line(text: str, reason: str) -> None:
    with pytest.raises(StrataError, match=reason) as caught:
        Filter(text)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_a_regular_expression_that_cannot_be_read_is_one_line() -> None:
    with pytest.raises(StrataError, match=r"cannot be read: .*missing"):
        Filter("matches(thing, '(')").rows(pa.Table.from_pylist(ROWS))


@given(st.text(alphabet="objects txt()<>=!&|'[]0123.,+-*/\n", max_size=30))
@settings(max_examples=500)
def test_any_text_is_a_filter_or_an_answer(text: str) -> None:
    try:
        Filter(text).rows(pa.Table.from_pylist([dict.fromkeys(FEATURES)]))
    except StrataError as error:
        assert "\n" not in str(error)


def test_what_people_said_is_a_feature(store: Store) -> None:
    part = write_part(store, [described(key) for key in "abcd"])
    Judgments(store).append(
        [
            judgment("1", key="a"),
            judgment("2", 1, "rejected", key="b"),
            judgment("3", 2, "edited", key="c"),
            judgment("4", 3, "rejected", key="d"),
            judgment("5", 4, "undone", key="d", supersedes="judgment-4"),
            judgment("6", 5, "rejected", key="a", identity="b" * 16),
        ]
    )
    table = read_rows(store, [part.path], ["review"]).table
    assert table.column("review").to_pylist() == ["accepted", "rejected", "edited", "none"]
    made = Snapshots(store).create("good", [part], Selection(where='review != "rejected"'))
    assert made.rows().column("row").to_pylist() == [0, 2, 3]
    with pytest.raises(FilterError):
        Selection(where="review > 2").features  # noqa: B018
    # without all judgments it is not known which rows were rejected
    first = min(store.find("judgments"))
    Judgments(store).append([judgment("7", 9, key="a")])
    store.remove(store.path(first))
    with pytest.raises(LostJudgments, match="is missing"):
        read_rows(store, [part.path], ["review"])
    assert read_rows(store, [part.path], ["key"]).table.num_rows == 4
