"""Single sentences against a known record: what is kept of each, and why."""

from __future__ import annotations

import pytest

from models.verifier.entities import facts_of
from models.verifier.verifying import Reading, faults_of, remaining
from tests.models.verifier.records import read, record

STREET = record(
    ("a red car", (10, 10, 60, 50)),
    ("a dog", (130, 10, 180, 60)),
    ("a dog", (20, 140, 60, 190)),
    ("a sign", (120, 120, 190, 180)),
    text=[("OPEN", (125, 140, 185, 160))],
    caption="A red car, two dogs and a sign on a green striped background.",
)

KEPT = [
    'There is a large red car at the top left of the picture, while a sign that says "OPEN" is at the bottom right.',
    "The vehicle is red.",
    "Two animals are in the picture.",
    "The red car is to the left of a dog.",
    "A dog is below the red car, and the sign is to the right of it.",
    "There are no people.",
    'The sign reads "open".',
    "The car's wheels are black, and the dog has a long tail.",
    "The picture has a cheerful mood, with a sense of calm.",
]
CUT = {
    "There is a cat at the top left.": ("unsupported_object", None),
    "A truck is at the top left.": ("unsupported_object", None),
    "The car is blue.": ("wrong_attribute", None),
    "Three dogs are in the picture.": ("wrong_count", None),
    "There is one dog.": ("wrong_count", None),
    "The sign is above the red car.": ("wrong_relation", None),
    'A sign says "SHUT".': ("unread_text", None),
    "There are no cars.": ("contradicts", None),
    "A red car is at the top left on a blue background.": ("contradicts", "A red car is at the top left."),
    "There is a red car at the top right, while a dog is at the bottom left.": (
        "wrong_relation",
        "There is a red car, while a dog is at the bottom left.",
    ),
    "A cat is at the left, and a red car is at the top left.": ("unsupported_object", "A red car is at the top left."),
    "A dog and a cat are on the grass.": ("unsupported_object", "A dog is on the grass."),
    'A sign that says "SHUT" is at the bottom right.': ("unread_text", "A sign is at the bottom right."),
    "Two dogs stand near a man with an umbrella.": ("unsupported_object", "Two dogs stand."),
}


@pytest.mark.parametrize("sentence", KEPT)
def test_what_the_evidence_supports_stays(sentence: str) -> None:
    found = read(sentence, STREET)
    assert (found.kept, found.reason) == (sentence, None), found.claims


@pytest.mark.parametrize("sentence", CUT)
def test_what_the_evidence_excludes_is_cut_with_the_reason(sentence: str) -> None:
    found = read(sentence, STREET)
    reason, kept = CUT[sentence]
    assert (found.reason, found.kept) == (reason, kept)
    assert any(claim.reason == reason and claim.supported is False for claim in found.claims)


def test_what_nothing_can_judge_stays_unless_the_profile_is_strict() -> None:
    sentence = "The red car is made of metal."
    assert read(sentence, STREET).kept == sentence
    assert read("The car is wooden.", STREET).kept == "The car is wooden."
    strict = read("The car is wooden.", STREET, strict=True)
    assert (strict.kept, strict.reason) == (None, "wrong_attribute")


def test_claims_name_their_evidence() -> None:
    claims = {claim.text: claim for claim in read('The sign to the right of a dog says "OPEN".', STREET).claims}
    assert claims["The sign"].evidence == ["regions/3", "caption"]
    assert claims['"OPEN"'].evidence == ["text/0"]
    assert set(claims["The sign to the right of a dog"].evidence) == {"regions/3", "regions/2"}


def test_a_later_sentence_must_not_contradict_an_earlier_one() -> None:
    bare = record(("a car", (10, 10, 60, 50)))
    found = Reading(facts_of(bare)).read(
        "The scene is a kitchen. The car is red. The car is blue. It stands on a beach."
    )
    assert [one.reason for one in found.sentences] == [None, None, "contradicts", "contradicts"]
    assert remaining(found) == "The scene is a kitchen. The car is red."
    assert faults_of(found) == ["blue", "a beach"]


def test_a_doubtful_count_is_not_called_wrong() -> None:
    doubtful = record(("a dog", (0, 0, 50, 50)), ("a dog", (100, 100, 150, 150)))
    regions = [*(doubtful.regions or ())]
    regions[1] = regions[1].model_copy(update={"kept": False, "reason": "low_score"})
    unsure = doubtful.model_copy(update={"regions": regions})
    assert read("Two dogs are here.", unsure).claims[1].supported is None
    assert read("Three dogs are here.", unsure).reason == "wrong_count"


def test_what_a_model_saw_without_being_sure_is_not_called_absent() -> None:
    known = record(
        ("a dog", (0, 0, 50, 50)), ("a red ball", (150, 150, 190, 190)), caption="A dog on a green background."
    )
    regions = [*(known.regions or ())]
    regions[1] = regions[1].model_copy(update={"kept": False, "reason": "low_evidence"})
    caption = known.caption and known.caption.model_copy(update={"kept": False, "reason": "low_match"})
    unsure = known.model_copy(update={"regions": regions, "caption": caption})
    assert read("A red ball is at the bottom right.", unsure).reason is None
    assert read("There is a green background.", unsure).reason is None
    # what it saw still contradicts another colour, place and number, and a dropped caption another background
    wrong = {
        "A blue ball is at the bottom right.": "unsupported_object",
        "A red ball is at the top left.": "wrong_relation",
        "A red ball is above the dog.": "wrong_relation",
        "There are three red balls.": "wrong_count",
        "There is a pink background.": "contradicts",
    }
    assert {sentence: read(sentence, unsure).reason for sentence in wrong} == wrong
