"""The judge: its questions, its answers, and its budget, with a server on loopback that rates by rules."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from models.evaluation.judging import PROMPT, rated
from strata.cli import exits
from tests.cli.test_cli import code_of
from tests.evaluation.test_evaluate import evaluated

TOKENS = 300  # that the server counts for an answer


class Rates(BaseHTTPRequestHandler):
    """Gives texts with signs of truth 5, alt texts 1, and no numbers to some."""

    asked: list[str]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        image, text = body["messages"][-1]["content"]
        assert image["image_url"]["url"].startswith("data:image/jpeg;base64,")
        self.asked.append(text["text"])
        good = "background" in text["text"].partition("-----")[2]
        said = '{"correct": 5, "complete": 4}' if good else 'I think {"correct": 1, "complete": "2"}.'
        answer = {
            "choices": [{"message": {"role": "assistant", "content": said}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": TOKENS - 10, "completion_tokens": 10},
        }
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Nothing is printed."""


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """The address of the server, and the questions that it got."""
    asked: list[str] = []
    handler = type("Handler", (Rates,), {"asked": asked})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/v1", asked
        running.shutdown()
        thread.join()


def profile(folder: Path, url: str, prices: bool = False) -> str:
    lines = ["[stages.captioner]", 'backend = "openai"', f'model = "server:{url}"', 'revision = "1"']
    lines += ["[stages.captioner.parameters]", 'served_model = "judge"', "concurrency = 2"]
    if prices:
        lines += ["price_per_million_prompt_tokens = 1.0", "price_per_million_completion_tokens = 4.0"]
    path = folder / "judge.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


@pytest.mark.usefixtures("scene_store")
def test_texts_are_rated_within_the_budget(tmp_path: Path, server: tuple[str, list[str]]) -> None:
    url, asked = server
    judge = ("--judge", profile(tmp_path, url), "--images", "20")
    found = evaluated(tmp_path / "a.json", "demo", *judge, "--budget-tokens", "1000000", "--model-images", "4")
    told = found.texts["description"].figures
    assert told["judged_correct"].value == 1 and told["judged_complete"].value == 0.75
    assert found.texts["alt_text"].figures["judged_complete"].value == 0.25
    assert told["judged_correct"].images == 4
    # description, caption, alt text, unchecked and variant of each image; texts that are equal are rated once
    assert 12 <= len(asked) <= 20 and all(one.startswith(PROMPT[:40]) for one in asked)
    assert found.spent["tokens"] == len(asked) * TOKENS
    # a budget that ends before the last image
    whole = len(asked)
    asked.clear()
    found = evaluated(tmp_path / "b.json", "demo", *judge, "--budget-tokens", "21500", "--model-images", "4")
    assert 2 <= len(asked) < whole and found.spent["tokens"] == len(asked) * TOKENS <= 21500


@pytest.mark.usefixtures("scene_store")
def test_money_needs_prices(tmp_path: Path, server: tuple[str, list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    url, asked = server
    few = ("--images", "10", "--model-images", "2", "--resamples", "100")
    assert code_of("evaluate", "demo", "--judge", profile(tmp_path, url), *few) == exits.USAGE
    assert "--budget-tokens" in capsys.readouterr().err and not asked
    assert code_of("evaluate", "demo", "--judge", profile(tmp_path, url), "--budget-money", "1", *few) == exits.USAGE
    assert "no prices" in capsys.readouterr().err and not asked
    priced = profile(tmp_path, url, prices=True)
    found = evaluated(tmp_path / "a.json", "demo", "--judge", priced, "--budget-money", "1", *few[:4])
    assert found.spent["money"] == pytest.approx(len(asked) * (290 * 1 + 10 * 4) / 1e6) and asked
    assert code_of("evaluate", "demo", "--judge", "demo", "--budget-tokens", "9", *few) == exits.USAGE


@pytest.mark.usefixtures("scene_store")
def test_a_server_that_is_away_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    away = profile(tmp_path, "http://127.0.0.1:9/v1")
    arguments = ("--judge", away, "--budget-tokens", "100000", "--images", "5", "--resamples", "100")
    assert code_of("evaluate", "demo", *arguments) == exits.API_UNREACHABLE
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("strata: ") and "Traceback" not in lines[-1]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ('{"correct": 3, "complete": 5}', {"correct": 3, "complete": 5}),
        ('```json\n{"complete":1,"correct":"2"}\n```', {"correct": 2, "complete": 1}),
        ('{"correct": 7, "complete": 5}', None),
        ('{"correct": 3}', None),
        ("Great!", None),
        ('{"correct": 45, "complete": 5}', None),
    ],
)
def test_answers_are_read(answer: str, expected: dict[str, int] | None) -> None:
    assert rated(answer) == expected
