"""`GET /v1/profiles`, and the profile's name in records and result lines."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from models.weights.inventory import PROFILES
from strata.core.profiles import GROUPS, load_profile
from strata.core.proofs import Check, Proof
from strata.queue.queue import Queue
from strata.store import keep_proof
from tests.fakes import FAKE_PROFILE, jpeg
from tests.service import Service, running_service


@pytest.fixture
def listing(queue: Queue, tmp_path: Path) -> Iterator[Service]:
    """A service with two profiles, one of which has a fault."""
    folder = tmp_path / "mine" / "profiles"
    folder.mkdir(parents=True)
    shutil.copy(PROFILES / "laptop.toml", folder)
    (folder / "bad.toml").write_text("[stages.captoiner]\n")
    with running_service(queue, tmp_path, workers=False, profiles_dir=folder) as service:
        yield service


def test_profiles_are_listed_with_what_they_are(listing: Service) -> None:
    bad, laptop = listing.client.get("/v1/profiles").json()["profiles"]
    assert bad["name"] == "bad" and bad["faults"] == ["stages.captoiner: unknown stage; did you mean 'captioner'?"]
    assert laptop["name"] == "laptop" and laptop["faults"] == [] and laptop["proof"] is None
    assert [stage["stage"] for stage in laptop["stages"]][:2] == ["captioner", "detector"]
    assert laptop["layers"] == ["caption", "regions", "objects", "text", "description"]
    profile = load_profile("laptop", PROFILES)
    assert laptop["fingerprints"] == {group: profile.fingerprint(group) for group in GROUPS}


def test_the_proof_of_these_fingerprints_is_shown(listing: Service) -> None:
    profile = load_profile("laptop", PROFILES)
    fingerprints = {group: profile.fingerprint(group) for group in GROUPS}
    proof = Proof(
        profile="laptop",
        passed=False,
        time=datetime(2026, 11, 28, tzinfo=UTC),
        fingerprints=fingerprints,
        device="CPU",
        machine={"cores": "2"},
        versions={"strata": "0"},
        checks=[Check(stage="ocr", name="sign", passed=False, value=0.0, least=1.0)],
    )
    keep_proof(listing.jobs.store, proof)
    _, laptop = listing.client.get("/v1/profiles").json()["profiles"]
    assert Proof.model_validate(laptop["proof"]) == proof


def test_records_and_result_lines_name_the_profile(queue: Queue, tmp_path: Path) -> None:
    with running_service(queue, tmp_path) as service:
        answer = service.caption(jpeg())
        job = answer.headers["Location"].rpartition("/")[2]
        place = answer.headers["Content-Location"]
        (line,) = service.client.get(f"/v1/jobs/{job}/results").text.splitlines()
        told = [answer.json(), service.client.get(place).json(), json.loads(line)]
    fingerprint = FAKE_PROFILE.fingerprint("llm")
    assert [(one["profile"], one["fingerprint"]) for one in told] == [("fake", fingerprint)] * 3
