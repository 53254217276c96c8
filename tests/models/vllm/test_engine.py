"""The back ends on vLLM's offline engine, against a module with the recorded version's own signatures."""

from __future__ import annotations

import inspect
import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydantic import ValidationError

from bench.models.vision_language import tokenizer_of_bytes
from models.base import Stage, StageBroken, StageNotLoaded
from models.building import build_stage, load_stages
from models.items import CaptionRequest, ComposeRequest, Failure, Pair, VerifyRequest, Written
from models.prompts import FOLDER
from models.stages.qwen_vl import first_tokens
from models.weights.hashes import sha256_of
from models.writers import write
from strata.core import Usage, VllmParameters
from strata.core.profiles import StageSettings
from tests.models.verifier.elaborate import claim
from tests.models.verifier.records import record
from tests.models.vllm.vllm_module import RECORD, Loaded, Reply, Script, signature_of

RED = Image.new("RGB", (60, 40), "red")
CAR = record(("a red car", (10, 10, 60, 60)))


def says(text: str, end: str = "stop") -> Script:
    return lambda messages, sampling: Reply(text, end)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> Loaded:
    module = Loaded(says("a red thing"), tokenizer_of_bytes())
    module.install(monkeypatch)
    return module


def stage(name: str, folder: Path, batch_size: int = 8, **parameters: Any) -> Any:
    """A loaded stage; the probe is not asked."""
    if name == "composer":
        parameters = {"prompt": "full", "prompt_sha256": sha256_of(FOLDER / "full.toml")} | parameters
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"")
    given = StageSettings(
        backend="vllm", model=f"local:{folder}", revision="", batch_size=batch_size, parameters=parameters
    )
    built: Stage[Any, Any] = build_stage(name, given)
    built.load()
    return built


def words_of(messages: list[dict[str, Any]]) -> str:
    content = messages[-1]["content"]
    return content if isinstance(content, str) else str(content[-1]["text"])


def test_the_arguments_that_we_give_are_those_of_the_recorded_version() -> None:
    """The record refuses what vLLM refuses, so that the tests below can fail."""
    enqueue = signature_of(RECORD["LLM"]["enqueue_chat"])
    with pytest.raises(TypeError, match="guided_decoding"):
        signature_of(RECORD["SamplingParams"]).bind(guided_decoding={})
    with pytest.raises(TypeError, match="progress"):
        enqueue.bind([], [], progress=True)
    assert {"limit_mm_per_prompt", "enable_prefix_caching", "max_model_len", "max_num_seqs"} <= {
        name for name, _, _ in RECORD["EngineArgs"]
    }
    assert inspect.Parameter.KEYWORD_ONLY is signature_of(RECORD["LLM"]["__init__"]).parameters["seed"].kind


def test_a_caption_its_tokens_and_the_engine_s_settings(loaded: Loaded, tmp_path: Path) -> None:
    one = stage("captioner", tmp_path / "m", scene_tokens=9, sampling={"top_p": 0.5}, engine={"dtype": "bfloat16"})
    assert write(one, [CaptionRequest(RED), CaptionRequest(RED, "crop")]) == ["a red thing"] * 2
    (engine,) = loaded.engines
    assert engine["model"] == str(tmp_path / "m")
    assert engine["enable_prefix_caching"] is True
    assert (engine["dtype"], engine["max_model_len"], engine["limit_mm_per_prompt"]["image"]) == ("bfloat16", 8192, 16)
    (scene, sampling), (_, crop) = loaded.asked
    assert (sampling.max_tokens, sampling.temperature, sampling.top_p, sampling.seed) == (9, 0.0, 0.5, 0)
    assert crop.max_tokens == 30
    assert [part["type"] for part in scene[0]["content"]] == ["image_pil", "text"]
    assert [one.completion_tokens for one in one.usage] == [3, 3]
    assert all(one.prompt_tokens > 0 and one.requests == 1 for one in one.usage)
    assert loaded.batches == [2]  # the engine gets a whole batch at once


def test_a_text_that_ends_at_the_limit_is_told_as_cut(loaded: Loaded, tmp_path: Path) -> None:
    loaded.script = says("A car. It is", "length")
    (text,) = stage("captioner", tmp_path / "m").run([CaptionRequest(RED)])
    assert isinstance(text, Written)
    assert text.cut


def test_a_second_try_is_at_another_temperature(loaded: Loaded, tmp_path: Path) -> None:
    loaded.script = lambda messages, sampling: Reply("A red car." if sampling.temperature else "")
    assert write(stage("captioner", tmp_path / "m"), [CaptionRequest(RED)]) == ["A red car."]
    assert [sampling.temperature for _, sampling in loaded.asked] == [0.0, 0.7]


