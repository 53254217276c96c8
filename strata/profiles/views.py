"""What a profile is: its models with licences and sizes, the layers that it computes, what it warns of, its proof."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from strata.addresses import without_secrets
from strata.components import components_folder
from strata.core import (
    FEATURES,
    FINAL_GROUP,
    GROUPS,
    LAYERS,
    STAGES_OF,
    InvalidProfile,
    Profile,
    Proof,
    TextSettings,
    load_profile,
)
from strata.core.profiles import profile_names

KNOWN = components_folder() / "models" / "weights" / "known.toml"
# bytes of a parameter in memory: bfloat16 on a GPU, float32 on a CPU (`models/devices.py`)
GPU_BYTES, CPU_BYTES = 2, 4
ProofOf = Callable[[str], Proof | None]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, protected_namespaces=())


class StageView(_Part):
    """A stage of a profile: its group, its back end, and its model with the pinned revision."""

    stage: str
    group: str
    backend: str
    model: str
    revision: str


class WeightsView(_Part):
    """The weights of one or more stages. licence, download_bytes and parameters are null where they are not known.

    download_bytes: 0 for weights that come with Strata and for those of a server.
    """

    model: str
    revision: str
    stages: list[str]
    licence: str | None = None
    download_bytes: int | None = None
    parameters: int | None = None


class MemoryView(_Part):
    """Bytes of a group's weights in memory, without batches: on a GPU in bfloat16, on a CPU in float32.

    unknown: the models whose size is not known; the group needs more than the bytes then.
    """

    gpu_bytes: int
    cpu_bytes: int
    unknown: list[str] = Field(default_factory=list)


class ProfileView(_Part):
    """One profile. summary: what it is for; needs: the machine.

    layers: those that it computes. texts: what it writes besides the description, in which language, and with which
    prompt of its own (its table `[texts]`). warnings: what a user must know before believing it. memory: by group, of
    the weights whose size is known. download_bytes: the sum of those that are known; the others have null. proof: what
    `strata models prove` has found with these fingerprints, null if it has not run. faults: why the profile cannot be
    used; then the other fields are empty. default: whether requests that name no profile use it.
    """

    name: str
    summary: str = ""
    needs: str = ""
    default: bool = False
    stages: list[StageView] = Field(default_factory=list)
    models: list[WeightsView] = Field(default_factory=list)
    layers: list[str] = Field(default_factory=list)
    texts: TextSettings = TextSettings()
    download_bytes: int = 0
    memory: dict[str, MemoryView] = Field(default_factory=dict)
    fingerprints: dict[str, str] = Field(default_factory=dict)
    warnings: list[str] = Field(default_factory=list)
    proof: Proof | None = None
    faults: list[str] = Field(default_factory=list)


class ProfileList(_Part):
    """`GET /v1/profiles`: all profiles of the service, by name."""

    profiles: list[ProfileView]


def views(folder: Path, default: str = "", proof_of: ProofOf = lambda fingerprint: None) -> list[ProfileView]:
    """All profiles of a folder, sorted by name. A profile with faults has these alone.

    proof_of: finds the proof of a `llm` fingerprint.
    """
    found = []
    for name in profile_names(folder):
        try:
            profile = load_profile(name, folder)
        except InvalidProfile as error:
            found.append(ProfileView(name=name, default=name == default, faults=[str(one) for one in error.faults]))
            continue
        found.append(view_of(profile, name == default, proof_of))
    return found


def view_of(profile: Profile, default: bool = False, proof_of: ProofOf = lambda fingerprint: None) -> ProfileView:
    """The view of one profile."""
    fingerprints = {group: profile.fingerprint(group) for group in GROUPS}
    models = _weights(profile)
    return ProfileView(
        name=profile.name,
        summary=profile.description,
        needs=profile.needs,
        default=default,
        stages=[
            StageView(
                stage=name,
                group=group,
                backend=profile.stages[name].backend,
                model=without_secrets(profile.stages[name].model),
                revision=profile.stages[name].revision,
            )
            for group in (*GROUPS, FEATURES)
            for name in STAGES_OF[group]
            if name in profile.stages
        ],
        models=models,
        layers=[layer.name for layer in LAYERS.values() if layer.stage in profile.stages],
        texts=profile.texts,
        download_bytes=sum(one.download_bytes or 0 for one in models),
        memory={group: _memory(profile, group, models) for group in GROUPS if _names(profile, group)},
        fingerprints=fingerprints,
        warnings=list(profile.warnings),
        proof=proof_of(fingerprints[FINAL_GROUP]),
    )


def licence_of(model: str) -> str | None:
    """The licence of a stage's model; None where it is not known."""
    licence: str | None = _table().get(model, {}).get("licence")
    return licence


def _names(profile: Profile, group: str) -> list[str]:
    return [name for name in STAGES_OF[group] if name in profile.stages]


def _weights(profile: Profile) -> list[WeightsView]:
    """The weights of a profile, each once, in the order of the stages that use them."""
    stages: dict[tuple[str, str], list[str]] = {}
    for group in (*GROUPS, FEATURES):
        for name in _names(profile, group):
            chosen = profile.stages[name]
            stages.setdefault((chosen.model, chosen.revision), []).append(name)
    return [_known(model, revision, names) for (model, revision), names in stages.items()]


def _known(model: str, revision: str, names: list[str]) -> WeightsView:
    known = _table().get(model, {})
    millions = known.get("millions")
    elsewhere = model.partition(":")[0] in ("server", "builtin", "bundled", "local")
    return WeightsView(
        model=without_secrets(model),
        revision=revision,
        stages=names,
        licence=licence_of(model),
        download_bytes=0 if elsewhere else known.get("bytes"),
        parameters=None if millions is None else millions * 10**6,
    )


def download_bytes(model: str) -> int | None:
    """The bytes of a model's weights that `known.toml` tells; None for one that is not there."""
    found: int | None = _table().get(model, {}).get("bytes")
    return found


def _memory(profile: Profile, group: str, models: Iterable[WeightsView]) -> MemoryView:
    # stages of a group that name the same weights share one loaded model
    names = set(_names(profile, group))
    used = [one for one in models if names & set(one.stages)]
    count = sum(one.parameters or 0 for one in used)
    # what a server has loaded is in the memory of another process
    unknown = [one.model for one in used if one.parameters is None and not one.model.startswith("server:")]
    return MemoryView(gpu_bytes=count * GPU_BYTES, cpu_bytes=count * CPU_BYTES, unknown=unknown)


@functools.cache
def _table() -> dict[str, dict[str, Any]]:
    """What is known of published weights, by model."""
    return tomllib.loads(KNOWN.read_text(encoding="utf-8"))
