"""`python -m tests.stage_memory FOLDER`: prints by how many MiB the memory of this process grows in two stages.

FOLDER: a chat model of `tests.chat_model`, for the composer. Each stage gets a micro-batch of what costs most.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import psutil  # type: ignore[import-untyped]
from PIL import Image

from models.items import ComposeRequest
from models.pipeline import VisionPipeline
from models.prompts import FOLDER
from models.stages.composer import TransformersComposer
from models.weights.hashes import sha256_of
from strata.core import ImageReference, Record, StageSettings, load_profile
from strata.core.records import TextLine
from tests.checkout import CHECKOUT

PAGE = (1654, 2339)
RESET_PEAK = "5"  # for /proc/self/clear_refs, see proc_pid_clear_refs(5)


def grown(act: Callable[[], object]) -> int:
    """The peak of the resident size while act runs, above that before, in MiB."""
    before = psutil.Process().memory_info().rss
    Path("/proc/self/clear_refs").write_text(RESET_PEAK, encoding="ascii")
    act()
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))
    return (peak - before) // 2**20


def of_detector() -> int:
    """With two full batches of pages."""
    detector = VisionPipeline(load_profile("demo", CHECKOUT / "models" / "profiles")).stages["detector"]
    detector.load()
    detector.probe()
    pages = [Image.new("RGB", PAGE, "white")] * (2 * detector.settings.batch_size)
    return grown(lambda: detector.run(pages))


def of_composer(folder: Path) -> int:
    """With two records of pages: twelve things with text of 10,000 letters, each of which is a token here."""
    parameters = {"prompt_sha256": sha256_of(FOLDER / "small.toml"), "max_new_tokens": 8, "precision": "float32"}
    settings = StageSettings(
        backend="transformers", model=f"local:{folder}", revision="", batch_size=16, parameters=parameters
    )
    composer = TransformersComposer(settings)
    composer.load()
    lines = [TextLine(box=(0, 100.0 * i, 1000, 100.0 * i + 50), text="words of a page " * 50) for i in range(12)]
    image = ImageReference(uri="a.png", size=1)
    requests = [ComposeRequest(Record(key=str(i), image=image, width=1654, height=2339, text=lines)) for i in range(12)]
    composer.probe()
    return grown(lambda: composer.run(requests))


if __name__ == "__main__":
    print(of_detector(), of_composer(Path(sys.argv[1])))
