"""A snapshot that has something to say (a known profile, cuts of a verifier, filtered and failed rows), its exports."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from strata.core.claims import CheckedSentence, Verification
from strata.core.layers import LAYERS
from strata.core.profiles import load_profile
from strata.core.records import Record
from strata.core.settings import Settings
from strata.data.exports import Form, Request
from strata.publishing import About, export
from strata.snapshots.snapshot import Snapshot
from strata.store.index_rows import IndexRow
from strata.store.provenance import Provenance
from strata.store.store import Store
from tests.pinned import describe, pin, write_shards

FINGERPRINT = "f" * 16  # of the parts that `pin` writes
COUNT = 10
ABOUT = About("Cars", "https://spdx.org/licenses/CC-BY-4.0", (), "Ada", "https://example.org/cars")
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


def told_snapshot(store: Store, folder: Path) -> Snapshot:
    """Eight of ten images in two shards below a folder."""
    keep_demo_profile(store)
    return pin(store, write_shards(folder / "shards", 2, COUNT // 2), describe=told)


@pytest.fixture
def snapshot(store: Store, tmp_path: Path) -> Snapshot:
    """Eight of ten images, for tests that change something."""
    return told_snapshot(store, tmp_path)


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Form], Path]:
    """The export of such a snapshot in a format, made once in a session: nobody may change it.

    `parquet` has the layer `regions`, with boxes, all others the descriptions.
    """
    folder = tmp_path_factory.mktemp("exports")
    store = Store(str(folder / "store"))
    snapshot = told_snapshot(store, folder)

    def made(form: Form) -> Path:
        out = folder / form
        if not out.exists():
            layer = LAYERS["regions" if form == "parquet" else "description"]
            export(store, snapshot, Request(form, layer), out, ABOUT)
        return out

    return made