def test_a_composer_without_notes_asks_nothing(loaded: Loaded, tmp_path: Path) -> None:
    one = stage("composer", tmp_path / "m", chat_template_kwargs={"enable_thinking": False})
    assert one.run([ComposeRequest(record()), ComposeRequest(CAR)]) == ["", "a red thing"]
    ((messages, _),) = loaded.asked
    assert [message["role"] for message in messages] == ["system", "user"]
    assert one.usage[0] == Usage()


def test_probabilities_are_those_of_yes_against_no(loaded: Loaded, tmp_path: Path) -> None:
    tokens = {word: sorted(first_tokens(loaded.tokenizer, word)) for word in ("yes", "no")}
    yes, no = (sorted(set(tokens[a]) - set(tokens[b])) for a, b in (("yes", "no"), ("no", "yes")))
    scores = {**dict.fromkeys(yes, math.log(0.3 / len(yes))), **dict.fromkeys(no, math.log(0.1 / len(no)))}
    loaded.script = lambda messages, sampling: Reply("yes", "length", scores)
    one = stage("matcher", tmp_path / "m")
    assert one.run([Pair(RED, "a car.")]) == pytest.approx([0.75])
    ((messages, sampling),) = loaded.asked
    assert (sampling.max_tokens, set(sampling.logprob_token_ids)) == (1, {*yes, *no})
    assert words_of(messages) == "Does this picture show a car? Answer with yes or no."
    # what is as good as impossible is a probability too
    scores |= dict.fromkeys(yes, float("-inf"))
    assert one.run([Pair(RED, "a car")]) == [pytest.approx(0.0)]


def test_claims_come_along_a_schema(loaded: Loaded, tmp_path: Path) -> None:
    told = [claim("thing", words) | {"sentence": 1} for words in ("A red car", "a blue owl")]
    loaded.script = says(json.dumps({"claims": told}))
    one = stage("verifier", tmp_path / "m")
    (checked,) = one.run([VerifyRequest(CAR, "A red car stands beside a blue owl.")])
    assert one.notes == [""]
    assert any("owl" in str(found) for found in checked.sentences)
    ((_, sampling),) = loaded.asked
    assert sampling.structured_outputs.json["required"] == ["claims"]


@pytest.mark.parametrize(
    ("script", "note"),
    [
        (says("no JSON"), "the answer cannot be used, it has no JSON object with claims"),
        (says('{"claims": [', "length"), "the answer was cut at its token limit"),
        (says("{}", "error"), "no answer: the engine gave no answer (finish_reason error)"),
    ],
)
def test_a_text_without_claims_is_read_by_the_rules(loaded: Loaded, tmp_path: Path, script: Script, note: str) -> None:
    loaded.script = script
    one = stage("verifier", tmp_path / "m")
    asked = [VerifyRequest(CAR, "A red car."), VerifyRequest(CAR, "")]
    if "error" in note:  # an engine that answers nobody is broken, see below
        loaded.script = lambda messages, sampling: (
            script(messages, sampling) if "red" in words_of(messages) else Reply('{"claims": []}')
        )
        asked.append(VerifyRequest(CAR, "A car."))
    results = one.run(asked)
    assert not any(isinstance(result, Failure) for result in results)
    assert one.notes[:2] == [note, ""]


def test_a_question_that_vllm_refuses_is_an_item_s_fault(loaded: Loaded, tmp_path: Path) -> None:
    refusal = loaded.errors.VLLMValidationError("The decoder prompt is longer than the maximum model length")
    loaded.script = lambda messages, sampling: (
        refusal if messages[-1]["content"][0]["image_pil"].width == 70 else Reply("a red thing")
    )
    images = [CaptionRequest(Image.new("RGB", (60 + 10 * (n == 2), 40), "red")) for n in range(5)]
    results = stage("captioner", tmp_path / "m").run(images)
    assert [isinstance(result, Failure) for result in results] == [False, False, True, False, False]
    assert "longer than the maximum" in results[2].detail


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("EngineCore encountered an issue. See stack trace (above) for the root cause."),
        type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory. Tried to allocate 2.00 GiB."),
        MemoryError(),
    ],
)
def test_an_engine_that_fails_makes_no_failed_rows(loaded: Loaded, tmp_path: Path, error: Exception) -> None:
    one = stage("captioner", tmp_path / "m")
    loaded.failing = error
    with pytest.raises(StageBroken, match="vLLM's engine has failed") as caught:
        one.run([CaptionRequest(RED)] * 4)
    assert not caught.value.memory  # not an image's: vLLM takes its memory at the start
    assert loaded.batches == [4]  # and nothing is asked of it again, by no stage
    loaded.failing = None
    with pytest.raises(StageBroken):
        one.run([CaptionRequest(RED)])
    assert loaded.batches == [4]


