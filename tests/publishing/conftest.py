"""A snapshot that has something to say: a known profile, a verifier's cuts, filtered and failed rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from strata.core.claims import CheckedSentence, Verification
from strata.core.profiles import load_profile
from strata.core.records import Record
from strata.core.settings import Settings
from strata.snapshots.snapshot import Snapshot
from strata.store.index_rows import IndexRow
from strata.store.provenance import Provenance
from strata.store.store import Store
from tests.pinned import describe, pin, write_shards

FINGERPRINT = "f" * 16  # of the parts that `pin` writes
COUNT = 10
SENTENCES = [
    CheckedSentence(text="A car.", kept="A car."),
    CheckedSentence(text="Two dogs.", kept=None, reason="wrong_count"),
]


def told(row: IndexRow) -> Record:
    """A described row; one is filtered by a rule, one has failed."""
    record = describe(row).model_copy(
        update={"verification": Verification(text="A car. Two dogs.", sentences=SENTENCES)}
    )
    if row.key.endswith("8"):
        return record.filtered("few_words", "3 words, fewer than 5")
    return record.failed("ocr", "OSError", "broken") if row.key.endswith("9") else record


def keep_demo_profile(store: Store) -> None:
    """Let the store know the demo's profile under the fingerprint of the parts."""
    profile = load_profile("demo", Settings().profiles_dir)
    settings = profile.model_dump(mode="json", exclude={"name", "prompts"})
    kept = Provenance(fingerprint=FINGERPRINT, profile="demo", settings=settings, prompts=profile.prompts)
    store.put(store.path("profiles", f"{FINGERPRINT}.json"), kept.model_dump_json().encode())


@pytest.fixture
def snapshot(store: Store, tmp_path: Path) -> Snapshot:
    """Eight of ten images in two shards."""
    keep_demo_profile(store)
    return pin(store, write_shards(tmp_path / "shards", 2, COUNT // 2), describe=told)
