"""A chat server whose answers follow from the question, and which fails in the way that the harness says."""

from __future__ import annotations

import hashlib
import json
from contextlib import AbstractContextManager
from typing import Any

from bench.fakes.scripted_server import Reply, ScriptedServer, good, scripted
from bench.faults.orders import Orders

# state of `Orders` -> the response in place of an answer
RESPONSES = {
    "server_401": Reply('{"error": {"message": "Incorrect API key provided"}}', 401),
    "server_404": Reply('{"error": {"message": "The model does not exist"}}', 404),
    "server_429": Reply('{"error": {"message": "Rate limit reached"}}', 429),
    "server_500": Reply("Internal Server Error", 500),
    "server_garbage": Reply("<html>It works!</html>"),
    "server_half": Reply(good("half").body, cut=100),  # the connection is closed in the middle
}


def chat_server(orders: Orders) -> AbstractContextManager[ScriptedServer]:
    """A server that answers with one sentence, always the same for the same question."""

    def answer(body: dict[str, Any]) -> Reply:
        question = json.dumps(body["messages"], sort_keys=True)
        for state in filter(orders.holds, RESPONSES):
            orders.meet(state)
            return RESPONSES[state]
        text = f"Picture {hashlib.sha256(question.encode()).hexdigest()[:16]} is described here."
        return good(text, read=20, written=10)

    return scripted(answer)
