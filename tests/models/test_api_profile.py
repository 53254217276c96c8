"""The profile `api` with servers of four kinds, each with what is different about it, and without torch."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bench.fakes.scripted_server import Reply, scripted
from models.weights.inventory import PROFILES
from strata.cli.main import main
from tests.checkout import CHECKOUT

PAGE = CHECKOUT / "docs" / "how-to" / "chat-servers.md"
CAPTION, DESCRIPTION = "A white sign on a blue wall.", 'A white sign on a blue wall says "OPEN".'
# run in a process of its own, in which torch cannot be imported; it has the paths of profiles
PROGRAM = """
import sys
sys.modules["torch"] = None
from pathlib import Path
from PIL import Image, ImageDraw, ImageFont
from models.items import ComposeRequest
from models.pipeline import LlmPipeline, VisionPipeline
from strata.core.profiles import read_profile
from strata.core.records import ImageReference, Record

image = Image.new("RGB", (120, 90), "lightblue")
draw = ImageDraw.Draw(image)
draw.rectangle((10, 30, 110, 70), "white")
draw.text((20, 36), "OPEN", "black", font=ImageFont.load_default(size=26))
for path in sys.argv[1:]:
    profile = read_profile(Path(path))
    vision, llm = VisionPipeline(profile), LlmPipeline(profile)
    vision.load()
    llm.load()
    record = Record(key="0", image=ImageReference(uri="a.png", size=1), width=120, height=90)
    (record,) = llm.run([ComposeRequest(one) for one in vision.run([(record, image)])])
    loaded = {name.split(".")[0] for name, module in sys.modules.items() if module}
    assert not loaded & {"torch", "transformers", "open_clip"}
    print(record.model_dump_json())
"""


def completion(content: Any, **message: Any) -> Reply:
    choice = {"index": 0, "message": {"role": "assistant", "content": content, **message}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18}
    return Reply(json.dumps({"object": "chat.completion", "choices": [choice], "usage": usage}))


def refusal(message: str) -> Reply:
    return Reply(json.dumps({"error": {"message": message, "type": "invalid_request_error"}}), status=400)


def wanted(body: dict[str, Any]) -> str:
    """The caption for a question with an image, the description for one without."""
    return CAPTION if isinstance(body["messages"][-1]["content"], list) else DESCRIPTION


def openai(body: dict[str, Any]) -> Reply:
    """As OpenAI answers for gpt-4.1."""
    return completion(wanted(body), refusal=None, annotations=[])


def reasoning(body: dict[str, Any]) -> Reply:
    """As OpenAI answers for gpt-5: another name of the limit, no temperature, as little reasoning as asked."""
    if "max_tokens" in body:
        return refusal("Unsupported parameter: 'max_tokens' is not supported with this model.")
    if body.get("temperature", 1) != 1:
        return refusal("Unsupported value: 'temperature' does not support 0 with this model.")
    return completion(wanted(body)) if body.get("reasoning_effort") == "minimal" else completion("")


def ollama(body: dict[str, Any]) -> Reply:
    """As Ollama: the first model of a name is the answerer; the text ends with a line's end."""
    return completion(f"{wanted(body)}\n", reasoning="")


def vllm(body: dict[str, Any]) -> Reply:
    """As vLLM with a parser of reasoning: its field is beside the content."""
    return completion(wanted(body), reasoning_content=None, tool_calls=[])


def lm_studio(body: dict[str, Any]) -> Reply:
    """As LM Studio with a template that lets thoughts through, and contents as a list of parts."""
    return completion([{"type": "text", "text": f"<think>\n\n</think>\n\n{wanted(body)}"}])


REASONING = [
    f"stages.{stage}.parameters.{setting}"
    for stage in ("captioner", "composer")
    for setting in ("token_limit=max_completion_tokens", "temperature=default", "request.reasoning_effort=minimal")
]


# the name of the profile, its server, and more settings
KINDS: dict[str, tuple[str, Callable[[dict[str, Any]], Reply], list[str]]] = {
    "openai": ("openai", openai, []),
    "openai, reasoning": ("openai", reasoning, REASONING),
    "ollama": ("ollama", ollama, []),
    "vllm": ("vllm", vllm, []),
    "lm studio": ("lmstudio", lm_studio, []),
}


def written(kind: str, url: str, folder: Path) -> tuple[Path, str]:
    """The profile that the page's command writes for a server at this address, and the words of the command."""
    name, _, more = KINDS[kind]
    command = re.search(rf"^\$ strata (profiles new {name} .*)$", PAGE.read_text(), re.M)
    assert command
    words = re.sub(r"server:https?://\S+", f"server:{url}", command[1])
    words += "".join(f" --set stages.{stage}.model=server:{url}" for stage in ("captioner", "composer"))
    words += "".join(f" --set {one}" for one in more) + f" --folder {folder}"
    with pytest.raises(SystemExit) as ended:
        main(shlex.split(words))
    assert ended.value.code == 0
    return folder / f"{name}.toml", words


@dataclass
class Described:
    """What one process said of a picture, what it asked the server, and the words that made its profile."""

    record: dict[str, Any]
    asked: list[dict[str, Any]]
    words: str


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Described]:
    """The answers with each kind of server, all by one process."""
    with ExitStack() as stack:
        stack.enter_context(pytest.MonkeyPatch.context()).setenv("OPENAI_API_KEY", "sk-test")
        servers = {kind: stack.enter_context(scripted(KINDS[kind][1])) for kind in KINDS}
        made = {kind: written(kind, servers[kind].url, tmp_path_factory.mktemp("api")) for kind in KINDS}
        command = [sys.executable, "-c", PROGRAM, *(str(path) for path, _ in made.values())]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        return {
            kind: Described(json.loads(line), servers[kind].asked, made[kind][1])
            for kind, line in zip(KINDS, lines, strict=True)
        }


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_server_describes_a_picture_without_torch(kind: str, described: dict[str, Described]) -> None:
    record, words = described[kind].record, described[kind].words
    assert record["status"] == "succeeded", record["failure"]
    assert (record["caption"]["text"], record["description"]["text"]) == (CAPTION, DESCRIPTION)
    assert [line["text"] for line in record["text"]] == ["OPEN"]
    assert record["regions"] is None and record["objects"] is None
    served = re.search(r"captioner.parameters.served_model=(\S+)", words)
    assert {body["model"] for body in described[kind].asked} == {served[1] if served else "qwen3-vl:8b-instruct"}


def test_the_page_names_the_model_of_the_profile() -> None:
    assert 'served_model = "qwen3-vl:8b-instruct"' in (PROFILES / "api.toml").read_text()
    assert "$ ollama pull qwen3-vl:8b-instruct" in PAGE.read_text()
