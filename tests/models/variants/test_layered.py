"""The variants that follow from the layers: tags, JSON and questions, each true of the evidence."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema
from hypothesis import given, settings
from hypothesis import strategies as st

from models.evidence.domains import OUTSIDE
from models.items import ComposeRequest
from models.pipeline import LlmPipeline
from models.variants import closed_kinds, layered_variants
from models.variants.questions import MOST_TURNS, turns_of
from models.variants.structured import Picture
from strata.core import Box, Record, TextSettings, Variant, load_profile
from tests.models.variants.records import CAR, DOG, DOG2, SIGN, SIZE, STREET, an_object, record

SCHEMA = Path("docs/variant-json.schema.json")
DEMO = load_profile("demo", Path("models/profiles"))


def variant(name: str, of: Record, absent: tuple[str, ...] = ()) -> Variant:
    (found,) = layered_variants(of, [name], absent)
    return found


def test_tags_are_the_kept_entries_in_order_of_trust_each_once() -> None:
    one = record(("a car", CAR), ("a dog", DOG), dropped=(("a cat", SIGN),), tags=("street", "dog"))
    regions = [one.regions[0].model_copy(update={"match": 0.6}), *one.regions[1:]]  # type: ignore[index]
    one = one.model_copy(update={"regions": regions, "objects": [an_object("a red car.", CAR, 0.5)]})
    found = variant("tags", one)
    assert found.text == "dog, street, red car"
    assert [sentence.evidence for sentence in found.sentences] == [
        ["regions/1", "tags/1"],
        ["tags/0"],
        ["regions/0", "objects/0"],
    ]


def test_the_json_has_things_attributes_relations_and_text_in_pixels() -> None:
    found = json.loads(variant("json", STREET).text)
    assert (found["width"], found["height"]) == SIZE
    car, dog, sign, _ = found["things"]
    assert car["box"] == list(CAR) and car["attributes"] == {"colour": ["red"]} and car["evidence"] == ["regions/0"]
    assert dog["attributes"] == {"size": ["small"]} and dog["place"] == "right"
    assert sign["text"] == ["OPEN"] and sign["evidence"] == ["regions/2", "text/0"]
    assert {"subject": 0, "relation": "left of", "object": 1} in found["relations"]
    assert {"subject": 2, "relation": "above", "object": 3} in found["relations"]
    assert found["text"] == [{"text": "OPEN", "box": [530, 20, 610, 60], "on": 2, "evidence": ["text/0"]}]


def test_the_json_follows_its_published_schema() -> None:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    assert schema == Picture.model_json_schema()
    hostile = record(('a "red"\n{car}', CAR), lines=(('\x1b[0m</script>"\\\u202e😀', DOG),), caption="\x00\n")
    for one in (STREET, record(), hostile):
        jsonschema.validate(json.loads(variant("json", one).text), schema)


def test_questions_repeat_for_a_key_and_differ_between_keys() -> None:
    texts = {key: variant("questions", STREET.model_copy(update={"key": key})).text for key in "abcdefgh"}
    assert len(set(texts.values())) > 4
    assert all(variant("questions", STREET.model_copy(update={"key": key})).text == text for key, text in texts.items())


def test_questions_of_a_street() -> None:
    turns = [turn for key in "abcdefgh" for turn in turns_of(STREET.model_copy(update={"key": key}))]
    answers = {turn.question: turn.answer for turn in turns}
    assert answers["What is in the picture?"] == "The picture shows a red car, two dogs and a sign."
    assert answers["What colour is the car?"] == "The car is red."
    assert answers["What does the sign say?"] == 'The sign says "OPEN".'
    assert answers["What text can be read in the picture?"] == 'The text in the picture reads "OPEN".'
    assert answers["How many dogs can you see?"] == "There are two dogs."
    evidence = {turn.question: turn.evidence for turn in turns}
    assert evidence["What colour is the car?"] == ["regions/0"]
    assert evidence["How many dogs can you see?"] == ["regions/1", "regions/3"]
    # of several things one is asked for
    assert any(re.search(r", the \w+ or the \w+\?$|: the \w+ or the \w+\?$", question) for question in answers)
    assert not any(" and " in question for question in answers if question.startswith("Which of these"))
    # no question takes one of the two dogs for "the dog"
    assert not any("the dog" in turn.question + turn.answer for turn in turns)


def test_a_kind_in_doubt_is_not_counted() -> None:
    one = record(("a dog", DOG), dropped=(("a dog", DOG2),))
    asked = [turn.question for key in "abcdefgh" for turn in turns_of(one.model_copy(update={"key": key}))]
    assert asked and not any("How many" in question for question in asked)


def test_no_is_only_said_of_kinds_that_no_layer_has_seen() -> None:
    one = record(("a dog", DOG), dropped=(("a cat", DOG2),), caption="a dog by a tree", alt_text="my horses")
    kinds = ("a dog", "a cat", "a tree", "a horse", "a puppy", "a rocket")
    noes = {
        turn.question
        for key in "abcdefgh"
        for turn in turns_of(one.model_copy(update={"key": key}), kinds)
        if turn.answer.startswith("No, there is no")
    }
    assert noes == {"Is there a rocket in the picture?"}
    assert not any(turn.answer.startswith("No, there") for turn in turns_of(one))


def test_only_a_profile_with_a_domain_knows_what_is_not_there() -> None:
    assert "a rocket" in closed_kinds(DEMO)
    assert closed_kinds(load_profile("everyday", Path("models/profiles"))) == ()


COLOURS = ("red", "blue", "green", "yellow")
NOUNS = ("car", "dog", "balloon", "book", "sign")
CELLS = [(column, row) for column in range(4) for row in range(4)]


@st.composite
def pictures(draw: st.DrawFn) -> tuple[Record, list[tuple[str, Box]]]:
    """A record of things in cells of a grid of 4 by 4, with what is there."""
    cells = draw(st.lists(st.sampled_from(CELLS), max_size=7, unique=True))
    things: list[tuple[str, Box]] = []
    for column, row in cells:
        x, y = column * 160 + draw(st.integers(5, 60)), row * 120 + draw(st.integers(5, 40))
        noun, colour = draw(st.sampled_from(NOUNS)), draw(st.sampled_from((*COLOURS, "")))
        phrase = " ".join(filter(None, ("a", colour, noun)))
        things.append((phrase, (x, y, x + draw(st.integers(20, 90)), y + draw(st.integers(20, 70)))))
    return record(*things, key=draw(st.text(max_size=8))), things


def noun_of(phrase: str) -> str:
    return phrase.split()[-1]


def means(name: str, things: list[tuple[str, Box]]) -> tuple[str, Box]:
    """The only thing that a name with "the" means."""
    words = set(name.removeprefix("the ").split())
    (one,) = [thing for thing in things if words <= set(thing[0].split())]
    return one


NUMBER_WORDS = "zero one two three four five six seven".split()
SIDES = {"to the left of": (0, -1), "to the right of": (0, 1), "above": (1, -1), "below": (1, 1)}


def is_true(question: str, answer: str, things: list[tuple[str, Box]]) -> bool:
    """Whether an answer is true, by what is there; AssertionError for an answer of unknown form."""
    kinds = Counter(noun_of(phrase) for phrase, _ in things)
    if found := re.fullmatch(r"The picture shows (.+)\.", answer):
        told = re.split(r", | and ", found[1])
        return len(told) == len(Counter(phrase for phrase, _ in things))
    if found := re.fullmatch(r"There (?:is|are) (\w+) (\w+?)s?\.", answer):
        return kinds[found[2]] == NUMBER_WORDS.index(found[1])
    if found := re.fullmatch(r"No, there is no (?:\w+ )?(\w+) in the picture\.", answer):
        return not kinds[found[1]]
    if found := re.fullmatch(r"Yes, there is (a [\w ]+) at the [\w ]+ of the picture\.", answer):
        return any(phrase == found[1] for phrase, _ in things)
    if found := re.fullmatch(
        r"(?:(?:Yes|No), )?(the [\w ]+) is (to the left of|to the right of|above|below) (the [\w ]+)\.", answer, re.I
    ):
        axis, sign = SIDES[found[2]]
        a, b = means(found[1].lower(), things)[1], means(found[3], things)[1]
        return sign * (a[axis] + a[axis + 2] - b[axis] - b[axis + 2]) > 0 and (
            " " + found[2] + " " in question
        ) is not (answer.startswith("No"))
    if found := re.fullmatch(r"(?:(Yes|No), )?(the [\w ]+) is (\w+)\.", answer, re.I):
        if found[1]:
            assert found[3] in question if found[1] == "Yes" else found[3] not in question
        return found[3] in means(found[2].lower(), things)[0].split()
    if found := re.fullmatch(r"(The [\w ]+) is at the ([\w ]+) of the picture\.", answer):
        x1, y1, x2, y2 = means(found[1].lower(), things)[1]
        across, down = (x1 + x2) / 2 / SIZE[0], (y1 + y2) / 2 / SIZE[1]
        return ("left" in found[2]) is (across < 1 / 3) and ("top" in found[2]) is (down < 1 / 3)
    if found := re.fullmatch(r"It is (the [\w ]+)\.", answer):
        listed = [means(name, things)[1] for name in re.split(r", | or ", question.partition(": ")[2].rstrip("?"))]
        one = means(found[1], things)[1]
        side = re.search(r"closest to the (\w+) side", question)[1]  # type: ignore[index]
        axis, best = {"left": (0, min), "right": (0, max), "top": (1, min), "bottom": (1, max)}[side]
        return one[axis] + one[axis + 2] == best(box[axis] + box[axis + 2] for box in listed)
    found = re.fullmatch(r"(The [\w ]+) is the largest of them\.", answer)
    assert found, answer
    largest = max(things, key=lambda thing: (thing[1][2] - thing[1][0]) * (thing[1][3] - thing[1][1]))
    return means(found[1].lower(), things) == largest or "largest in the picture" in question


@settings(max_examples=150, deadline=None)
@given(pictures())
def test_every_answer_is_true(picture: tuple[Record, list[tuple[str, Box]]]) -> None:
    one, things = picture
    turns = turns_of(one, ("a rocket", "a red car", "a blue book", "a dog"))
    assert len(turns) <= MOST_TURNS and bool(turns) >= bool(things)
    assert len({turn.question for turn in turns}) == len(turns)
    for turn in turns:
        assert is_true(turn.question, turn.answer, things), turn
        assert turn.answer.startswith("No, there is no") or turn.evidence


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=30), st.tuples(*[st.floats(0, 400)] * 2)), max_size=6), st.text(max_size=60))
def test_any_words_give_variants(entries: list[tuple[str, tuple[float, float]]], line: str) -> None:
    regions = [(phrase, (x, y, x + 50, y + 50)) for phrase, (x, y) in entries]
    one = record(*regions, lines=((line, (0, 0, 90, 20)),), caption=line)
    json.loads(variant("json", one).text)
    assert all(turn.question.endswith("?") and turn.answer for turn in variant("questions", one).turns)
    assert "\n" not in variant("tags", one).text


def test_the_pipeline_writes_what_is_asked_for_and_fails_no_row() -> None:
    stages: dict[str, Any] = {name: one for name, one in DEMO.stages.items() if name not in ("composer", "verifier")}
    pipeline = LlmPipeline(DEMO.model_copy(update={"stages": stages}))
    asked = TextSettings(variants=["questions", "tags"])
    outside = STREET.warned(OUTSIDE, "a photograph")
    requests = [ComposeRequest(one) for one in (STREET, outside, STREET.failed("ocr", "x", "y"))]
    found, other, failed = pipeline.run(requests, asked)
    assert [one.name for one in found.variants or ()] == ["tags", "questions"] and failed.variants is None
    noes = [["No, there is no" in one.text for one in each.variants or ()] for each in (found, other)]
    assert noes == [[False, True], [False, False]]
    assert pipeline.run(requests[:1])[0].variants is None
