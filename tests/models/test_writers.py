"""From the texts of stages to records: what the guards reject is written once more, and then told in the row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image

from bench.fakes.stages import FakeDetector, FakeMatcher, FakeOcr, FakeSegmenter
from models.guards import Asked
from models.items import CaptionRequest, ComposeRequest, Segment, Written
from models.pipeline import LlmPipeline, VisionPipeline
from models.sentences import whole_sentences
from models.writers import CaptionerStage, ComposerStage
from strata.components import components_folder
from strata.core import Caption, ImageReference, Record, StageSettings, Status, load_profile
from tests.models.guards.guard_cases import CLEANED, CUT, CUT_IN, KEPT, PROMPT, REJECTED

PROFILES = components_folder() / "models" / "profiles"
SETTINGS = StageSettings(backend="test", model="builtin:test", revision="")
RECORD = Record(key="0", image=ImageReference(uri="a.jpg", size=1), width=64, height=48)
LOOP = "a cat and a cat and a cat and a cat"


class Captioner(CaptionerStage):
    """Writes given texts: one for scenes, one for crops, and others for a second try."""

    name = "captioner"

    def __init__(self, scene: str, crop: str = "a red car", second: str = "", crop_again: str = "") -> None:
        super().__init__(SETTINGS)
        self.texts = {(0.0, "scene"): scene, (0.0, "crop"): crop}
        self.again = {"scene": second, "crop": crop_again}
        self.asked_for: list[tuple[float, int]] = []

    def load(self) -> None:
        """Nothing to load."""

    def compute(self, batch: Sequence[CaptionRequest]) -> list[str]:
        self.asked_for.append((self.variation, len(batch)))
        return [self.again[one.kind] if self.variation else self.texts[0.0, one.kind] for one in batch]


class Segmenter(FakeSegmenter):
    """Finds two masks."""

    def compute(self, batch: Sequence[Image.Image]) -> list[list[Segment]]:
        import numpy as np

        def segment(left: int) -> Segment:
            mask = np.zeros((48, 64), np.bool_)
            mask[:, left : left + 20] = True
            return Segment(mask, (float(left), 0.0, left + 20.0, 48.0), 1.0)

        return [[segment(0), segment(30)] for _ in batch]


def _vision(captioner: Captioner, segmenter: Any = None) -> VisionPipeline:
    stages = {
        "captioner": captioner,
        "segmenter": segmenter or FakeSegmenter(SETTINGS),
        "detector": FakeDetector(SETTINGS),
    }
    stages |= {"ocr": FakeOcr(SETTINGS), "matcher": FakeMatcher(SETTINGS)}
    profile = load_profile("demo", PROFILES)
    # captions stay as they were written: what the other layers contradict is not cut
    evidence = profile.evidence.model_copy(update={"caption_claims": None})
    return VisionPipeline(profile.model_copy(update={"evidence": evidence}), stages)


def _seen(captioner: Captioner, segmenter: Any = None, images: int = 1) -> list[Record]:
    return _vision(captioner, segmenter).run([(RECORD, Image.new("RGB", (64, 48), "red"))] * images)


def test_a_caption_is_cleaned_before_it_becomes_part_of_a_record() -> None:
    (record,) = _seen(Captioner("<think>hm</think># A cat\nHere is the caption: **A cat sits on a mat.**"))
    assert record.caption is not None and record.caption.text == "A cat sits on a mat."


def test_a_rejected_text_is_written_once_more_at_another_temperature() -> None:
    captioner = Captioner(LOOP, second="A cat sits on a mat.")
    first, second = _seen(captioner, images=2)
    assert first.caption is not None and second.caption is not None
    assert first.caption.text == second.caption.text == "A cat sits on a mat."
    assert captioner.asked_for[:2] == [(0.0, 2), (0.7, 2)]


def test_a_text_that_is_rejected_twice_makes_a_filtered_row_with_the_guard_s_name() -> None:
    (record,) = _seen(Captioner(LOOP, second="I'm sorry, but I can't help with that."))
    assert record.status is Status.FILTERED
    assert record.failure is not None
    assert record.failure.error_type == "captioner_refusal"
    assert "I'm sorry" in record.failure.detail


def test_a_rejected_phrase_costs_its_object_only() -> None:
    (record,) = _seen(
        Captioner("A cat sits on a mat.", Written("a red car on a", cut=True), crop_again="!!!!"), Segmenter(SETTINGS)
    )
    assert record.status is Status.SUCCEEDED
    assert record.objects is not None
    assert [(thing.phrase, thing.kept, thing.reason) for thing in record.objects] == [
        (None, False, "captioner_no_words")
    ] * 2


class Composer(ComposerStage):
    """Writes a given text for each record, by its key."""

    name = "composer"

    def __init__(self, texts: Sequence[str], languages: Sequence[str] = ()) -> None:
        super().__init__(SETTINGS)
        self.texts, self.languages = texts, languages

    def load(self) -> None:
        """Nothing to load."""

    def asked(self, item: ComposeRequest) -> Asked | None:
        number = int(item.record.key)
        known = self.languages[number] if self.languages else None
        language = known or next((code for code, part in LANGUAGES.items() if part in self.texts[number]), "en")
        return Asked(prompts=(PROMPT,), language=language)

    def compute(self, batch: Sequence[ComposeRequest]) -> list[str]:
        return [self.texts[int(item.record.key)] for item in batch]


LANGUAGES = {"zh": "猫坐", "ja": "猫が", "fa": "\u200c"}


def _described(texts: Sequence[str], languages: Sequence[str] = ()) -> list[Record]:
    pipeline = LlmPipeline.__new__(LlmPipeline)
    pipeline.stages = {"composer": Composer(texts, languages)}
    records = [RECORD.model_copy(update={"key": str(i), "caption": Caption(text="a cat")}) for i in range(len(texts))]
    return pipeline.run([ComposeRequest(one) for one in records])


def test_every_case_of_the_table_through_the_pipeline() -> None:
    records = _described([text for text, _ in CLEANED])
    for record, (_, answer) in zip(records, CLEANED, strict=True):
        assert record.description is not None, record.failure
        assert record.description.text == answer
        assert " ".join(sentence.text for sentence in record.description.sentences).split() == answer.split()
    for record, (text, name) in zip(_described([text for text, _ in REJECTED]), REJECTED, strict=True):
        assert record.status is Status.FILTERED, text
        assert record.failure is not None and record.failure.error_type == f"composer_{name.replace(' ', '_')}"


def test_texts_that_only_look_like_faults_pass_the_pipeline() -> None:
    """Whole, as a description with its sentences, and as a caption that is written once."""
    for record, text in zip(_described(KEPT), KEPT, strict=True):
        assert record.status is Status.SUCCEEDED and record.description is not None, (text, record.failure)
        assert record.description.text == text
        assert " ".join(sentence.text for sentence in record.description.sentences).split() == text.split()
        captioner = Captioner(text)
        (seen,) = _seen(captioner)
        assert seen.caption is not None and seen.caption.text == text
        assert [variation for variation, _ in captioner.asked_for] == [0.0], text


def test_texts_that_were_cut_end_with_a_whole_sentence_in_the_record() -> None:
    """In every script; a text without a whole sentence is a filtered row with the reason."""
    cases = [("en", text, left) for text, left in CUT] + CUT_IN
    texts, languages = [Written(text, cut=True) for _, text, _ in cases], [language for language, _, _ in cases]
    for record, (_, text, left) in zip(_described(texts, languages), cases, strict=True):
        if left:
            assert record.status is Status.SUCCEEDED and record.description is not None, (text, record.failure)
            assert record.description.text == left
            told = [sentence.text for sentence in record.description.sentences]
            assert " ".join(told).split() == left.split() and told == whole_sentences(left)
        else:
            assert record.status is Status.FILTERED and record.description is None
            assert record.failure is not None and record.failure.error_type == "composer_cut"
    # a caption likewise; a second try that is cut too is told
    for text, left in CUT:
        (seen,) = _seen(Captioner(Written(text, cut=True), second=Written(text, cut=True)))
        assert (seen.caption.text if seen.caption else seen.failure and seen.failure.error_type) == (
            left or "captioner_cut"
        )
