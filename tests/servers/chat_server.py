"""A chat server on loopback without a model, in a process of its own, with optional faults.

    python -m tests.servers.chat_server --port PORT --spent FILE --trouble 0.2

It counts a byte as a token. FILE gets a line of tokens read and written for each answer that was generated, before it
is sent or lost: what a provider would bill. Questions with the word "cursed" are answered in garbage always.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

BEFORE = ("busy", "busy until", "broken")  # faults before the generation, which cost nothing
AFTER = ("garbage", "half", "hang-up", "empty")  # faults after the generation
CURSED = "cursed"
SECONDS = 0.03  # of a generation
WORDS = ("red", "blue", "round", "small", "wooden", "wet")


class Server(ThreadingHTTPServer):
    """Generates one answer at a time. spent: the file of what was spent; trouble: the share of requests with a fault.

    At most two requests in a row with the same messages get a fault, or some image would use up its retries by chance.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port: int, spent: Path, trouble: float) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self._spent, self._trouble = spent, trouble
        self._dice, self._guard, self._generates = random.Random(time.time_ns()), threading.Lock(), threading.Lock()
        self._faults: Counter[str] = Counter()  # in a row, by the messages

    def fault(self, messages: str) -> str:
        """What goes wrong with a request; empty: nothing."""
        with self._guard:
            strikes = self._faults[messages] < 2 and self._dice.random() < self._trouble
            kind = self._dice.choice([*BEFORE, *AFTER]) if strikes else ""
            self._faults[messages] = self._faults[messages] + 1 if kind else 0
        return "garbage" if CURSED in messages else kind

    def complete(self, messages: str, most: int) -> dict[str, Any]:
        """Generate a chat completion, which the messages determine."""
        digest = hashlib.sha256(messages.encode()).digest()
        read, written = len(messages.encode()), 1 + digest[0] % most
        with self._generates:
            time.sleep(SECONDS)
            with self._spent.open("a", encoding="utf-8") as file:
                file.write(f"{read} {written}\n")
        text = f"Seen: something {WORDS[digest[1] % len(WORDS)]}."
        return {
            "object": "chat.completion",
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"},
            ],
            "usage": {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written},
        }


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        messages = json.dumps(body["messages"])
        kind = self.server.fault(messages)
        if kind == "busy":
            self._reply("slow down", 429, {"Retry-After": "0"})
        elif kind == "busy until":
            moment = datetime.now(UTC) + timedelta(seconds=1)
            self._reply("slow down", 429, {"Retry-After": format_datetime(moment, usegmt=True)})
        elif kind == "broken":
            self._reply("out of memory", 500)
        else:
            self._tell(self.server.complete(messages, body["max_tokens"]), kind)

    def _tell(self, answer: dict[str, Any], kind: str) -> None:
        """Send an answer, or what a fault makes of it."""
        if kind == "garbage":
            self._reply("<html>it works!</html>")
        elif kind == "half":
            self._reply(json.dumps(answer)[:60])
        elif kind == "hang-up":
            self._reply('{"choices": [', headers={"Content-Length": "1000"})
            self.close_connection = True
        else:
            if kind == "empty":
                answer["choices"][0]["message"]["content"] = ""
            self._reply(json.dumps(answer))

    def _reply(self, text: str, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = text.encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Do not log."""


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--spent", type=Path, required=True)
    parser.add_argument("--trouble", type=float, default=0.0)
    options = parser.parse_args()
    Server(options.port, options.spent, options.trouble).serve_forever()


if __name__ == "__main__":
    main()
