"""Provenance: what the models, revisions, prompts and thresholds behind a fingerprint were, kept in the store."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel

from strata.core.profiles import FINAL_GROUP, GROUPS, Profile
from strata.core.records import SCHEMA_VERSION
from strata.store.store import Store


class Provenance(BaseModel):
    """The content of a profile, by the fingerprint of its `llm` parts.

    fingerprints: of all groups; settings: the profile as it was; prompts: the prompts' text by name. All three are
    empty where the store was filled before it kept them.
    """

    fingerprint: str
    profile: str | None = None
    schema_version: int | None = None
    kept_at: datetime | None = None
    fingerprints: dict[str, str] = {}
    settings: dict[str, Any] = {}
    prompts: dict[str, str] = {}


def keep_profile(store: Store, profile: Profile) -> None:
    """Keep what a profile says, once for each fingerprint. Raises OSError."""
    fingerprints = {group: profile.fingerprint(group) for group in GROUPS}
    path = _path(store, fingerprints[FINAL_GROUP])
    if store.exists(path):
        return
    content = Provenance(
        fingerprint=fingerprints[FINAL_GROUP],
        profile=profile.name,
        schema_version=SCHEMA_VERSION,
        kept_at=datetime.now(UTC),
        fingerprints=fingerprints,
        settings=profile.model_dump(mode="json", exclude={"name", "prompts"}),
        prompts=profile.prompts,
    )
    store.put(path, content.model_dump_json().encode())


def provenance_of(store: Store, fingerprint: str) -> Provenance:
    """What the store knows of a fingerprint of `llm`."""
    try:
        return Provenance.model_validate_json(store.get(_path(store, fingerprint)))
    except FileNotFoundError:
        return Provenance(fingerprint=fingerprint)


def fingerprints_of(store: Store, name: str) -> list[str]:
    """The fingerprints of `llm` that the store knows of a profile, or the one that the name is; sorted."""
    paths = store.find("profiles")
    known = (provenance_of(store, path.rpartition("/")[2].removesuffix(".json")) for path in paths)
    return [content.fingerprint for content in known if name in (content.profile, content.fingerprint)]


def _path(store: Store, fingerprint: str) -> str:
    return store.path("profiles", f"{fingerprint}.json")
