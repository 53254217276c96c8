"""The classifier of `everyday`, with its real weights: tags, the second opinion on regions, and what the filter makes
of both opinions.
"""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from timm import create_model
from timm.data.imagenet_info import ImageNetInfo

from models.building import build_stage
from models.crops import crop_box
from models.evidence.filter import before_matching, regions_matched
from models.items import Failure, Pair
from models.kinds.classes import ancestors, read_hypernyms
from models.kinds.coco import KINDS_BY_ID, KINDS_BY_PHRASE, TABLE, kind_of
from models.stages.efficientnet import EfficientNetLite2
from models.stages.imagenet import Classifier, class_words
from models.weights.cache import locate
from models.weights.inventory import PROFILES
from strata.core.profiles import EvidenceSettings, StageSettings, load_profile
from strata.core.records import ImageReference, Record, Region
from tests.models.stages.test_ssd import photograph

EVERYDAY = load_profile("everyday", PROFILES)
CAT, CUP, MOTORCYCLE = (10.0, 2.0, 451.0, 300.0), (172.0, 12.0, 411.0, 240.0), (100.0, 66.0, 690.0, 450.0)


def loaded(stage: str, settings: StageSettings | None = None) -> Any:
    made = build_stage(stage, settings or EVERYDAY.stages[stage])
    made.load()
    return made


@pytest.fixture(scope="module")
def matcher() -> Any:
    return loaded("matcher")


def crops() -> dict[str, Image.Image]:
    boxes = {"chelsea.png": CAT, "coffee.png": CUP, "motorcycle_left.png": MOTORCYCLE}
    return {name: crop_box(photograph(name), box) for name, box in boxes.items()}


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("chelsea.png", "a cat", ("a dog", "a bed", "a mouse", "a bird", "a cup")),
        ("coffee.png", "a cup", ("a bowl", "a dining table", "a clock", "a cat")),
        ("motorcycle_left.png", "a motorcycle", ("a bicycle", "a car", "a bed", "a bird")),
    ],
)
def test_the_right_kind_is_supported_and_others_are_not(
    name: str, right: str, wrong: tuple[str, ...], matcher: Any
) -> None:
    crop = crops()[name]
    best, *others = matcher.run([Pair(crop, phrase) for phrase in (right, *wrong)])
    assert best > 0.25
    assert max(others) < 0.06


def test_a_phrase_without_classes_cannot_be_judged(matcher: Any) -> None:
    crop = photograph("astronaut.png")
    phrases = ["a person", "a giraffe", "an idea", "a cat", ""]
    found = matcher.run([Pair(crop, phrase) for phrase in phrases])
    assert [match is None for match in found] == [True, True, True, False, True]
    assert not any(isinstance(match, Failure) for match in found)
    assert matcher.run([Pair(crop, "a person")]) == [None]  # a batch without a crop to look at


def test_a_batch_gives_what_each_pair_gives_alone(matcher: Any) -> None:
    pairs = [Pair(crop, phrase) for crop in crops().values() for phrase in ("a cat", "a person", "a cup")]
    together = matcher.run(pairs)
    for pair, match in zip(pairs, together, strict=True):
        (alone,) = matcher.run([pair])
        assert alone == (None if match is None else pytest.approx(match, abs=1e-4))


def test_tags_are_sure_words_or_none() -> None:
    tagger = loaded(
        "tagger", EVERYDAY.stages["tagger"].model_copy(update={"parameters": {"max_tags": 2, "threshold": 0.3}})
    )
    cat, coffee, noise = tagger.run([photograph("chelsea.png"), photograph("coffee.png"), Image.new("L", (9, 300))])
    assert [tag.word for tag in cat] == ["Egyptian cat"]
    assert [tag.word for tag in coffee] == ["espresso"]
    assert noise == []
    assert 0.3 <= cat[0].score <= 1


def test_words_of_classes() -> None:
    words = class_words()
    assert len(words) == 1000
    assert (words[0], words[281], words[999]) == ("tench", "tabby", "toilet tissue")
    # timm, whose order of classes the file was written from, has the same
    info = ImageNetInfo()
    assert words == [info.index_to_description(i).partition(",")[0] for i in range(info.num_classes())]


def test_the_network_is_that_of_timm() -> None:
    ours, theirs = EfficientNetLite2().eval(), create_model("tf_efficientnet_lite2").eval()
    ours.load_state_dict(load_file(locate(EVERYDAY.stages["matcher"]) / "model.safetensors"))
    # both list their tensors in the order of the layers
    tensors = ours.state_dict().values()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), tensors, strict=True)))
    for height, width in ((260, 260), (97, 130)):
        pixels = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1
        with torch.inference_mode():
            assert torch.allclose(ours(pixels), theirs(pixels), atol=1e-5)


