"""The weight of evidence for the names of a place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.boxes import iou
from models.evidence.weight import SAME_PLACE, named, observed, weighed
from samples.name_weights import Case, figures, fit, unweighed
from strata.core import EvidenceSettings, NameWeights, Record, Settings, load_profile
from strata.core.layers import Box, Caption, Mask, ObjectMask, Region
from tests.described import described

MASK = Mask(size=(9, 9), counts="0")
PLACE: Box = (10, 10, 40, 40)
ELSEWHERE: Box = (60, 10, 90, 40)


def region(phrase: str, score: float, match: float | None, box: Box = PLACE) -> Region:
    return Region(box=box, phrase=phrase, score=score, match=match)


def thing(phrase: str, match: float | None, box: Box = PLACE, duplicate: bool = False) -> ObjectMask:
    made = ObjectMask(box=box, mask=MASK, area=9, phrase=phrase, score=0.9, match=match)
    return made.model_copy(update={"kept": False, "reason": "duplicate"}) if duplicate else made


def record(caption: str, regions: list[Region], objects: list[ObjectMask]) -> Record:
    layers = {"caption": Caption(text=caption, match=0.9), "regions": regions, "objects": objects}
    return described("k").model_copy(update=layers)


def told(found: Record) -> list[str | None]:
    return [entry.reason for entry in (*(found.regions or ()), *(found.objects or ()))]


def test_the_heavier_name_of_a_place_is_kept_and_the_other_one_dropped() -> None:
    # as in samples/images/one.jpg: before, neither was kept
    heart, cap = region("a red heart", 0.63, 0.77), thing("a red cap", 0.99)
    found = weighed(record("A red cap on a yellow background.", [heart], [cap]), 6.5)
    assert told(found) == ["contradicted", None]
    # what the caption names counts, and only in its colour
    doubted = cap.model_copy(update={"match": 0.9})
    found = weighed(record("A blue cap and a red heart.", [heart], [doubted]), 5.0)
    assert told(found) == [None, "contradicted"]


def test_a_thing_that_each_observer_calls_something_else_is_not_named() -> None:
    found = weighed(
        record("A turtle on a pink background.", [region("an apple", 0.6, 0.8)], [thing("a pig", 0.8)]), 10.0
    )
    assert told(found) == ["low_evidence", "contradicted"]


def test_one_that_is_not_sure_does_not_outweigh_the_others() -> None:
    sure = record("A cat.", [region("a cat", 0.95, 0.4)], [thing("a cat", None, duplicate=True)])
    assert told(weighed(sure, 6.5)) == [None, "duplicate"]
    # without the captioner's names it is too little
    assert told(weighed(record("", [region("a cat", 0.8, 0.4)], []), 6.5)) == ["low_evidence"]


def test_each_observation_counts_by_its_own_factor() -> None:
    # the captioner calls the mask a cap, the detector the box a heart; the caption names the cap
    found = record("A red cap.", [region("a red heart", 0.8, 0.7)], [thing("a red cap", 0.9)])
    entries = list(named(found))
    heart, cap = (observed(one, entries, found) for one in entries)
    assert (heart["region"], heart["object"], heart["caption"], heart["other_object"]) == (True, False, False, True)
    assert (cap["region"], cap["object"], cap["caption"], cap["other_region"]) == (False, True, True, True)
    assert heart["region_score"] == pytest.approx(1.386, abs=1e-3)
    assert heart["region_match"] == pytest.approx(0.847, abs=1e-3) and heart["object_match"] == 0.0
    assert cap["object_match"] == pytest.approx(2.197, abs=1e-3) and cap["region_match"] == 0.0
    # where the detector alone counts, its name is kept; where the caption alone counts, the other one
    nothing = NameWeights(**dict.fromkeys(NameWeights.model_fields, 0.0))
    assert told(weighed(found, 0.5, nothing.model_copy(update={"region": 1.0}))) == [None, "contradicted"]
    assert told(weighed(found, 0.5, nothing.model_copy(update={"caption": 1.0}))) == ["contradicted", None]
    assert told(weighed(found, 0.5, nothing)) == ["low_evidence", "contradicted"]


def test_the_weights_are_fitted_to_what_tells_known_things_from_unknown_ones() -> None:
    # the detector is as sure of unknown things; only the matcher's opinion of the box tells them apart
    known = [Case(record("", [region("a cat", 0.9, 0.95)], []), [("a cat", PLACE)], True)] * 9
    unknown = [Case(record("", [region("a cat", 0.9, 0.2)], []), [("", PLACE)], False)] * 9
    weights = fit([*known, *unknown])
    assert weights.region_match > 0.5
    assert weights.region_score == pytest.approx(0.0, abs=0.01)
    # a least weight between both keeps the known ones alone
    assert figures([*known, *unknown], weights, 0.0) == (1.0, 0.0, 0.0)
    assert figures([*known, *unknown], weights, -100.0) == (1.0, 0.0, 1.0)
    assert figures([*known, *unknown], weights, 100.0) == (0.0, 0.0, 0.0)


def test_what_was_dropped_by_its_weight_can_be_weighed_again() -> None:
    found = record("A cat.", [region("a cat", 0.9, 0.9), region("a dog", 0.3, 0.1)], [thing("a cat", 0.9, ELSEWHERE)])
    assert unweighed(weighed(found, 100.0)) == found
    # other reasons stay
    repeated = record("A cat.", [], [thing("a cat", 0.9, duplicate=True)])
    assert unweighed(repeated) == repeated


def test_places_do_not_disturb_each_other() -> None:
    found = record("A cat and a dog.", [region("a cat", 0.95, 1.0), region("a dog", 0.95, 1.0, ELSEWHERE)], [])
    assert told(weighed(found, 6.5)) == [None, None]


def test_layers_that_were_not_computed_stay_null_and_other_reasons_stay() -> None:
    empty = record("A cat.", [], []).model_copy(update={"regions": None, "objects": None})
    assert weighed(empty, 6.5) == empty
    failed = region("a cat", 0.9, None).model_copy(update={"kept": False, "reason": "matcher_failed"})
    assert told(weighed(record("A cat.", [failed], []), 0.0)) == ["matcher_failed"]


NAMES = st.sampled_from(["a cat", "a dog", "a red cap"])
BOXES = st.sampled_from([PLACE, ELSEWHERE, (12.0, 12.0, 42.0, 40.0), (10.0, 10.0, 90.0, 40.0)])
SHARES = st.one_of(st.none(), st.floats(0, 1))


@given(
    st.lists(st.builds(region, NAMES, st.floats(0, 1), SHARES, BOXES), max_size=5),
    st.lists(st.builds(thing, NAMES, SHARES, BOXES, st.booleans()), max_size=5),
    st.floats(0, 30),
)
def test_no_place_has_two_names_and_a_lower_bar_keeps_no_less(
    regions: list[Region], objects: list[ObjectMask], least: float
) -> None:
    whole = record("A cat and a red cap.", regions, objects)
    found = weighed(whole, least)
    kept = [entry for entry in (*(found.regions or ()), *(found.objects or ())) if entry.kept]
    for a in kept:
        assert all(a.phrase == b.phrase or iou(a.box, b.box) < SAME_PLACE for b in kept)
    lower = weighed(whole, least / 2)
    more = [entry for entry in (*(lower.regions or ()), *(lower.objects or ())) if entry.kept]
    assert len(more) >= len(kept)


@pytest.mark.parametrize("name", ["paper", "modern", "everyday"])
def test_only_the_demo_weighs_names(name: str) -> None:
    folder = Settings().profiles_dir
    assert load_profile(name, folder).evidence.weight is None
    demo = load_profile("demo", folder).evidence
    assert demo.weight is not None and demo.weights is not None
    assert demo.deciding()["weights"] == demo.weights.model_dump()
    assert EvidenceSettings().deciding().keys().isdisjoint({"weight", "weights", "text_letters", "caption_claims"})
