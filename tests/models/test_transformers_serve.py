"""The chat back ends against `transformers serve`: the demo's LLM, and a random LLaVA that sees images."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from bench.processes import Process
from models.base import StageUnavailable
from models.chat.backends import OpenAICaptioner, OpenAIComposer
from models.guards import printable
from models.items import CaptionRequest, ComposeRequest
from models.prompts import FOLDER, load_prompt
from models.weights.cache import locate
from models.weights.hashes import sha256_of
from strata.core.profiles import StageSettings, load_profile
from strata.core.records import Caption, ImageReference, Record
from tests.checkout import CHECKOUT
from tests.models.tiny.chat_model import save_sighted_model

COLOURS = ("red", "blue", "white")
SERVE = "from transformers.cli.transformers import main; main()"


@dataclass
class Serving:
    """A running server, and the folders of its models: what they are called in a request."""

    url: str
    demo: Path
    sighted: Path

    def settings(self, model: Path, **parameters: Any) -> StageSettings:
        given = {"served_model": str(model)} | parameters
        return StageSettings(backend="openai", model=f"server:{self.url}", revision="1", parameters=given)


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("serve")
    demo = folder / "demo"  # the server takes what follows an @ for a revision
    demo.symlink_to(locate(load_profile("demo", CHECKOUT / "models" / "profiles").stages["composer"]))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        "-c",
        SERVE,
        "serve",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--device",
        "cpu",
        "--dtype",
        "float32",
    ]
    server = Process(command, {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}, folder / "serve.log")
    try:
        deadline = time.monotonic() + 300
        while not _healthy(port):
            assert time.monotonic() < deadline, (folder / "serve.log").read_text()[-2000:]
            time.sleep(0.2)
        yield Serving(f"http://127.0.0.1:{port}/v1", demo, save_sighted_model(folder / "sighted"))
    finally:
        server.end()


def _healthy(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False, timeout=60).is_success
    except httpx.TransportError:
        return False


def record(text: str) -> Record:
    return Record(key="0", image=ImageReference(uri="a.jpg", size=1), width=9, height=9, caption=Caption(text=text))


def test_the_demos_llm_composes(serving: Serving) -> None:
    digest = sha256_of(FOLDER / "full.toml")
    settings = serving.settings(serving.demo, prompt_sha256=digest, max_new_tokens=8, timeout=300)
    stage = OpenAIComposer(settings)
    stage.load()
    request = ComposeRequest(record("A red car is on a road."))
    (result,) = stage.run([request])
    assert isinstance(result, str) or "no complete sentence within 8 tokens" in result.detail
    tokenizer: Any = AutoTokenizer.from_pretrained(serving.demo)
    prompt = load_prompt("full", digest)
    messages = prompt.messages(prompt.notes(request.record, 40))
    tokens = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    (used,) = stage.usage
    assert (used.prompt_tokens, used.completion_tokens, used.requests) == (len(tokens), 8, 1)
    assert used.prompt_tokens <= stage.bound(request)[0].prompt_tokens


def answer_of(folder: Path, image: Path, text: str, most: int) -> str:
    """What the model in the folder answers in this process."""
    processor: Any = AutoProcessor.from_pretrained(folder)
    model: Any = AutoModelForImageTextToText.from_pretrained(folder).eval()
    content = [{"type": "image", "url": str(image)}, {"type": "text", "text": text}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    with torch.inference_mode():
        output = model.generate(**inputs, do_sample=False, max_new_tokens=most)
    new = output[0, inputs["input_ids"].shape[1] :]
    return " ".join(printable(processor.decode(new, skip_special_tokens=True)).split())


def test_images_reach_a_model_that_sees(serving: Serving, tmp_path: Path) -> None:
    parameters = {"image_format": "png", "scene_prompt": "What is it?", "scene_tokens": 12, "timeout": 300}
    stage = OpenAICaptioner(serving.settings(serving.sighted, **parameters))
    stage.load()
    images = [Image.new("RGB", (50, 40), colour) for colour in COLOURS]
    results = [" ".join(str(text).split()) for text in stage.run([CaptionRequest(image) for image in images])]
    for image, colour in zip(images, COLOURS, strict=True):
        image.save(tmp_path / f"{colour}.png")
    assert results == [answer_of(serving.sighted, tmp_path / f"{name}.png", "What is it?", 12) for name in COLOURS]
    assert len(set(map(str, results))) > 1
    composer = OpenAIComposer(
        serving.settings(
            serving.sighted,
            prompt="sighted",
            prompt_sha256=sha256_of(FOLDER / "sighted.toml"),
            with_image=True,
            max_new_tokens=12,
            image_format="png",
        )
    )
    composer.load()
    told = record("A thing.")
    composer.run([ComposeRequest(told, image) for image in images])
    assert [used.requests for used in composer.usage] == [1, 1, 1]
    assert composer.usage[0].prompt_tokens <= composer.bound(ComposeRequest(told, images[0]))[0].prompt_tokens


def test_a_model_that_the_server_lacks_is_no_images_fault(serving: Serving) -> None:
    settings = serving.settings(serving.demo / "none", prompt_sha256=sha256_of(FOLDER / "full.toml"), retries=0)
    stage = OpenAIComposer(settings)
    stage.load()
    with pytest.raises(StageUnavailable, match="does not answer a test question"):
        stage.run([ComposeRequest(record("A red car."))])
