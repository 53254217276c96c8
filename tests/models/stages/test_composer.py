"""The composer with a random Llama of two layers in this process; `test_chat.py` asks servers."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig

from models.base import WeightsMissing
from models.demo import decoding
from models.demo.decoding import GuidedDecoder
from models.demo.int8 import Int8Linear
from models.items import ComposeRequest
from models.notes import notes_of, place_of, settings_of
from models.prompts import FOLDER, full_notes, small_notes
from models.prompts.lengths import LENGTHS
from models.stages.composer import TransformersComposer
from models.weights.hashes import sha256_of
from strata.core.profiles import StageSettings
from strata.core.records import Caption, ImageReference, Record, Region, TextLine
from tests.models.tiny.chat_model import save_chat_model


def make_record(**changes: Any) -> Record:
    fields: dict[str, Any] = {
        "key": "0",
        "image": ImageReference(uri="a.jpg", size=1),
        "width": 200,
        "height": 100,
        "alt_text": "nice things",
        "caption": Caption(text="A dog and a sign on a blue background. The dog is to the left of the sign."),
        "regions": [
            Region(box=(1, 30, 41, 70), phrase="a dog", score=0.9),
            Region(box=(2, 31, 42, 71), phrase="a brown dog", score=0.6),
            Region(box=(150, 0, 199, 30), phrase="a sign", score=0.8),
            Region(box=(90, 40, 110, 60), phrase="an owl", score=0.9, kept=False, reason="low_match"),
        ],
        "text": [TextLine(box=(155, 5, 190, 25), text="OPEN")],
    }
    return Record(**(fields | changes))


def test_notes_merge_what_is_at_one_place() -> None:
    dog, sign = notes_of(make_record())
    assert (dog.phrases, dog.place, dog.size) == (("a dog", "a brown dog"), "left", "")
    assert (sign.phrases, sign.place, sign.texts) == (("a sign",), "top right", ("OPEN",))


def test_places_are_thirds() -> None:
    assert place_of((0, 0, 10, 10), 90, 90) == "top left"
    assert place_of((40, 40, 50, 50), 90, 90) == "centre"
    assert place_of((40, 80, 50, 90), 90, 90) == "bottom"


def test_settings_of() -> None:
    record = make_record()
    assert record.caption
    assert settings_of(record.caption.text, notes_of(record)) == [("on", "a blue background")]
    assert settings_of("An empty white background.", []) == [("", "an empty white background")]
    # with something on it, such as text, it is not empty
    assert settings_of("An empty white background.", notes_of(record)) == [("", "a white background")]
    assert settings_of("An empty orange background.", notes_of(record)) == [("", "an orange background")]


def test_prompts_hold_no_numbers_and_only_what_is_kept() -> None:
    for notes in (small_notes(make_record(), 9), full_notes(make_record(), 9)):
        assert not re.search(r"\d", notes)
        assert "owl" not in notes
        assert "nice things" in notes
    assert "read" not in full_notes(make_record(text=[]), 9)
    assert full_notes(make_record(caption=None, regions=None, text=None), 9) == ""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_chat_model(tmp_path_factory.mktemp("llama"))


def make_local(checkpoint: Path, **parameters: Any) -> TransformersComposer:
    parameters = {"prompt_sha256": sha256_of(FOLDER / "small.toml"), "max_new_tokens": 600} | parameters
    model = f"local:{checkpoint}"
    stage = TransformersComposer(
        StageSettings(backend="transformers", model=model, revision="", batch_size=4, parameters=parameters)
    )
    stage.load()
    return stage


@pytest.fixture(scope="module")
def local(checkpoint: Path) -> TransformersComposer:
    return make_local(checkpoint, precision="float32")


def test_grounded_tells_every_note_once_and_nothing_else(local: TransformersComposer) -> None:
    empty = make_record(caption=None, regions=[], text=[])
    alone = make_record(regions=[], text=[], caption=Caption(text="An empty blue background."))
    texts = local.run([ComposeRequest(one) for one in (make_record(), empty, alone)])
    full, nothing, background = texts
    assert isinstance(full, str)
    assert full.lower().count("a dog") == 1
    assert full.lower().count('a sign that says "open"') == 1
    assert "blue background" in full
    assert full.index("left") > full.lower().index("a dog")
    assert "owl" not in full
    assert full.endswith(".")
    assert nothing == ""
    assert background == "There is an empty blue background."


def test_a_batch_writes_what_single_calls_write(local: TransformersComposer) -> None:
    records = [
        make_record(),
        make_record(regions=[Region(box=(0, 0, 20, 20), phrase="a red car")], text=[]),
        make_record(text=[TextLine(box=(0, 80, 30, 99), text="EXIT")]),
    ]
    requests = [ComposeRequest(record) for record in records]
    assert local.run(requests) == [local.run([request])[0] for request in requests]


def test_lengths_that_tell_the_same_are_written_once(
    local: TransformersComposer, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = make_record(regions=[Region(box=(0, 0, 20, 20), phrase="a red car")], text=[])
    requests = [ComposeRequest(one, length=name) for one in (few, make_record()) for name in LENGTHS]
    alone = [local.compute([request])[0] for request in requests]
    written: list[int] = []
    write = GuidedDecoder.write

    def counted(self: GuidedDecoder, prompts: Any, guides: Sequence[Any], most: int) -> None:
        written.append(len(guides))
        write(self, prompts, guides, most)

    monkeypatch.setattr(GuidedDecoder, "write", counted)
    assert local.compute(requests[:4]) == alone[:4]
    assert local.compute(requests) == alone
    # of one thing and a setting all but the short text tell the same
    assert written[0] <= 2 and written[0] < written[1] <= 8


def test_parts_and_passes_change_no_text(local: TransformersComposer, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = [ComposeRequest(make_record(text=[TextLine(box=(155, 5, 190, 25), text="OPEN " * i)])) for i in range(4)]
    whole = [local.compute([request])[0] for request in requests]
    monkeypatch.setattr(decoding, "TOKENS_AT_ONCE", 50)
    monkeypatch.setattr(decoding, "SLOTS_AT_ONCE", 2000)
    passed: list[int] = []
    run = GuidedDecoder._run

    def counted(self: GuidedDecoder, rows: Any, memory: Any) -> torch.Tensor:
        passed.append(sum(len(new) for new, _, _ in rows))
        assert memory.slots <= 2000
        return run(self, rows, memory)

    monkeypatch.setattr(GuidedDecoder, "_run", counted)
    assert local.compute(requests) == whole
    assert max(passed) == 50


class OneToken:
    """A guide that lets the model choose one token."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.done = False

    def allowed(self) -> list[int]:
        return [1, 2]

    def accept(self, token: int) -> None:
        self.tokens.append(token)
        self.done = True


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(1, 7800), min_size=1, max_size=40))
def test_the_memory_of_a_composer_is_bounded_whatever_it_is_told(lengths: list[int]) -> None:
    """The keys and values of SmolLM2-135M in float32, and the mask of one pass; 1.4 GB and 750 MB before."""
    config = LlamaConfig(hidden_size=576, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3)
    model = SimpleNamespace(
        config=config, set_attn_implementation=print, get_output_embeddings=lambda: torch.nn.Linear(576, 8, bias=False)
    )
    passed, largest = list[int](), list[int]()

    def run(self: GuidedDecoder, rows: Any, memory: Any) -> torch.Tensor:
        passed.append(sum(len(new) for new, _, _ in rows))
        masks = sum(len(new) * (last + len(new) - first) for new, first, last in rows if len(new) > 1)
        largest.append(memory.values.nbytes + 4 * self._groups * masks)
        return torch.zeros(len(rows), 576)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(GuidedDecoder, "_run", run)
        decoder = GuidedDecoder(model, list(range(100)))  # type: ignore[arg-type]
        guides = [OneToken() for _ in lengths]
        decoder.write([[0] * length for length in lengths], guides, 200)  # type: ignore[arg-type]
    assert all(guide.done for guide in guides)
    assert sum(passed) == 100 + sum(lengths)
    assert max(passed) <= decoding.TOKENS_AT_ONCE and max(largest) < 490e6