def test_an_engine_that_dies_while_it_is_asked(loaded: Loaded, tmp_path: Path) -> None:
    one = stage("captioner", tmp_path / "m")
    loaded.script = lambda messages, sampling: loaded.errors.EngineDeadError("EngineCore died")
    with pytest.raises(StageBroken, match="EngineDeadError"):
        one.run([CaptionRequest(RED)] * 4)


def test_stages_with_equal_settings_share_one_engine(loaded: Loaded, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    stages = [stage(name, folder) for name in ("captioner", "matcher", "composer", "verifier")]
    assert len(loaded.engines) == 1
    assert len({id(one.turn) for one in stages}) == 1
    other = stage("captioner", folder, max_model_len=4096)
    assert len(loaded.engines) == 2
    del stages, other


def test_crops_of_one_image_are_one_request(loaded: Loaded, tmp_path: Path) -> None:
    def answer(messages: list[dict[str, Any]], sampling: Any) -> Reply:
        images = [part["image_pil"] for part in messages[-1]["content"] if part["type"] == "image_pil"]
        texts = [f"a thing {image.width} wide" for image in images]
        return Reply(json.dumps(texts) if sampling.structured_outputs else texts[0])

    loaded.script = answer
    whole, other = Image.new("RGB", (99, 99)), Image.new("RGB", (98, 98))
    of = [whole, whole, whole, other, other, None]
    crops = [CaptionRequest(Image.new("RGB", (60 + n, 40), "red"), "crop", of[n]) for n in range(6)]
    asked = [CaptionRequest(whole), *crops, CaptionRequest(other)]
    one = stage("captioner", tmp_path / "m", crops_per_request=2)
    expected = [f"a thing {request.image.width} wide" for request in asked]
    assert one.run(asked) == expected
    assert [len(messages[-1]["content"]) - 1 for messages, _ in loaded.asked] == [1, 2, 1, 2, 1, 1]
    assert loaded.asked[1][1].structured_outputs.json["minItems"] == 2
    assert sum(used.requests for used in one.usage) == 6
    # the same as one by one
    assert stage("captioner", tmp_path / "m").run(asked) == expected


@pytest.mark.parametrize("bad", ["no list", '["one"]', '["one", 2]', '{"a": 1}', '["one", "tw'])
def test_a_list_that_cannot_be_used_is_asked_again_one_by_one(loaded: Loaded, tmp_path: Path, bad: str) -> None:
    loaded.script = lambda messages, sampling: Reply(bad if sampling.structured_outputs else "a red thing")
    crops = [CaptionRequest(RED.copy(), "crop", RED) for _ in range(2)]
    one = stage("captioner", tmp_path / "m", crops_per_request=4)
    assert one.run(crops) == ["a red thing"] * 2
    assert sum(used.requests for used in one.usage) == 3  # the first answer has cost tokens too


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"engine": {"max_modellen": 4}}, "does not accept 'max_modellen'; did you mean 'max_model_len'"),
        ({"sampling": {"topp": 0.5}}, "does not accept 'topp'; did you mean 'top_p'"),
    ],
)
def test_a_setting_that_vllm_does_not_have_is_told(
    loaded: Loaded, tmp_path: Path, parameters: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match="parameters") as caught:
        stage("captioner", tmp_path / "m", **parameters)
    assert said in str(caught.value)
    assert loaded.engines == [] or "sampling" in parameters


@pytest.mark.parametrize(
    "parameters",
    [
        {"engine": {"trust_remote_code": True}},
        {"engine": {"max_model_len": 4}},
        {"engine": {"model": "other"}},
        {"sampling": {"max_tokens": 4}},
        {"sampling": {"top_p": float("nan")}},
        {"gpu_memory_utilization": 0.0},
        {"no_such": 1},
    ],
)
def test_what_the_stage_sets_itself_cannot_be_set(parameters: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        VllmParameters.model_validate(parameters)


def test_without_vllm_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    given = StageSettings(backend="vllm", model=f"local:{tmp_path}", revision="")
    with pytest.raises(StageNotLoaded) as caught:
        load_stages({"captioner": build_stage("captioner", given)})
    assert "pip install 'strata[vllm]'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_engine_that_cannot_start_is_not_the_profile_s_fault(loaded: Loaded, tmp_path: Path) -> None:
    loaded.refusing = ValueError("Free memory on device cuda:0 (2.0/80.0 GiB) on startup is less than desired")
    with pytest.raises(RuntimeError, match=r"vLLM cannot start .* Free memory"):
        stage("captioner", tmp_path / "m")


def test_how_much_room_the_engine_has_is_not_in_the_fingerprint() -> None:
    def deciding(**parameters: Any) -> dict[str, Any]:
        return StageSettings(backend="vllm", model="hub:a/b", revision="", parameters=parameters).deciding()

    assert deciding(gpu_memory_utilization=0.3, max_num_seqs=4, tensor_parallel_size=2) == deciding()
    assert deciding(max_model_len=100) != deciding()
