"""CaptionFlow's worker with another engine in vLLM's place: it waits, or is the demo's stages, and notes its calls.

CaptionFlow 0.5.4 computes with vLLM in the worker's process, and has no client for a server; so `generate` is the
place where its own code ends.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from caption_flow.workers.caption import CaptionWorker

from bench.peers.scripts.stage import describe_images

# what CaptionFlow makes of the prompt `{column:_filename}` if qwen_vl_utils is not there
BEFORE, AFTER = "<|image_pad|>\n", "<|end|>"


class Engine:
    """vLLM's `generate`."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given

    def generate(self, requests: Sequence[dict[str, Any]], _: object) -> list[SimpleNamespace]:
        """One output a request."""
        names = [one["prompt"].partition(BEFORE)[2].partition(AFTER)[0] for one in requests]
        images = [one["multi_modal_data"]["image"][0] for one in requests]
        pairs = list(zip((Path(name).stem for name in names), images, strict=True))
        return [SimpleNamespace(outputs=[SimpleNamespace(text=text)]) for text in describe_images(pairs, self.given)]


class Models:
    """What the worker asks for the models of a stage."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.models = {"peer": Engine(given)}

    def get_model_for_stage(self, _stage: str, model: str) -> tuple[Any, Any, Any, Any]:
        """Engine, processor, tokenizer (which counts a prompt's tokens) and sampling parameters."""
        return self.models[model], None, SimpleNamespace(encode=str.split), None

    def cleanup(self) -> None:
        """Nothing to free."""


class PeerWorker(CaptionWorker):  # type: ignore[misc]
    """The worker, which would load vLLM."""

    def _setup_vllm(self) -> None:
        self.model_manager = Models(self.config["given"])


def main() -> None:
    """Work until there is no more to do."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", required=True)
    parser.add_argument("--number", type=int, required=True)
    parser.add_argument("--calls", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--demo", action="store_true")
    given = parser.parse_args()
    config = {"server": given.server, "token": "peer", "gpu_id": given.number, "when_finished": "shutdown"}
    asyncio.run(PeerWorker({**config, "given": given}).start())


if __name__ == "__main__":
    main()
