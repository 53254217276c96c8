"""Provenance: the models, revisions, prompts and thresholds that belong to a fingerprint, kept in the store.

Beside it the store keeps the proof of a fingerprint, if `strata models prove` has run with it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel

from strata.core import FINAL_GROUP, GROUPS, SCHEMA_VERSION, Profile, Proof, TextSettings
from strata.errors import Conflict, DamagedFile
from strata.store.store import Store

log = logging.getLogger(__name__)

_NAME = re.compile(r"[0-9a-f]{1,64}\.json")  # of a kept profile's file


class Provenance(BaseModel):
    """The content of a profile, by the fingerprint of its `llm` parts.

    fingerprints: those of all groups; settings: the content of the profile; prompts: the prompts' texts by name. All
    three are empty if the parts were written before the store kept profiles.
    """

    fingerprint: str
    profile: str | None = None
    schema_version: int | None = None
    kept_at: datetime | None = None
    fingerprints: dict[str, str] = {}
    settings: dict[str, Any] = {}
    prompts: dict[str, str] = {}


def keep_profile(store: Store, profile: Profile) -> None:
    """Write the content of a profile to the store, once for each fingerprint. Raises OSError."""
    fingerprints = {group: profile.fingerprint(group) for group in GROUPS}
    path = _path(fingerprints[FINAL_GROUP])
    # what decides the output cannot have changed, but what snapshots leave out may have, and the file may be damaged
    with suppress(FileNotFoundError, DamagedFile):
        found = store.parse(path, Provenance)
        if found.settings.get("leave_out", {}) == profile.leave_out:
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
    store.put(store.path(path), content.model_dump_json().encode())


def provenance_of(store: Store, fingerprint: str) -> Provenance:
    """The provenance of `llm` parts with a fingerprint, almost empty if the store has none, or a damaged one."""
    try:
        return store.parse(_path(fingerprint), Provenance)
    except FileNotFoundError:
        return Provenance(fingerprint=fingerprint)
    except DamagedFile as error:
        log.warning("%s; the next job with this profile writes it anew", error)
        return Provenance(fingerprint=fingerprint)


def leave_out_of(store: Store, fingerprints: Iterable[str], given: Mapping[str, str]) -> dict[str, str]:
    """What the profiles with these `llm` fingerprints want snapshots to leave out: filters by name.

    They are those of the last submission with each profile. given: filters that replace those of their names. Raises
    Conflict if two profiles have different filters of one name that is not given, and OSError.
    """
    found = dict(given)
    for fingerprint in sorted(set(fingerprints)):
        for name, expression in (provenance_of(store, fingerprint).settings.get("leave_out") or {}).items():
            if found.setdefault(name, expression) != expression and name not in given:
                raise Conflict(f"two profiles leave out {name!r} by different rules: give --leave-out {name}=FILTER")
    return found


def matchers_of(store: Store, fingerprints: Iterable[str]) -> list[str]:
    """The models that have matched the phrases of `llm` parts with these fingerprints, sorted. Raises OSError.

    Probabilities of two of them are not on one scale. A profile that the store does not know has none here.
    """
    stages = (provenance_of(store, one).settings.get("stages") or {} for one in set(fingerprints))
    matchers = (found["matcher"] for found in stages if "matcher" in found)
    return sorted({f"{matcher['model']} ({matcher['revision'][:8]})" for matcher in matchers})


def texts_of(store: Store, fingerprint: str) -> TextSettings | None:
    """What texts the jobs with a `llm` fingerprint want; None if the store does not know it. Raises OSError."""
    settings = provenance_of(store, fingerprint).settings
    return TextSettings.model_validate(settings.get("texts") or {}) if settings else None


def kept_profiles(store: Store) -> list[str]:
    """The fingerprints of `llm` parts whose profiles the store has kept, sorted. It takes one listing."""
    ours = store.without_foreign("profiles", store.names("profiles"), lambda name: bool(_NAME.fullmatch(name)))
    return [name.removesuffix(".json") for name in ours]


def fingerprints_of(store: Store, name: str) -> list[str]:
    """The fingerprints of `llm` that the store knows for a profile's name; for a fingerprint, itself. Sorted."""
    known = (provenance_of(store, fingerprint) for fingerprint in kept_profiles(store))
    return [content.fingerprint for content in known if name in (content.profile, content.fingerprint)]


def keep_proof(store: Store, proof: Proof) -> str:
    """Write a proof, in place of an earlier one of its fingerprint; returns its path in the store. Raises OSError."""
    path = _proof_path(proof.fingerprints[FINAL_GROUP])
    store.put(store.path(path), proof.model_dump_json(indent=2).encode())
    return path


def proof_of(store: Store, fingerprint: str) -> Proof | None:
    """The proof of a profile with this `llm` fingerprint; None if there is none, or a damaged one. Raises OSError."""
    try:
        return store.parse(_proof_path(fingerprint), Proof)
    except FileNotFoundError:
        return None
    except DamagedFile as error:
        log.warning("%s; `strata models prove` writes it anew", error)
        return None


def _proof_path(fingerprint: str) -> str:
    return f"proofs/{fingerprint}.json"


def _path(fingerprint: str) -> str:
    return f"profiles/{fingerprint}.json"
