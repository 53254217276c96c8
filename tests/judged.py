"""Judgments with chosen contents, for tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from strata.judgments import Judgment, Verdict
from tests.described import FINGERPRINT

START = datetime(2026, 11, 29, tzinfo=UTC)
JOB = "0192ab" + "0" * 16


def judgment(
    name: str, second: float = 0, verdict: Verdict = "accepted", key: str = "a", reviewer: str = "Ada", **more: Any
) -> Judgment:
    """A judgment with an id that ends with a name, so many seconds after START."""
    given = {"job": JOB, "fingerprint": FINGERPRINT, "identity": "a" * 16, "at": START + timedelta(seconds=second)}
    if verdict == "edited":
        given |= {"sentences": ({"index": 0, "verdict": "edited", "edited": "Better."},), "text": "Better."}
    values = {"id": f"judgment-{name}", "verdict": verdict, "key": key, "reviewer": reviewer}
    return Judgment.model_validate({**given, **values, **more})
