"""A real chat server on loopback (a random transformers model behind FastAPI), with optional faults.

    python -m tests.servers.chat_server --model FOLDER --port PORT --spent FILE --trouble 0.2

FILE gets a line of tokens read and written for each answer that was generated, before it is sent or lost: what a
provider would bill. Questions with the word "cursed" are answered in garbage always.
"""

from __future__ import annotations

import argparse
import json
import random
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from transformers import AutoModelForCausalLM, AutoTokenizer

BEFORE = ("busy", "busy until", "broken")  # faults before the generation, which cost nothing
AFTER = ("garbage", "half", "hang-up", "empty")  # faults after the generation
CURSED = "cursed"


class Model:
    """The chat model. It runs one generation at a time."""

    def __init__(self, folder: Path, spent: Path) -> None:
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self._model: Any = AutoModelForCausalLM.from_pretrained(folder).eval()
        self._spent, self._lock = spent, threading.Lock()

    def complete(self, messages: list[dict[str, Any]], most: int) -> dict[str, Any]:
        """Generate a chat completion, by greedy decoding."""
        inputs = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")
        with self._lock, torch.inference_mode():
            output = self._model.generate(**inputs, do_sample=False, max_new_tokens=most)[0]
        read = inputs["input_ids"].shape[1]
        written = len(output) - read
        with self._lock, self._spent.open("a") as file:
            file.write(f"{read} {written}\n")
        text = f"Seen: {self._tokenizer.decode(output[read:], skip_special_tokens=True)}."
        return {
            "object": "chat.completion",
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"},
            ],
            "usage": {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written},
        }


def build(model: Model, trouble: float, seed: int) -> FastAPI:
    """Make the application. trouble: the share of requests with a fault.

    At most two requests in a row with the same messages get a fault, or some image would use up its retries by chance.
    """
    app, dice = FastAPI(), random.Random(seed)
    faults: Counter[str] = Counter()  # in a row, by the messages

    @app.post("/v1/chat/completions")
    def complete(body: dict[str, Any]) -> Response:
        messages = json.dumps(body["messages"])
        kind = dice.choice([*BEFORE, *AFTER]) if faults[messages] < 2 and dice.random() < trouble else ""
        faults[messages] = faults[messages] + 1 if kind else 0
        if CURSED in messages:
            kind = "garbage"
        if kind == "busy":
            return PlainTextResponse("slow down", 429, {"Retry-After": "0"})
        if kind == "busy until":
            moment = datetime.now(UTC) + timedelta(seconds=1)
            return PlainTextResponse("slow down", 429, {"Retry-After": format_datetime(moment, usegmt=True)})
        if kind == "broken":
            return PlainTextResponse("out of memory", 500)
        answer = model.complete(body["messages"], body["max_tokens"])
        if kind == "garbage":
            return PlainTextResponse("<html>it works!</html>")
        if kind == "half":
            return PlainTextResponse(json.dumps(answer)[:60], media_type="application/json")
        if kind == "hang-up":
            return StreamingResponse(_breaking(), headers={"Content-Length": "1000"})
        if kind == "empty":
            answer["choices"][0]["message"]["content"] = ""
        return JSONResponse(answer)

    return app


async def _breaking() -> AsyncIterator[bytes]:
    yield b'{"choices": ['
    raise ConnectionError("the line is cut")


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--spent", type=Path, required=True)
    parser.add_argument("--trouble", type=float, default=0.0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    app = build(Model(options.model, options.spent), options.trouble, time.time_ns())
    uvicorn.run(app, host="127.0.0.1", port=options.port, log_level="warning")


if __name__ == "__main__":
    main()
