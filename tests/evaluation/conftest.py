"""Scenes of the bundled shard as records that tell the whole truth, and a store with them."""

from __future__ import annotations

import json
import tarfile
from typing import Any

import pytest

from models.evidence.support import describe
from strata.core.claims import CheckedSentence, Claim, Variant, Verification
from strata.core.profiles import load_profile
from strata.core.records import Caption, ImageReference, Record, Region, Status
from strata.core.settings import Settings
from strata.store.provenance import keep_profile
from strata.store.store import Store
from tests.checkout import CHECKOUT
from tests.described import write_part

SHARD = CHECKOUT / "samples" / "shards" / "00000.tar"
PROFILE = load_profile("demo", Settings().profiles_dir)
FINGERPRINT = PROFILE.fingerprint("llm")


def samples() -> list[tuple[ImageReference, dict[str, Any]]]:
    """The images of the bundled shard with their metadata."""
    found = []
    with tarfile.open(SHARD) as tar:
        members = {member.name: member for member in tar}
        for name, member in members.items():
            if name.endswith(".jpg"):
                content = tar.extractfile(members[name.replace(".jpg", ".json")])
                assert content is not None
                image = ImageReference(uri=str(SHARD), offset=member.offset_data, size=member.size)
                found.append((image, json.load(content)))
    return found


def record_of(image: ImageReference, meta: dict[str, Any], invented: str = "") -> Record:
    """A record that tells the whole truth of a scene, and what is invented; its first region was dropped."""
    scene = meta["scene"]
    regions = [
        Region(box=tuple(thing["box"]), phrase=thing["phrase"], kept=n > 0, reason=None if n else "low_match")
        for n, thing in enumerate(scene["objects"])
    ]
    record = Record(
        key=meta["key"],
        image=image,
        width=meta["width"],
        height=meta["height"],
        alt_text=meta["caption"],
        caption=Caption(text=scene["caption"]),
        regions=regions,
    )
    signs = "".join(f' There is a sign that says "{sign["text"]}".' for sign in scene["signs"])
    told = f"{scene['caption']}{signs}{invented}"
    cut = CheckedSentence(
        text="A lamp is on.",
        kept=None,
        reason="unsupported_object",
        claims=[Claim(kind="thing", text="a lamp", supported=False, reason="unsupported_object")],
    )
    whole = CheckedSentence(text=told, kept=told, claims=[Claim(kind="thing", text="a thing", supported=True)])
    return record.model_copy(
        update={
            "description": describe(told, record),
            "verification": Verification(text=f"{told} A lamp is on.", sentences=[whole, cut]),
            "variants": [Variant(name="short", text=scene["caption"].split(".")[0] + ".")],
        }
    )


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return [record_of(*sample) for sample in samples()]


@pytest.fixture
def scene_store(store: Store, records: list[Record], monkeypatch: pytest.MonkeyPatch) -> Store:
    """The scenes of the bundled shard, described without a fault, as rows of the demo profile."""
    failed = Record(key="broken", image=ImageReference(uri=str(SHARD), size=1), status=Status.FAILED)
    write_part(store, records[:32], number=0, fingerprint=FINGERPRINT)
    write_part(
        store, [*records[32:], failed.failed("decode", "ImageError", "broken")], number=1, fingerprint=FINGERPRINT
    )
    keep_profile(store, PROFILE)
    monkeypatch.setenv("STRATA_STORE", store.uri)
    return store
