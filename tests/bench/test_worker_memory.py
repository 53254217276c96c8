"""The memory of the demo's stages on pages and photographs stays within what a worker promises."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

# A worker promises 1,024 MiB above its models. Beside one micro-batch of two photographs it has the next one, the bytes
# of the chunk, and the composer's 480 MiB. Measured: 93 and 172 MiB; a mask of 24 megapixels in float32 takes 96.
MOST = 300


@pytest.mark.slow
def test_a_micro_batch_of_pages_and_of_photographs_takes_little_memory() -> None:
    """Without the OCR, which takes 14 s for a page; `tests/models/stages/test_text_lines.py` holds what it reads."""
    left_out = [word for stage in ("ocr", "matcher", "captioner") for word in ("--without", stage)]
    command = [sys.executable, "-m", "bench.worker_memory.one_call", "pages=2", "photographs=2", *left_out]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {kind: succeeded for kind, (_, succeeded) in found.items()} == {"pages": 2, "photographs": 2}
    assert all(0 < mib <= MOST for mib, _ in found.values()), found
