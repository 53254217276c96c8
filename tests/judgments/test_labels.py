"""Which entries people's judgments call right or wrong, and where the judged rows of a source lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from strata.core import ImageReference, Record
from strata.core.layers import Description, Sentence
from strata.evaluation.judged import judged_images, judged_rows
from strata.judgments import Judgment, Judgments, labels_of
from strata.store import Store
from tests.described import described, write_part
from tests.judged import judgment

TEXTS = {"A red car.": ["regions/0"], "A dog and a cat.": ["regions/1", "objects/0"], "It is day.": []}
DESCRIPTION = Description(
    text=" ".join(TEXTS), sentences=[Sentence(text=text, evidence=found) for text, found in TEXTS.items()]
)


def said(*sentences: tuple[int, str, str | None], reviewer: str = "Ada") -> Judgment:
    """An edited judgment with verdicts on sentences: index, verdict and reason."""
    texts = list(TEXTS)
    given: list[dict[str, Any]] = [
        {"index": index, "verdict": verdict, "reason": reason, "text": texts[index]}
        | ({"edited": "A van."} if verdict == "edited" else {})
        for index, verdict, reason in sentences
    ]
    return judgment(f"1-{reviewer}", 0, "edited", sentences=tuple(given), text="A van.", reviewer=reviewer)


@pytest.mark.parametrize(
    ("judgments", "right"),
    [
        ([judgment("1")], {"regions/0": True, "regions/1": True, "objects/0": True}),
        # a description that was rejected as a whole says nothing of its sentences
        ([judgment("1", 0, "rejected", reason="wrong_attribute")], {}),
        ([said((0, "rejected", None))], {"regions/0": False, "regions/1": True, "objects/0": True}),
        ([said((0, "edited", "wrong_attribute"))], {"regions/0": False, "regions/1": True, "objects/0": True}),
        # the fault is another one, or nobody knows of which entry
        ([said((0, "edited", None))], {"regions/1": True, "objects/0": True}),
        ([said((0, "rejected", "wrong_relation"))], {"regions/1": True, "objects/0": True}),
        ([said((1, "rejected", "unsupported_object"))], {"regions/0": True}),
        # one reviewer who finds a fault is enough
        ([judgment("2"), said((0, "rejected", None))], {"regions/0": False, "regions/1": True, "objects/0": True}),
    ],
)
def test_labels_are_what_is_known_of_single_entries(judgments: list[Judgment], right: dict[str, bool]) -> None:
    found = labels_of(DESCRIPTION, judgments)
    assert found.right == right
    assert (found.used, found.stale) == (len(judgments) if right else 0, 0)


def test_an_entry_that_is_right_and_wrong_has_no_label() -> None:
    sentences = [Sentence(text=text, evidence=["regions/0"]) for text in TEXTS]
    description = DESCRIPTION.model_copy(update={"sentences": sentences})
    assert labels_of(description, [said((0, "rejected", None))]).right == {}


def test_a_judgment_of_another_text_is_stale() -> None:
    other = DESCRIPTION.model_copy(update={"sentences": [Sentence(text="A blue car.", evidence=["regions/0"])]})
    for description in (other, None):
        found = labels_of(description, [said((0, "rejected", None))])
        assert found == ({}, 0, 1)


def test_judgments_of_other_versions_are_counted_and_not_used(store: Store, tmp_path: Path) -> None:
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    place = ImageReference(uri=str(tmp_path / "a.png"), offset=0, size=(tmp_path / "a.png").stat().st_size)
    record: Record = described("a", ["car"]).model_copy(update={"image": place})
    part = write_part(store, [record, described("b")])
    write_part(store, [record], fingerprint="e" * 16)
    Judgments(store).append([judgment("1"), judgment("2", 1, key="b"), judgment("3", 2, fingerprint="e" * 16)])
    found = judged_rows(store, part.fingerprint)
    assert ([one.id for one in found.judgments], found.other) == (["judgment-1", "judgment-2"], 1)
    # the image of b is nowhere
    done: list[int] = []
    (image,) = judged_images(store, found, 9, 10**6, done.append)
    assert (image.record.key, image.image.size, image.labels.right, done) == ("a", (64, 48), {"caption": True}, [1, 2])
    assert list(judged_images(store, found, 1, 10**6, done.append)) == []
