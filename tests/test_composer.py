"""The composer with a random Llama of two layers, and with a chat server on loopback."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from models.base import ComposerStage, Failure, StageUnavailable, WeightsMissing
from models.composer import OpenAIComposer, TransformersComposer
from models.int8 import Int8Linear
from models.notes import notes_of, place_of, settings_of
from models.prompts import FOLDER, full_notes, small_notes
from models.weights import sha256_of
from strata.profiles import StageSettings
from strata.records import Caption, ImageReference, Record, Region, TextLine

CHAT = "{% for m in messages %}<s>{{ m['role'] }}\n{{ m['content'] }}</s>{% endfor %}<s>assistant\n"


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


def test_prompts_hold_no_numbers_and_only_what_is_kept() -> None:
    for notes in (small_notes(make_record(), 9), full_notes(make_record(), 9)):
        assert not re.search(r"\d", notes)
        assert "owl" not in notes
        assert "nice things" in notes
    assert "read" not in full_notes(make_record(text=[]), 9)
    assert full_notes(make_record(caption=None, regions=None, text=None), 9) == ""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random chat model over single bytes, saved as the real one is."""
    folder = tmp_path_factory.mktemp("llama")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["<pad>", "<s>", "</s>", *alphabet]
    tokenizer = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", chat_template=CHAT
    )
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        eos_token_id=2,
        pad_token_id=0,
        bos_token_id=1,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


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
    texts = local.run([make_record(), empty, alone])
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
    assert local.run(records) == [local.run([record])[0] for record in records]


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
        monkeypatch.setattr("models.int8.fast_int8", lambda fast=fast: fast)
        outputs.append(Int8Linear(linear)(rows))
    assert torch.equal(*outputs)


def test_free_writing_through_generate(checkpoint: Path) -> None:
    texts = make_local(checkpoint, grounded=False, max_new_tokens=5).run([make_record(), make_record(text=[])])
    assert all(isinstance(text, str) for text in texts)


def test_changed_prompt_and_missing_weights(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has changed"):
        make_local(checkpoint, prompt_sha256="0" * 64)
    with pytest.raises(WeightsMissing, match="strata models fetch"):
        make_local(tmp_path / "none")


class ChatServer(ThreadingHTTPServer):
    """Answers each request with the next of `answers`, (status, headers, body); the last one for ever."""

    answers: list[tuple[int, dict[str, str], str]]
    bodies: list[dict[str, Any]]


class _Handler(BaseHTTPRequestHandler):
    server: ChatServer

    def do_POST(self) -> None:
        self.server.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        answers = self.server.answers
        status, headers, body = answers.pop(0) if len(answers) > 1 else answers[0]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


GOOD = json.dumps({"choices": [{"message": {"role": "assistant", "content": " A dog\nis here. "}}]})


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer(("127.0.0.1", 0), _Handler) as server:
        server.answers, server.bodies = [(200, {}, GOOD)], []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def make_remote(url: str, **parameters: Any) -> ComposerStage:
    parameters = {"served_model": "m", "prompt_sha256": sha256_of(FOLDER / "full.toml")} | parameters
    stage = OpenAIComposer(StageSettings(backend="openai", model=f"server:{url}", revision="", parameters=parameters))
    stage.load()
    return stage


def url_of(server: ChatServer) -> str:
    return f"http://127.0.0.1:{server.server_port}/v1"


def test_server_is_asked_again_after_429(server: ChatServer) -> None:
    server.answers = [(429, {"Retry-After": "0"}, ""), (200, {}, GOOD)]
    assert make_remote(url_of(server)).run([make_record()]) == ["A dog is here."]
    assert len(server.bodies) == 2
    assert server.bodies[0]["messages"][0]["role"] == "system"
    assert server.bodies[0]["temperature"] == 0


def test_server_that_stays_broken_is_no_images_fault(server: ChatServer) -> None:
    server.answers = [(500, {"Retry-After": "0"}, "")]
    with pytest.raises(StageUnavailable, match="status 500"):
        make_remote(url_of(server)).run([make_record()])
    assert len(server.bodies) == 4


def test_no_server() -> None:
    with pytest.raises(StageUnavailable, match="ConnectError"):
        make_remote("http://127.0.0.1:9/v1", retries=0).run([make_record()])


@pytest.mark.parametrize("answer", [(200, {}, "<html>"), (200, {}, '{"choices": []}'), (400, {}, "too long")])
def test_a_refused_request_fails_its_own_item(server: ChatServer, answer: tuple[int, dict[str, str], str]) -> None:
    server.answers = [answer, (200, {}, GOOD)]
    failure, good = make_remote(url_of(server), concurrency=1).run([make_record(), make_record()])
    assert isinstance(failure, Failure)
    assert failure.error_type == "RequestRefused"
    assert good == "A dog is here."


def test_wrong_url_is_refused() -> None:
    with pytest.raises(ValueError, match="no chat server"):
        make_remote("file:///etc")