@pytest.mark.parametrize("change", ["_blocks.40._bn1.bias", "_neck.weight", "_fc.bias"])
def test_weights_of_another_network_are_refused(change: str, tmp_path: Any) -> None:
    tensors = load_file(locate(EVERYDAY.stages["matcher"]) / "model.safetensors")
    save_file(tensors | {change: torch.zeros(7)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="holds no weights of EfficientNet-Lite2"):
        Classifier(StageSettings(backend="imagenet", model=f"local:{tmp_path}", revision=""))


# the table of kinds


def test_classes_of_kinds() -> None:
    words = class_words()
    kinds = {kind.word: {words[i] for i in kind.classes} for kind in KINDS_BY_ID.values()}
    assert len(kinds["dog"]) == 118
    assert kinds["cat"] >= {"tabby", "tiger cat", "Persian cat", "Siamese cat", "Egyptian cat"}
    assert len(KINDS_BY_PHRASE["a bird"].classes) == 59
    assert kinds["cup"] == {"coffee mug", "cup", "measuring cup", "beer glass", "espresso"}
    assert kinds["traffic light"] == {"traffic light"}
    assert not kinds["person"] | kinds["giraffe"] | kinds["fork"]
    # no class supports a kind by a homonym: ImageNet's kite is a bird, its crane is both
    assert "kite" in kinds["bird"]
    assert not kinds["kite"]


def test_every_synset_of_the_table_has_a_class() -> None:
    rows = tomllib.loads(TABLE.read_text(encoding="utf-8"))["kind"]
    for row in rows:
        assert bool(KINDS_BY_ID[row["id"]].classes) is bool({**row.get("synsets", {}), **row.get("also", {})})


WORDNET = """\
  1 This is the licence, which is indented.
00000001 03 n 01 thing 0 000 | what is
00000002 05 n 02 animal 0 beast 0 002 @ 00000001 n 0000 ~ 00000003 n 0000 | it moves | or not
00000003 05 n 01 cat 0 003 @ 00000002 n 0000 %p 00000004 n 0000 @i 00000005 n 0000 | it purrs
00000004 08 n 01 tail 0 001 + 00000002 v 0101 | a part
00000005 03 n 01 pet 0 000 | kept
"""


def test_hypernyms_are_read_from_wordnet(tmp_path: Any) -> None:
    (tmp_path / "data.noun").write_text(WORDNET)
    above = read_hypernyms(tmp_path / "data.noun")
    assert above["n00000003"] == ["n00000002", "n00000005"]
    assert ancestors("n00000003", above) == {"n00000001", "n00000002", "n00000003", "n00000005"}
    assert ancestors("n00000004", above) == {"n00000004"}


@pytest.mark.parametrize(
    ("phrase", "word"),
    [
        ("a cup", "cup"),
        ("a red Traffic Light", "traffic light"),
        ("dining table", "dining table"),
        ("a hot dog", "hot dog"),
        ("a big brown dog", "dog"),
        ("skis", "skis"),
        ("a table", None),
        ("a cup of tea", None),
        ("", None),
    ],
)
def test_kind_of_a_phrase(phrase: str, word: str | None) -> None:
    kind = kind_of(phrase)
    assert (kind and kind.word) == word


# what the filter makes of both opinions


def judged(*regions: tuple[str, float, float | None, float], **settings: float) -> list[tuple[bool, str | None]]:
    """Whether each region is kept, and why not. regions: phrase, score, match, and where its box begins."""
    record = Record(
        key="0",
        image=ImageReference(uri="a.jpg", size=1),
        width=100,
        height=100,
        regions=[Region(box=(x, 0, x + 50, 50), phrase=phrase, score=score) for phrase, score, _, x in regions],
    )
    thresholds = EvidenceSettings.model_validate({"region": 0.0, "region_score": 0.3} | settings)
    record = before_matching(record, thresholds)
    kept = [region.kept for region in record.regions or ()]
    matches = [match for (_, _, match, _), asked in zip(regions, kept, strict=True) if asked]
    record = regions_matched(record, matches, thresholds)
    return [(region.kept, region.reason) for region in record.regions or ()]


KEPT, LOW_SCORE, LOW_MATCH, CONTRADICTED = (
    (True, None),
    (False, "low_score"),
    (False, "low_match"),
    (False, "contradicted"),
)


def test_score_that_a_region_needs_if_it_cannot_be_judged() -> None:
    regions = [("a person", 0.9, None, 0), ("a person", 0.6, None, 50), ("a cat", 0.4, 0.9, 0), ("a cat", 0.2, 0.9, 50)]
    assert judged(*regions, unmatched_score=0.7) == [KEPT, LOW_SCORE, KEPT, LOW_SCORE]
    assert judged(*regions) == [KEPT, KEPT, KEPT, LOW_SCORE]


def test_agreement_of_score_and_match() -> None:
    regions = [("a cat", 0.9, 0.2, 0), ("a cat", 0.5, 0.2, 50), ("a cat", 0.3, 0.5, 25), ("a person", 0.3, None, 25)]
    assert judged(*regions, agreement=0.12) == [KEPT, LOW_MATCH, KEPT, KEPT]
    assert judged(*regions, agreement=0.12, region=0.3) == [LOW_MATCH, LOW_MATCH, KEPT, KEPT]


def test_of_rivals_the_surest_is_kept() -> None:
    cup, bowl = ("a cup", 0.9, 0.6, 0), ("a bowl", 0.95, 0.2, 2)
    assert judged(bowl, cup, rival_iou=0.6) == [CONTRADICTED, KEPT]
    assert judged(bowl, cup) == [KEPT, KEPT]
    # a rival that the matcher has dropped is none, and the same phrase is a duplicate
    assert judged(bowl, ("a cup", 0.9, 0.1, 0), rival_iou=0.6, agreement=0.12) == [KEPT, LOW_MATCH]
    assert judged(cup, ("a cup", 0.8, 0.5, 2), rival_iou=0.6) == [KEPT, (False, "duplicate")]
    # elsewhere in the picture
    assert judged(cup, ("a bowl", 0.95, 0.2, 40), rival_iou=0.6) == [KEPT, KEPT]


def test_thresholds_that_are_not_set_are_in_no_fingerprint() -> None:
    plain = EvidenceSettings()
    assert plain.deciding().keys().isdisjoint({"agreement", "rival_iou", "unmatched_score"})
    assert plain.deciding()["contradiction_iou"] is None  # as ever
    assert EvidenceSettings(agreement=0.1).deciding() == plain.deciding() | {"agreement": 0.1}
    changed = EVERYDAY.model_copy(update={"evidence": EVERYDAY.evidence.model_copy(update={"agreement": 0.2})})
    assert changed.fingerprint("vision") != EVERYDAY.fingerprint("vision")
