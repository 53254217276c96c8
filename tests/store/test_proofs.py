"""Proofs in the store: one for each fingerprint, the newest; a damaged one is none."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from strata.core import Check, Proof
from strata.store import Store, keep_proof, proof_of

FINGERPRINT = "0123456789abcdef"


def proof(passed: bool) -> Proof:
    check = Check(stage="ocr", name="reads", passed=passed, value=0.5, least=0.6, detail="sign: OPEN")
    return Proof(
        profile="demo",
        passed=passed,
        time=datetime(2026, 11, 28, 20, 45, tzinfo=UTC),
        fingerprints={"llm": FINGERPRINT},
        device="CPU",
        machine={"cores": "2"},
        versions={"strata": "1"},
        checks=[check],
        days={427_000: 2.5},
    )


def test_the_newest_proof_of_a_fingerprint_is_kept(store: Store) -> None:
    assert proof_of(store, FINGERPRINT) is None
    for passed in (True, False):
        assert keep_proof(store, proof(passed)) == f"proofs/{FINGERPRINT}.json"
        assert proof_of(store, FINGERPRINT) == proof(passed)
    assert proof(False).failed == ["ocr reads"] and proof(True).failed == []
    assert proof_of(store, "f" * 16) is None


def test_a_damaged_proof_is_none(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    path = keep_proof(store, proof(True))
    store.put(store.path(path), b'{"passed": true')
    assert proof_of(store, FINGERPRINT) is None
    assert "writes it anew" in caplog.text
