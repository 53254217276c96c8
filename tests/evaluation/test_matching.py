"""What matchers say of sentences on their images: the demo's matcher, and one whose answers are known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from models.building import build_stage, load_stages
from models.evaluation import matching
from models.evaluation.matching import Seen, matched
from models.items import Failure, Pair
from models.stages.matcher import OpenClipMatcher
from strata.cli import exits
from strata.core.profiles import load_profile
from strata.core.settings import Settings
from strata.images import decode
from tests.cli.test_cli import code_of
from tests.evaluation.conftest import record_of, samples
from tests.evaluation.test_evaluate import evaluated

PROFILE = load_profile("demo", Settings().profiles_dir)


def seen(count: int) -> list[Seen]:
    found = []
    for image, meta in samples()[:count]:
        with Path(image.uri).open("rb") as file:
            file.seek(image.offset)
            data = file.read(image.size)
        record = record_of(image, meta)
        found.append(Seen(record.key, record, decode(data, 1_000_000)))
    return found


def test_cosines_are_those_of_the_probabilities() -> None:
    stage = build_stage("matcher", PROFILE.stages["matcher"])
    assert isinstance(stage, OpenClipMatcher)
    load_stages({"matcher": stage})
    pairs = [Pair(one.image, "a red car on a road") for one in seen(3)]
    cosines = torch.tensor(stage.cosines(pairs))
    assert stage.run(pairs) == pytest.approx(torch.sigmoid(stage._scale * cosines + stage._bias).tolist(), abs=1e-5)
    assert (cosines.abs() <= 1).all()


class Known:
    """A matcher that gives crops 0.9 and whole images 0.6, and cannot judge what is empty."""

    def __init__(self) -> None:
        self.asked: list[Pair] = []
        self.settings = PROFILE.stages["matcher"]
        self.whole = {one.image.size for one in seen(4)}

    def run(self, batch: Sequence[Pair]) -> list[float | Failure | None]:
        self.asked += batch
        known = [0.6 if one.crop.size in self.whole else 0.9 for one in batch]
        return [None if "empty" in one.phrase else score for one, score in zip(batch, known, strict=True)]


def test_sentences_are_asked_on_the_crops_of_their_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    matcher = Known()
    monkeypatch.setattr(matching, "build_stage", lambda name, settings: matcher)
    monkeypatch.setattr(matching, "load_stages", lambda stages: None)
    images, done = seen(4), list[int]()
    found = dict(matched(PROFILE, iter(images), done.append))
    assert set(found) == {one.key for one in images} and done == [4]
    for one in images:
        assert one.record.description is not None
        sentences = one.record.description.sentences
        # a sentence is asked about the crop if something that it rests on has a box
        crops = sum(any("/" in name for name in each.evidence) for each in sentences)
        judged = [each for each in sentences if "empty" not in each.text]
        if judged:
            told = found[one.key]["description"]
            probability, count = told["sentences_matched"]
            assert probability == pytest.approx(0.9 * crops + 0.6 * (len(judged) - crops)) and count == len(judged)
            assert told["own_image_preferred"] == (0.5, 1)  # it gives all whole images the same
        else:
            assert "description" not in found[one.key]
    assert not [pair for pair in matcher.asked if not pair.phrase]


@pytest.mark.usefixtures("scene_store")
def test_the_demos_matcher_prefers_descriptions_on_their_own_images(tmp_path: Path) -> None:
    found = evaluated(tmp_path / "a.json", "demo", "--profile", "demo", "--images", "24", "--model-images", "8")
    told = found.texts["description"].figures
    assert told["own_image_preferred"].images == 8
    assert (told["own_image_preferred"].value or 0) >= 0.75
    assert 0 <= (told["sentences_matched"].value or 0) <= 1 and told["sentences_matched"].total >= 8
    assert (told["clip_score"].value or 0) > (found.texts["alt_text"].figures["clip_score"].value or 0)


@pytest.mark.usefixtures("scene_store")
@pytest.mark.parametrize("profile", ["absent", "absent.toml"])
def test_a_profile_that_cannot_be_used_is_told_before_anything_is_read(profile: str) -> None:
    assert code_of("evaluate", "demo", "--profile", profile) in (exits.USAGE, exits.PROFILE_INVALID)
