"""The measurement of own scores, in small."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.selection import own


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_own_scores_are_joined_and_their_gaps_told(tmp_path: Path, form: str) -> None:
    figures = own.measure(tmp_path, 1000, form)
    assert figures["rows"] == 1000 and 200 < figures["rows that pass"] < 500
    for step in ("read", "joined", "gaps told", "filtered", "worth", "by a column"):
        assert figures[f"{step}, CPU seconds"] >= 0 and figures[f"{step}, peak memory so far, MiB"] > 0
