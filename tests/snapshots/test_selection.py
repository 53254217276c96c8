"""Selection: deterministic, stable when rows are added, balanced as far as the rows allow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any
from zlib import crc32

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from strata.errors import StrataError
from strata.snapshots.selection import Choice, Given, Quota, Selection, SelectionError, select
from strata.snapshots.selection.axes import DEFAULT_AXES, Axis, AxisError, axes_of

AXES = axes_of(["objects:1,2,4", "text", "thing:cat,dog"], [])
HELD = Axis.parse("objects:1,2,4").model_copy(update={"held": ("0",), "shares": {"0": 0.2}})
METHODS = (
    Selection(count=1),
    Selection(method="best", count=1),
    Selection(method="balanced", count=1, axes=AXES),
    Selection(method="balanced", count=1, axes=(*axes_of(["text"], []), HELD)),
    Selection(
        method="balanced", count=1, axes=axes_of(["objects:1,2", "thing:cat,dog"], ["thing=cat:0.6", "thing=dog:0"])
    ),
)
CLUSTERS = ("c0", "c1", "c2")
# what is new in a row, and how common its concepts are, depends on other rows: one that moves back lets others come in
OF_OTHERS = (
    Selection(method="concepts", count=1, concepts=("nouns", "tags")),
    Selection(method="diverse", count=1, axes=(Axis(feature="cluster", names=CLUSTERS),)),
    Selection(method="diverse", count=1, axes=axes_of(["text"], []), quality="match * (objects + 1)"),
)
Row = tuple[str, int, bool, str, float]  # key, objects, text, thing, match
ROWS = st.lists(
    st.tuples(
        st.uuids().map(str),
        st.integers(0, 6),
        st.booleans(),
        st.sampled_from(["cat", "dog", "cup", "none"]),
        st.floats(0, 1),
    ),
    max_size=60,
)


def table_of(rows: Sequence[Row]) -> pa.Table:
    keys, objects, text, thing, match = zip(*rows, strict=True) if rows else ((),) * 5
    return pa.table(
        {
            "part": pa.array([0] * len(rows), pa.int32()),
            "row": pa.array(range(len(rows)), pa.int32()),
            "key": pa.array(keys, pa.string()),
            "objects": pa.array(objects, pa.int64()),
            "text": pa.array(text, pa.bool_()),
            "thing": pa.array(thing, pa.string()),
            "match": pa.array(match, pa.float64()),
            "evidence": pa.array([0.5] * len(rows), pa.float64()),
            "told": pa.array(objects, pa.int64()),
            "image": pa.array([key[:2] for key in keys], pa.string()),
            "description": pa.array([f"a {name}" for name in thing], pa.string()),
            "tag_words": pa.array([f"tag {key[-1:]}" for key in keys], pa.string()),
            "uri": pa.array([f"data/{key[:1]}.tar" for key in keys], pa.string()),
            "source": pa.array(["job"] * len(rows), pa.string()),
            "cluster": pa.array([CLUSTERS[place] for place in embedded_of(rows)[1]], pa.string()),
        }
    )


def embedded_of(rows: Sequence[Row]) -> tuple[np.typing.NDArray[Any], np.typing.NDArray[np.int64]]:
    """A vector of each row, of its key alone, and its cluster: the largest of three of its numbers."""
    hashes = np.array([crc32(row[0].encode()) for row in rows], np.float64)
    vectors = np.sin(hashes[:, None] * np.arange(1, 9)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors, vectors[:, :3].argmax(axis=1)


def chosen(rows: Sequence[Row], selection: Selection, **changes: Any) -> list[Row]:
    asked = selection.model_copy(update=changes)
    choice = select(
        table_of(rows), ["i"], asked, Given(embedded=embedded_of(rows) if asked.method == "diverse" else None)
    )
    return [rows[place] for place in choice.indices]


def photographs(count: int, seed: int = 0) -> list[Row]:
    """Rows whose values are as unequal as those of photographs."""
    random = np.random.default_rng(seed)
    things = random.choice(["cat", "dog", "cup", "none"], count, p=[0.6, 0.25, 0.1, 0.05])
    objects, texts = random.geometric(0.4, count) - 1, random.random(count) < 0.3
    return [
        (f"{seed}/{i}", int(objects[i]), bool(texts[i]), str(things[i]), float(match))
        for i, match in enumerate(random.random(count))
    ]


@pytest.mark.parametrize("selection", (*METHODS, *OF_OTHERS))
def test_a_choice_is_that_of_its_seed_in_whatever_order_rows_stand(selection: Selection) -> None:
    rows = photographs(500)
    first = chosen(rows, selection, count=100)
    assert len(set(first)) == 100
    assert first == chosen(rows, selection, count=100)
    assert set(first) == set(chosen(rows[::-1], selection, count=100))
    if selection.method not in ("best", "diverse"):  # whose seed decides only between equal rows
        assert 5 < len(set(first) & set(chosen(rows, selection, count=100, seed=1))) < 95


@given(st.tuples(ROWS, ROWS), st.sampled_from(METHODS), st.data())
@settings(max_examples=400)
def test_rows_that_are_added_only_push_others_back(
    both: tuple[list[Row], list[Row]], method: Selection, data: st.DataObject
) -> None:
    old, new = both
    if not old:
        return
    count = data.draw(st.integers(1, len(old)))
    before, after = set(chosen(old, method, count=count)), set(chosen([*new, *old], method, count=count))
    assert after & set(old) <= before  # no row that was left out comes in
    assert len(before - after) == len(after & set(new))


@given(ROWS, st.data())
@settings(max_examples=50)
def test_fewer_are_a_part_of_more(rows: list[Row], data: st.DataObject) -> None:
    if rows:
        few = data.draw(st.integers(1, len(rows)))
        for method in (*METHODS, *OF_OTHERS):
            assert set(chosen(rows, method, count=few)) <= set(chosen(rows, method, count=len(rows)))


def water_filled(supply: Sequence[int], weights: Sequence[float], wanted: float) -> list[float]:
    """What each gets of wanted when all are filled to one level times their weight: by halving."""
    low, high = 0.0, 1e9
    for _ in range(200):
        level = (low + high) / 2
        low, high = (level, high) if sum(map(min, supply, [level * w for w in weights])) < wanted else (low, level)
    return [min(have, high * weight) for have, weight in zip(supply, weights, strict=True)]


@pytest.mark.parametrize("targets", [[], ["thing=cat:0.1", "thing=dog:0.2"]])
def test_each_stratum_gets_its_share_and_what_its_neighbours_lack(targets: list[str]) -> None:
    axes = axes_of(["objects:1,2,4", "thing:cat,dog"], targets)
    rows = photographs(4000)
    taken = chosen(rows, Selection(method="balanced", count=2000, axes=axes))
    outers, there = Counter(map(outer, taken)), Counter(map(outer, rows))
    inners, there_inside = Counter(map(inner, taken)), Counter(map(inner, rows))
    names = sorted(there)
    for name, wanted in zip(names, water_filled([there[n] for n in names], [1] * len(names), 2000), strict=True):
        assert abs(outers[name] - wanted) <= 1
        inside = [(name, thing) for thing in ("cat", "dog", "other")]
        shares = [0.1, 0.2, 0.7] if targets else [1, 1, 1]
        levels = water_filled([there_inside[one] for one in inside], shares, outers[name])
        assert all(abs(inners[one] - level) <= 1 for one, level in zip(inside, levels, strict=True))


def outer(row: Row) -> int:
    return sum(row[1] >= edge for edge in (1, 2, 4))


def inner(row: Row) -> tuple[int, str]:
    return outer(row), row[3] if row[3] in ("cat", "dog") else "other"


def test_a_share_keeps_the_old_choice() -> None:
    rows, more = photographs(20_000), photographs(2000, seed=1)
    for selection in (METHODS[0], METHODS[2]):
        before = set(chosen(rows, selection, count=None, share=0.5))
        after = set(chosen([*rows, *more], selection, count=None, share=0.5))
        assert len(before) == 10_000 and len(after) == 11_000
        assert len(before - after) < 200  # 2 %


@pytest.mark.parametrize("selection", OF_OTHERS)
def test_what_depends_on_other_rows_changes_little_with_a_few_more(selection: Selection) -> None:
    rows, more = photographs(4000), photographs(400, seed=1)
    before = set(chosen(rows, selection, count=None, share=0.5))
    after = set(chosen([*rows, *more], selection, count=None, share=0.5))
    assert len(before - after) < 100  # 5 %


def test_the_commonest_names_are_found_and_kept_for_other_rows() -> None:
    selection = Selection(method="balanced", count=100, axes=axes_of(["thing:2"], ["thing=cup:0.5"]))
    choice = select(table_of(photographs(1000)), ["i"], selection)
    assert choice.axes["thing"].names == ("cat", "dog", "cup")  # cup was asked for
    things = Counter(row[3] for row in chosen(photographs(1000), selection))
    assert things["cup"] == 50
    other = select(
        table_of([*photographs(1000), *[(f"new{i}", 0, False, "fox", 0.5) for i in range(900)]]),
        ["i"],
        choice.selection,
    )
    assert other.axes == choice.axes


def test_the_best_tell_much_and_are_right() -> None:
    rows = photographs(300)
    best = chosen(rows, Selection(method="best", count=50))
    assert set(best) == set(sorted(rows, key=lambda row: -row[4] * row[1] / (row[1] + 3))[:50])
    # the content counts, but ten things of which half are wrong are not better than five that are right
    one, empty, wrong = ("a", 5, False, "cat", 0.95), ("b", 1, False, "none", 1.0), ("c", 10, False, "cat", 0.5)
    assert chosen([one, empty, wrong], Selection(method="best", count=1)) == [one]
    # snapshots of earlier versions did not ask for content
    assert chosen([one, empty, wrong], Selection(method="best", score="evidence", count=1)) == [empty]


def test_diverse_takes_the_best_and_leaves_what_is_like_it() -> None:
    # of one cluster: the best, its copy, and two others, of which the better one is nearer to the best
    vectors = np.array([[1, 0, 0], [0.999, 0.04, 0], [0.8, 0.6, 0], [0, 0, 1]], np.float32)
    rows = [(key, 5, False, "cat", match) for key, match in (("a", 0.9), ("b", 0.8), ("c", 0.5), ("d", 0.4))]
    taken = []
    for count in range(1, 5):
        asked = OF_OTHERS[2].model_copy(update={"count": count})
        choice = select(table_of(rows), ["i"], asked, Given(embedded=(vectors, np.zeros(4, np.int64))))
        taken.append({rows[place][0] for place in choice.indices})
    assert taken == [{"a"}, {"a", "d"}, {"a", "c", "d"}, {"a", "b", "c", "d"}]


def test_quality_is_an_expression_and_what_is_not_known_comes_last() -> None:
    rows = photographs(300)
    best = chosen(rows, Selection(method="best", quality="0 - objects", count=50))
    assert max(row[1] for row in best) <= min(row[1] for row in set(rows) - set(best))
    table = table_of(rows).append_column("beauty", pa.array([None, *range(299)], pa.float64()))
    asked = Selection(method="best", quality="beauty", own={"beauty": "number"}, count=299)
    assert select(table, ["i"], asked).indices.tolist() == list(range(1, 300))
    with pytest.raises(StrataError, match="no feature 'beauty'"):
        select(table, ["i"], Selection(method="best", quality="beauty", count=1))
    with pytest.raises(StrataError, match="a number is expected"):
        select(table, ["i"], Selection(method="best", quality="objects > 1", count=1))


def test_rows_without_things_are_never_favoured() -> None:
    rows = photographs(4000)
    before = Counter(map(outer, rows))[0] / len(rows)
    (default,) = [axis for axis in DEFAULT_AXES if axis.feature == "objects"]
    held = Axis.parse("objects:1,2,4").model_copy(update={"held": ("0",)})
    assert default.held == ("0",)
    for axes in ((held,), (held, *axes_of(["text"], [])), (*axes_of(["thing:cat,dog"], []), held)):
        for count in (200, 2000, 3900):
            choice = select(table_of(rows), ["i"], Selection(method="balanced", count=count, axes=axes))
            taken = Counter(outer(rows[place]) for place in choice.indices)
            # a stratum of an axis before that is taken whole brings all its rows
            assert taken[0] <= (before * count + 1 if axes[0] is held else 1.05 * before * count)
            # with the axis first the share is kept, and what is left is even among the others as far as they have rows
            if axes[0] is held:
                assert abs(taken[0] - before * count) <= 1
                others = [Counter(map(outer, rows))[label] for label in (1, 2, 3)]
                levels = water_filled(others, [1] * 3, count - taken[0])
                assert all(abs(taken[label] - level) <= 1 for label, level in enumerate(levels, 1))
            assert choice.axes["objects"].shares == {"0": round(before, 6)}


def test_a_target_for_a_held_label_frees_it() -> None:
    axes = {axis.feature: axis for axis in axes_of([], ["objects=0:0.3"])}
    assert axes["objects"].held == () and axes["objects"].targets == {"0": 0.3}


def test_filter_comes_first_and_unique_takes_the_first_of_an_image() -> None:
    rows = [(key, n, False, "cat", 0.5) for n, key in enumerate(["aa1", "ab1", "aa2", "ab2", "ac1"])]
    assert [row[0] for row in chosen(rows, Selection(unique=True))] == ["aa1", "ab1", "ac1"]
    assert [row[0] for row in chosen(rows, Selection(unique=True, where="objects > 0"))] == ["ab1", "aa2", "ac1"]
    choice: Choice = select(table_of(rows), ["i"], Selection(share=0.5, where="objects > 0"))
    assert choice.passed == 4 and len(choice.indices) == 2


def test_more_than_there_are_is_refused() -> None:
    rows = photographs(10)
    with pytest.raises(SelectionError, match="11 rows are requested, but only 10 exist"):
        chosen(rows, Selection(count=11))
    with pytest.raises(SelectionError, match="only 0 pass"):
        chosen(rows, Selection(count=1, where="objects > 100"))


@pytest.mark.parametrize(
    "values",
    [
        {"count": 1, "share": 0.5},
        {"count": 0},
        {"share": 1.5},
        {"method": "worst"},
        {"axes": DEFAULT_AXES},
        {"score": "content"},
        {"concepts": ["nouns", "tags"]},
        {"method": "concepts", "concepts": []},
        {"method": "concepts", "concepts": ["verbs"]},
        {"quality": "match"},
        {"quotas": [{"source": "job"}]},
        {"quotas": [{"source": "job", "rows": 3, "share": 0.5}]},
        {"quotas": [{"source": "job", "share": 1.5}]},
    ],
)
def test_what_is_no_selection(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Selection.model_validate(values)


def test_a_selection_survives_json() -> None:
    others = (Selection(method="balanced"), Selection(quotas=(Quota(source="a", rows=3),)))
    for selection in (*METHODS, *OF_OTHERS, *others):
        assert Selection.model_validate_json(selection.model_dump_json()) == selection
    assert Selection(method="balanced").axes == DEFAULT_AXES


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("objects", ("0", "1", "2-3", "4-6", "7+")),
        ("words:20,40", ("0-19", "20-39", "40+")),
        ("match:0.5,0.75", ("<0.5", "0.5-0.75", "0.75+")),
        ("width:0,10", ("<0", "0-9", "10+")),
        ("text", ("no", "yes")),
        ("thing:dog, cat,dog", ("dog", "cat", "other")),
        ("thing:dog,other", ("dog", "other")),
        ("evidence:0,1", ("<0", "0-1", "1+")),
        ("aesthetic:5,6", ("<5", "5-6", "6+")),
    ],
)
def test_labels(text: str, labels: tuple[str, ...]) -> None:
    assert Axis.parse(text).labels == labels


def test_values_get_their_labels() -> None:
    def labelled(text: str, values: list[Any]) -> list[str]:
        axis = Axis.parse(text)
        return [axis.labels[code] for code in axis.codes(pa.chunked_array([values]))]

    assert labelled("objects:1,2,4", [0, 1, 2, 3, 4, 99]) == ["0", "1", "2-3", "2-3", "4+", "4+"]
    assert labelled("text", [True, False]) == ["yes", "no"]
    assert labelled("thing:cat", ["cat", "dog", "none"]) == ["cat", "other", "other"]
    assert labelled("thing:cat,other", ["cat", "other", None]) == ["cat", "other", "other"]


def test_a_thing_that_is_called_other_has_no_second_label() -> None:
    column = pa.chunked_array([["other", "other", "unknown", "cat", None]])
    axis = Axis.parse("thing:2").with_shares({"other": 0.5}).resolved(column)
    assert axis.labels == ("cat", "unknown", "other") and axis.codes(column).tolist() == [2, 2, 1, 0, 2]
    assert axis.weights().tolist() == [0.25, 0.25, 0.5]
    # an earlier version has written such a name into a snapshot
    earlier = Axis(feature="thing", names=("cat", "other", "unknown"))
    assert earlier.labels == axis.labels and earlier.codes(column).tolist() == axis.codes(column).tolist()


def test_labels_of_earlier_snapshots_stay() -> None:
    axis = Axis.model_validate({"feature": "evidence", "edges": [1, 2]})
    assert axis.labels == ("0", "1", "2+") and "fractions" not in axis.model_dump()
    assert "fractions" not in Axis.parse("objects:1,2").model_dump()
    written = Axis.parse("evidence:1,2")
    assert Axis.model_validate_json(written.model_dump_json()) == written and written.labels[1] == "1-2"


@pytest.mark.parametrize(
    ("by", "target", "line"),
    [
        ("colour", "", "no feature 'colour'"),
        ("words:40,20", "", "rising edges"),
        ("thing:other", "", "'other' is the label of all values that are not named"),
        ("words:many", "", "rising edges"),
        ("width", "", "rising edges"),
        ("text:1", "", "no edges"),
        ("text", "text=maybe:0.5", "no label 'maybe'; it has: no, yes"),
        ("text", "text=yes:1.5", "0..1"),
        ("text", "text=yes:0.7 text=no:0.7", "must not exceed 1"),
        ("text", "objects=0:0.5", "not FEATURE=LABEL:SHARE"),
        ("text", "text=yes", "not FEATURE=LABEL:SHARE"),
        ("text text", "", "only once"),
        ("cluster", "cluster:0.5", "not FEATURE=LABEL:SHARE"),
        ("cluster:0", "", "1 or more"),
        ("thing:0", "", "1 or more"),
        ("cluster:dog,cat", "", "clusters take their number, such as cluster:512"),
    ],
)
def test_bad_axes_are_one_line(by: str, target: str, line: str) -> None:
    with pytest.raises(AxisError, match=line) as caught:
        axes_of(by.split(), target.split())
    assert isinstance(caught.value, StrataError) and "\n" not in str(caught.value)
