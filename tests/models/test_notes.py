"""Entries that are one thing as one note; lines of text in reading order; relations of two notes."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.demo.grounding import Fact, Guide, Relation, Wording
from models.evidence.relations import OPPOSITE, clear_relations, relation_of
from models.guards import cleaned, quotable, quotations
from models.kinds.counting import counts_and_places
from models.notes import as_read, contradicts, in_reading_order, notes_of
from models.prompts import FOLDER, facts_of, full_notes, load_prompt, relations_of
from models.sentences import sentences_of
from models.weights.hashes import sha256_of
from strata.core.layers import Box, Caption, Description, Mask, ObjectMask, Region, Sentence, TextLine
from strata.core.records import Record
from tests.described import described

SMALL = load_prompt("small", sha256_of(FOLDER / "small.toml"))
assert SMALL.wording
WORDING: Wording = SMALL.wording
SIZE = (200, 100)


def record(
    regions: list[Region], lines: list[TextLine] | None = None, objects: list[ObjectMask] | None = None
) -> Record:
    layers = {"regions": regions, "text": lines or [], "objects": objects or []}
    caption = Caption(text="Things on a pink background.")
    return described("k").model_copy(update=layers | {"caption": caption, "width": SIZE[0], "height": SIZE[1]})


def region(phrase: str, box: Box, match: float = 0.9) -> Region:
    return Region(box=box, phrase=phrase, score=0.9, match=match)


def line(text: str, box: Box) -> TextLine:
    return TextLine(box=box, text=text, score=0.95)


def test_what_is_one_thing_is_one_note_with_all_its_sources() -> None:
    mask = Mask(size=(9, 9), counts="0")
    thing = ObjectMask(box=(11, 9, 51, 50), mask=mask, area=9, phrase="a red car", kept=False, reason="duplicate")
    (car,) = notes_of(
        record([region("a car", (10, 10, 50, 50), 0.7), region("a red car", (12, 10, 50, 50))], objects=[thing])
    )
    assert car.phrases == ("a red car", "a car") and set(car.sources) == {"regions/0", "regions/1", "objects/0"}


@pytest.mark.parametrize(
    ("phrase", "known", "wrong"),
    [
        ("a blue car", "a red car", True),
        ("two dogs", "three dogs", True),
        ("a car", "a red car", False),
        ("a small red car", "a red car", False),
        ("a red and white car", "a red car", False),
        ("a blue bus", "a red car", False),
    ],
)
def test_contradictions_of_attributes(phrase: str, known: str, wrong: bool) -> None:
    assert contradicts(phrase, known) is wrong is contradicts(known, phrase)


def test_of_contradicting_attributes_the_better_match_is_told() -> None:
    boxes: tuple[Box, Box] = (10, 10, 50, 50), (11, 10, 50, 51)
    (car,) = notes_of(record([region("a blue car", boxes[0], 0.6), region("a red car", boxes[1], 0.8)]))
    assert (car.phrases, car.sources) == (("a red car",), ("regions/1",))


def test_lines_are_joined_in_reading_order_and_told_with_what_carries_them() -> None:
    lines = [line("HOTEL", (20, 40, 60, 50)), line("GRAND", (60, 21, 90, 32)), line("THE", (20, 20, 50, 30))]
    lines.append(line("EXIT", (150, 80, 190, 95)))
    told = record([region("a sign", (10, 10, 100, 60))], lines)
    sign, loose = notes_of(told)
    assert sign.texts == ("THE", "GRAND", "HOTEL") and set(sign.sources) == {"regions/0", "text/0", "text/1", "text/2"}
    assert (loose.phrases, loose.texts, loose.sources) == ((), ("EXIT",), ("text/3",))
    names = [fact.name for fact in facts_of(told, 9)]
    assert 'a large sign that says "THE GRAND HOTEL"' in names and 'the word "EXIT"' in names
    assert 'carries the text "THE GRAND HOTEL"' in full_notes(told, 9)


def test_lines_without_a_carrier_that_lie_together_are_one_text() -> None:
    lines = [line("TO LET", (20, 20, 80, 30)), line("CALL NOW", (25, 33, 85, 43)), line("EXIT", (150, 80, 190, 95))]
    block, alone = notes_of(record([], lines))
    assert (block.texts, block.box, alone.texts) == (("TO LET", "CALL NOW"), (20, 20, 85, 43), ("EXIT",))


def test_reading_order_of_rows_and_of_scripts_from_the_right() -> None:
    rows: list[tuple[Box, str]] = [((60, 1, 90, 11), "B"), ((0, 0, 50, 10), "A"), ((0, 20, 30, 30), "C")]
    assert in_reading_order(rows) == ["A", "B", "C"]
    assert in_reading_order([((0, 0, 50, 10), "שלום"), ((60, 1, 90, 11), "ברוך")]) == ["ברוך", "שלום"]


BOXES = st.tuples(st.floats(0, 150), st.floats(0, 70), st.floats(5, 50), st.floats(5, 30)).map(
    lambda box: (box[0], box[1], box[0] + box[2], box[1] + box[3])
)


@given(st.lists(BOXES, max_size=8), st.integers(0, 3))
def test_relations_are_right_and_each_thing_is_in_one(boxes: list[Box], most: int) -> None:
    found = clear_relations(boxes, SIZE, most)
    assert len(found) <= most
    assert len({index for i, _, j in found for index in (i, j)}) == 2 * len(found)
    for i, relation, j in found:
        a, b = boxes[i], boxes[j]
        assert a[2] < b[0] if relation == "left" else a[3] < b[1]
        assert relation_of(b, a, SIZE) == OPPOSITE[relation]


@pytest.mark.parametrize(
    "other", [(10.0, 20.0, 30.0, 40.0), (12.0, 15.0, 50.0, 45.0), (60.0, 60.0, 90.0, 90.0), (41.0, 10.0, 60.0, 40.0)]
)
def test_overlapping_touching_and_diagonal_boxes_have_no_relation(other: Box) -> None:
    assert relation_of((10, 10, 40, 40), other, SIZE) is None


def relations(*regions: Region, lines: list[TextLine] | None = None) -> set[str]:
    return {one for told in relations_of(record(list(regions), lines), 9, WORDING) for one in told.sentences}


def test_relations_in_words() -> None:
    bee, cap = region("a bee", (10, 10, 40, 40)), region("a red cap", (100, 12, 140, 40))
    assert relations(bee, cap) == {
        "The bee is to the left of the red cap.",
        "The red cap is to the right of the bee.",
    }
    assert relations(bee, region("an owl", (10, 60, 40, 90))) == {
        "The bee is above the owl.",
        "The owl is below the bee.",
    }
    # two signs are told apart by their words; two things of one name are not told
    signs = [region("a sign", (10, 10, 40, 40)), region("a sign", (100, 12, 140, 40))]
    words = [line("EXIT", (12, 20, 38, 30)), line("OPEN", (105, 20, 135, 30))]
    assert 'The sign that says "EXIT" is to the left of the sign that says "OPEN".' in relations(*signs, lines=words)
    assert not relations(*signs)
    assert not relations(region("people", (10, 10, 40, 40)), cap)


@given(st.data())
def test_a_guided_text_tells_each_relation_once_after_all_things(data: st.DataObject) -> None:
    told = [
        Relation(("The bee is above the owl.", "The owl is below the bee.")),
        Relation(("The cat is below the cap.",)),
    ]
    facts = [Fact("a bee", "left"), Fact("an owl", "right"), Fact("a pink wall", lead="on")]
    guide = Guide(WORDING, facts, lambda text: tuple(map(ord, text)), 0, told)
    while not guide.done:
        guide.accept(data.draw(st.sampled_from(guide.allowed())))
    text = "".join(map(chr, guide.tokens))
    assert all(sum(text.count(sentence) for sentence in one.sentences) == 1 for one in told)
    first = min(text.index(sentence) for one in told for sentence in one.sentences if sentence in text)
    assert all(0 <= re.search(fact.name, text, re.I).start() < first for fact in facts)  # type: ignore[union-attr]
    assert text.endswith(".") and "  " not in text


def guided(facts: list[Fact], choose: Callable[[list[int]], int]) -> str:
    guide = Guide(WORDING, facts, lambda text: tuple(map(ord, text)), 0)
    while not guide.done:
        guide.accept(choose(guide.allowed()))
    return "".join(map(chr, guide.tokens))


@given(st.data())
def test_the_verb_has_the_number_of_its_thing(data: st.DataObject) -> None:
    lines = [line("OPEN", (10, 10, 40, 20)), line("NO EXIT", (150, 70, 190, 80))]
    facts = facts_of(record([region("skis", (80, 40, 120, 60)), region("a bus", (10, 70, 40, 90))], lines), 9)
    text = guided(facts, lambda allowed: data.draw(st.sampled_from(allowed)))
    for thing, plural in (('word "OPEN"', False), ('words "NO EXIT"', True), ("skis", True), ("bus", False)):
        after = re.search(rf"(?:There (is|are) )?(?:the |a )?(?:small |large )?{thing} (\w+)", text, re.I)
        assert after, text
        if after[1]:
            assert after[1] == ("are" if plural else "is"), text
        elif after[2] != "can":
            assert after[2] in (("are", "appear") if plural else ("is", "appears")), text


ODD = ["<OPEN>", 'SAY "HI" NOW', "5 < 6", "<b>SALE</b>", "<|im_end|>", "A&amp;B", 'a “b” "c"', "[INST]", "PLAIN"]


@pytest.mark.parametrize("read", ODD)
def test_what_was_read_is_quoted_letter_by_letter(read: str) -> None:
    one = record(
        [region("a sign", (100, 12, 140, 40))], [line(read, (10, 60, 60, 70)), line("EXIT", (105, 20, 135, 30))]
    )
    made = cleaned(counts_and_places(one, 9))
    parts = sentences_of(made)
    told = one.model_copy(
        update={"description": Description(text=made, sentences=[Sentence(text=part, evidence=[]) for part in parts])}
    )
    found = as_read(told).description
    assert found
    assert quotations(found.text) == (read, "EXIT") and [part.text for part in found.sentences] == sentences_of(
        found.text
    )
    # what a model is asked about has no mark that it could take for one of its own
    assert quotable(read) in full_notes(one, 9) and not re.search(r"<\||</|\[INST|&amp;", full_notes(one, 9))


def test_control_characters_are_no_letters() -> None:
    one = record([], [line('\x1b[31m<A>\u202e "B"\n', (10, 60, 60, 70))])
    made = Description(text=counts_and_places(one, 9), sentences=[])
    found = as_read(one.model_copy(update={"description": made})).description
    assert found and quotations(found.text) == ('[31m<A> "B"',)


def test_a_line_that_two_may_mean_stays() -> None:
    lines = [line("<b>", (10, 60, 60, 70)), line("b", (110, 60, 160, 70))]
    one = record([], lines)
    made = Description(text=counts_and_places(one, 9), sentences=[])
    assert as_read(one.model_copy(update={"description": made})).description == made
