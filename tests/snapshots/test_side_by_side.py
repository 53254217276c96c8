"""Two descriptions of the same images compared: counts, scores, and texts as a terminal shows them."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from strata.cli.rendering.side_by_side import changed_words, texts_side_by_side
from strata.cli.snapshot.creation import _tell_of_matchers
from strata.core import Caption, Description, ImageReference, Record, Region
from strata.snapshots import Compared, Descriptions, Selection, Snapshots, compared
from strata.snapshots.comparing import texts
from strata.store import Provenance
from strata.store.store import Store
from tests.described import FINGERPRINT, write_part

OTHER = "e" * 16


def record(key: str, text: str | None, match: float = 0.5, caption: str | None = None) -> Record:
    """A record whose feature `match` is this value."""
    return Record(
        key=key,
        image=ImageReference(uri="a.tar", offset=512 * (1 + ord(key[0])), size=9),
        caption=Caption(text=caption) if caption else None,
        regions=[Region(box=(0, 0, 1, 1), phrase="a", match=match)],
        description=Description(text=text, sentences=[]) if text is not None else None,
    )


def shown(found: Compared, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(texts_side_by_side(("first", "second"), found))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


KEYS = st.lists(st.sampled_from("abcdefgh"), max_size=8, unique=True)
SIDE = st.fixed_dictionaries(
    {}, optional={key: st.tuples(st.sampled_from(["x", "y"]), st.sampled_from([0.25, 0.5, 0.75])) for key in "abcdefgh"}
)


@given(SIDE.filter(bool), SIDE.filter(bool), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_counts_are_those_of_the_images_of_both(
    tmp_path_factory: pytest.TempPathFactory,
    first: dict[str, tuple[str, float]],
    second: dict[str, tuple[str, float]],
    most: int,
) -> None:
    store = Store(str(tmp_path_factory.mktemp("store")))
    parts = [
        [
            write_part(store, [record(key, *side[key]) for key in keys], number=number, fingerprint=name).path
            for number, keys in enumerate((sorted(side)[::2], sorted(side)[1::2]))
            if keys
        ]
        for side, name in ((first, FINGERPRINT), (second, OTHER))
    ]
    found = compared(Descriptions(store, parts[0]), Descriptions(store, parts[1]), most)
    both = first.keys() & second.keys()
    changed = [key for key in first if key in both and first[key][0] != second[key][0]]
    rise = {key: second[key][1] - first[key][1] for key in both}
    assert (found.images, found.changed) == (len(both), len(changed))
    assert (found.only_before, found.only_after) == (len(first) - len(both), len(second) - len(both))
    assert found.higher == sum(one > 0 for one in rise.values())
    assert found.lower == sum(one < 0 for one in rise.values())
    for means, side in ((found.match_before, first), (found.match_after, second)):
        assert means == (pytest.approx(sum(side[key][1] for key in both) / len(both)) if both else None)
    largest = sorted((abs(rise[key]) for key in changed), reverse=True)[:most]
    assert [abs(pair.after.match - pair.before.match) for pair in found.pairs] == largest
    assert all((pair.before.text, pair.after.text) == (first[pair.key][0], second[pair.key][0]) for pair in found.pairs)


def test_rows_of_snapshots_in_slices(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "SLICE", 2)
    for number, keys in enumerate(["ab", "cd", "ef", "gh", "i"]):
        write_part(store, [record(key, f"old {key}") for key in keys], number=number)
        write_part(store, [record(key, f"new {key}", 0.75) for key in keys], number=number, fingerprint=OTHER)
    snapshots = Snapshots(store)
    before, after = (list(store.parts_below("parts", "llm", name)) for name in (FINGERPRINT, OTHER))
    old = snapshots.create("old", before, Selection(where="key in ('b', 'g')"))
    new = snapshots.create("new", after, Selection(where="key in ('a', 'b', 'g', 'i')"))
    found = compared(Descriptions.of_snapshot(store, old), Descriptions.of_snapshot(store, new), 9)
    assert (found.images, found.changed, found.only_before, found.only_after) == (2, 2, 0, 2)
    assert [(pair.key, pair.before.text, pair.after.text) for pair in found.pairs] == [
        ("b", "old b", "new b"),
        ("g", "old g", "new g"),
    ]
    assert found.pairs[0].after.part == f"parts/llm/{OTHER}/{'a' * 16}/00000.parquet" and found.pairs[0].after.row == 1


def test_texts_side_by_side_fit_into_eighty_columns(store: Store) -> None:
    old = [record("a", "A red car stands on the road.", 0.25), record("b", None, 0.5, "A cup."), record("c", None)]
    new = [record("a", "A red bus stands on the wet road.", 0.75), record("b", "A blue cup."), record("c", "New.")]
    first, second = write_part(store, old), write_part(store, new, fingerprint=OTHER)
    found = compared(Descriptions(store, [first.path]), Descriptions(store, [second.path]), 2)
    told = shown(found)
    assert all(len(line) <= 80 for line in told.splitlines())
    assert "texts: 3 images in both, 3 with another text" in told
    assert "match: 0.417 → 0.583 on average, 1 higher, 0 lower, 2 equal" in told
    assert "a, match 0.25" in told and "match 0.75 (+0.50)" in told
    assert "A red bus stands on the wet road." in told and "A cup." in told
    assert "and 1 more; --texts 3 shows all of them" in told
    assert "(no text)" in shown(compared(Descriptions(store, [first.path]), Descriptions(store, [second.path]), 3))
    nothing = compared(Descriptions(store, []), Descriptions(store, [second.path]), 3)
    assert shown(nothing).strip().startswith("texts: no image is in both: 3 in ")


WORDS = st.lists(st.sampled_from(["a", "red", "car", "  ", "\n", "stands"]), max_size=12).map(" ".join)


@given(WORDS, WORDS)
def test_changed_words_keep_both_texts_whole(before: str, after: str) -> None:
    left, right = changed_words(before, after)
    assert left.plain == (before or "(no text)") and right.plain == (after or "(no text)")

    def kept(text: str, spans: list[tuple[int, int]]) -> list[str]:
        gone = {place for start, end in spans for place in range(start, end)}
        return "".join(one for place, one in enumerate(text) if place not in gone).split()

    if before and after:
        unchanged = [kept(one.plain, [(span.start, span.end) for span in one.spans]) for one in (left, right)]
        assert unchanged[0] == unchanged[1]
    if before == after and before:
        assert not left.spans and not right.spans


def test_several_matchers_are_told(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    sides = []
    for name, model in ((FINGERPRINT, "hub:one"), (OTHER, "hub:two")):
        settings_of = {"stages": {"matcher": {"model": model, "revision": "abcdef0123456789"}}}
        content = Provenance(fingerprint=name, settings=settings_of)
        store.put(store.path(f"profiles/{name}.json"), content.model_dump_json().encode())
        sides.append(write_part(store, [record("a", "x")], fingerprint=name))
    models = ["hub:one (abcdef01)", "hub:two (abcdef01)"]
    first, second = (Descriptions(store, [part.path]) for part in sides)
    assert compared(first, second).matchers == models
    assert "models, whose probabilities are not on one scale: hub:one (abcdef01)," in " ".join(
        shown(compared(first, second)).split()
    )
    assert compared(first, first).matchers == []
    _tell_of_matchers(store, sides)
    assert ", ".join(models) in capsys.readouterr().err
    _tell_of_matchers(store, sides[:1])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("selection", "asks"),
    [
        (Selection(better=("-match",)), True),
        (Selection(where="match > 0.5"), True),
        (Selection(method="best"), True),
        (Selection(better=("words",), where="words > 3"), False),
    ],
)
def test_whether_a_selection_rests_on_the_match(selection: Selection, asks: bool) -> None:
    assert ("match" in selection.features) == asks