@given(st.lists(st.integers(1, 30)), st.integers(1, 40))
def test_parts_hold_all_and_no_more_than_told(sizes: list[int], most: int) -> None:
    found = list(decoding.parts(sizes, most))
    assert [i for part in found for i in part] == list(range(len(sizes)))
    assert all(len(part) == 1 or sum(sizes[i] for i in part) <= most for part in found)
    # no part could have taken the first thing of the next one
    assert all(sum(sizes[a.start : b.start + 1]) > most for a, b in itertools.pairwise(found))


def test_int8_is_close_and_independent_of_the_batch() -> None:
    torch.manual_seed(0)
    linear = torch.nn.Linear(64, 48, bias=False)
    rows = torch.randn(5, 64)
    exact, close = linear(rows), Int8Linear(linear)(rows)
    assert (exact - close).abs().max() < 0.05
    assert torch.equal(Int8Linear(linear)(rows[2:3])[0], close[2])


def test_int8_is_the_same_with_and_without_vnni(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    linear, rows = torch.nn.Linear(1536, 48, bias=False), torch.randn(5, 1536)
    outputs = []
    for fast in (True, False):
        monkeypatch.setattr("models.demo.int8.fast_int8", lambda fast=fast: fast)
        outputs.append(Int8Linear(linear)(rows))
    assert torch.equal(*outputs)


def test_free_writing_through_generate(checkpoint: Path) -> None:
    texts = make_local(checkpoint, grounded=False, max_new_tokens=5).run(
        [ComposeRequest(make_record()), ComposeRequest(make_record(text=[]))]
    )
    assert all(isinstance(text, str) for text in texts)


def test_changed_prompt_and_missing_weights(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has changed"):
        make_local(checkpoint, prompt_sha256="0" * 64)
    with pytest.raises(WeightsMissing, match="strata models fetch"):
        make_local(tmp_path / "none")
