"""The thresholds of `strata calibrate`, and what it refuses; tests/app/test_end_to_end.py runs it on a real job."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from models.evidence.calibration import Crop, Judged, crops_of, mismatched, scores_of
from models.evidence.thresholds import LEAST_JUDGED, LEAST_PASSING, Scores, threshold_of
from models.weights.inventory import PROFILES
from strata.cli import exits
from strata.cli.main import main
from strata.core import ImageReference, Record, Region, load_profile
from strata.data.described_images import labelled_pairs
from strata.errors import InvalidInput

PROBABILITY = st.floats(0, 0.999, allow_nan=False)


@example([0.0625], 0.001)
@given(st.lists(PROBABILITY, min_size=1, max_size=300), st.sampled_from([0.001, 0.02, 0.3]))
def test_at_most_the_share_passes_and_hardly_fewer(scores: list[float], share: float) -> None:
    found = threshold_of(Scores(scores, scores, []), share)
    assert found.passing <= share
    # the best pair that must not pass is just below it
    below = sorted(scores, reverse=True)[int(share * len(scores))]
    assert below < found.threshold <= max(below * 1.002, 1e-11)


def test_a_matcher_that_is_sure_of_wrong_pairs_has_no_threshold() -> None:
    with pytest.raises(InvalidInput, match="no threshold"):
        threshold_of(Scores([1.0] * 50 + [0.1] * 50, [], []), 0.02)


def test_labels_give_recall() -> None:
    known = [(0.9, True), (0.2, True), (0.95, False), (0.1, False)]
    found = threshold_of(Scores([0.5] * 100, [0.6, 0.4], known), 0.02)
    assert (found.recall, found.wrong_passing, found.own_passing) == (0.5, 0.5, 0.5)
    assert 0.5 < found.threshold < 0.501
    assert threshold_of(Scores([0.5] * 100, [], []), 0.02).recall is None


def test_judged_pairs_raise_a_threshold_until_enough_of_them_are_right() -> None:
    # 40 right ones from 0.61 to 1, wrong ones between them and above the mismatched pairs
    judged = [(0.6 + number / 100, True) for number in range(1, 41)] + [(0.55, False)] * 4 + [(0.705, False)] * 4
    scores = Scores([0.5] * 100, [0.6], [], judged)
    assert threshold_of(scores, 0.02).threshold == pytest.approx(0.5001)
    found = {precision: threshold_of(scores, 0.02, precision) for precision in (0.8, 0.9, 1.0)}
    assert [one.threshold for one in found.values()] == pytest.approx([0.5001, 0.5501, 0.7051])
    assert found[0.9].judged is not None
    rates = found[0.9].judged
    assert (rates.precision.right, rates.precision.judged, rates.recall.rate, rates.wrong_passing.right) == (
        40,
        44,
        1,
        4,
    )
    assert rates.precision.low is not None and 0.78 < rates.precision.low < 40 / 44 < (rates.precision.high or 0)
    # without judged pairs it is the mismatched ones that decide
    assert threshold_of(Scores([0.5] * 100, [], []), 0.02, 1.0).threshold == pytest.approx(0.5001)


@given(
    st.lists(st.tuples(PROBABILITY, st.booleans()), min_size=20, max_size=60),
    st.lists(PROBABILITY, min_size=50, max_size=60),
    st.floats(0, 1),
)
def test_a_threshold_with_judged_pairs_keeps_both_promises(
    judged: list[tuple[float, bool]], wrong: list[float], precision: float
) -> None:
    try:
        found = threshold_of(Scores(wrong, [], [], judged), 0.1, precision)
    except InvalidInput as error:
        assert "no threshold has" in str(error)
        return
    passing = [right for score, right in judged if score >= found.threshold]
    assert len(passing) >= LEAST_PASSING and sum(passing) >= precision * len(passing)
    assert found.passing <= 0.1


def test_a_precision_that_no_threshold_has_is_refused_with_the_best() -> None:
    judged = [(0.9, True)] * 15 + [(0.9, False)] * 5
    with pytest.raises(InvalidInput, match=r"95% right phrases .* at best 15 of 20 are, from 0.5001"):
        threshold_of(Scores([0.5] * 100, [], [], judged), 0.02, 0.95)
    with pytest.raises(InvalidInput, match=r"too few of them pass 0.9501"):
        threshold_of(Scores([0.95] * 100, [], [], judged), 0.02, 0.5)


def test_too_few_judgments_are_refused_in_one_line() -> None:
    crop = Crop(Image.new("RGB", (8, 8)), "a dog", "region", 0)
    few = Judged([(crop, True)] * (LEAST_JUDGED - 1), 3, stale=1, other=2)
    assert few.refused() == (
        "too few judgments: 20 judged phrases are needed, and there are 19 of regions and 0 of objects; "
        "1 more are of sentences that the descriptions do not have; 2 more are of other versions of these images' "
        "descriptions"
    )
    assert Judged([(crop, True)] * LEAST_JUDGED, 3).refused() is None


def test_judged_crops_are_those_of_labelled_entries() -> None:
    regions = [Region(box=(0, 0, 4, 4), phrase=phrase) for phrase in ("a dog", "a cat", "a tree")]
    place = ImageReference(uri="a", size=1)
    record = Record(key="0", image=place, width=8, height=8, regions=regions)
    image = Image.new("RGB", (8, 8))
    found = Judged.of([(record, image, ({"regions/0": True, "regions/2": False, "caption": True}, 2, 1))], 5)
    assert [(crop.phrase, right) for crop, right in found.crops] == [("a dog", True), ("a tree", False)]
    assert (found.judgments, found.stale, found.other) == (2, 1, 5)


def test_mismatched_pairs_have_no_phrase_of_their_own_image() -> None:
    image = Image.new("RGB", (8, 8))
    phrases = (("a red car", "A dog"), ("a dog", "a cat"), ("a tree", "a red car"))
    crops = [Crop(image, phrase, "region", number) for number, own in enumerate(phrases) for phrase in own]
    by_phrase = [(pair.crop, pair.phrase) for pair in mismatched(crops)]
    assert {phrase for _, phrase in by_phrase} == {"a red car", "A dog", "a dog", "a cat", "a tree"}
    own = crops_of(
        Record(
            key="0",
            image=ImageReference(uri="a", size=1),
            width=8,
            height=8,
            regions=[Region(box=(0, 0, 4, 4), phrase="a dog", kept=False, reason="low_match")],
        ),
        image,
        0,
    )
    assert [(crop.phrase, crop.image.size) for crop in own] == [("a dog", (4, 4))]  # also of what was dropped
    # the same phrases everywhere: no wrong pair
    assert mismatched([Crop(image, "a dog", "region", number) for number in range(9)]) == []


def test_too_few_phrases_are_refused_before_the_weights_are_loaded() -> None:
    profile = load_profile("paper", PROFILES)  # its weights are not here
    crops = [Crop(Image.new("RGB", (8, 8)), f"thing {number}", "region", number) for number in range(9)]
    with pytest.raises(InvalidInput, match=f"needs {LEAST_PASSING * 50} pairs .* 72 of regions and 0 of objects"):
        scores_of(profile, crops, [], 0.02, lambda done, total: None)


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("{", "line 2"),
        ("[]", "line 2"),
        (json.dumps({"image": "a.png", "phrase": "x", "right": "yes"}), "right must be true or false"),
        (json.dumps({"image": "a.png", "phrase": "x"}), "right"),
        (json.dumps({"image": "none.png", "phrase": "x", "right": True}), "none.png"),
        (json.dumps({"image": "a.png", "phrase": "x", "right": True, "box": [5, 0, 1, 9]}), "box"),
        (json.dumps({"image": "a.png", "phrase": "x", "right": True, "box": 5}), "TypeError"),
        (json.dumps({"image": "a.png", "phrase": "x", "right": True, "layer": "text"}), "layer"),
    ],
)
def test_a_label_that_is_none_is_told_with_its_line(entry: str, told: str, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    good = json.dumps({"image": "a.png", "phrase": "a dog", "right": True, "box": [0, 0, 4, 4], "layer": "object"})
    path = tmp_path / "labels.jsonl"
    path.write_text(f"{good}\n{entry}\n")
    with pytest.raises(InvalidInput) as caught:
        labelled_pairs(path, 10**6)
    assert told in str(caught.value) and "line 2" in str(caught.value)
    path.write_text(f"\n{good}\n")
    (pair,) = labelled_pairs(path, 10**6)
    assert (pair.box, pair.phrase, pair.right, pair.layer) == ((0, 0, 4, 4), "a dog", True, "object")


def test_a_profile_without_a_matcher_has_nothing_to_calibrate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bare.toml"
    path.write_text('[stages.captioner]\nbackend = "florence2"\nmodel = "bundled:captioner"\nrevision = ""\n')
    with pytest.raises(SystemExit) as caught:
        main(["calibrate", str(path), "--from", "job", "--store", str(tmp_path / "store")])
    assert caught.value.code == exits.USAGE
    assert capsys.readouterr().err == "strata: profile bare has no matcher: it has no threshold to calibrate\n"


def test_a_name_that_cannot_be_is_refused_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken.toml").write_text("")
    for name, told in (("../x", "'../x' is no profile's name: use letters, digits, _ and -"), ("taken", "exists")):
        options = ("--name", name, "--folder", str(tmp_path), "--store", str(tmp_path / "store"))
        with pytest.raises(SystemExit) as caught:
            main(["calibrate", "demo", "--from", "job", *options])
        assert caught.value.code == exits.USAGE
        (line,) = capsys.readouterr().err.splitlines()
        assert told in line
