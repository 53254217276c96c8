"""A profile, and its fingerprints.

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
from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from strata.core.layers.features import FEATURE_STAGES, FEATURES, way_of
from strata.core.parameters import LANGUAGES, LAYERED, TextSettings, language_asked
from strata.core.profiles.checks import SECOND_OPINION
from strata.core.profiles.settings import EvidenceSettings, StageSettings
from strata.core.registry import STAGES, installed
from strata.core.rules import Rules
from strata.core.usage import Cost, Usage
from strata.errors import InvalidInput, plain_line

GROUPS = ("index", "vision", "llm")
FINAL_GROUP = GROUPS[-1]
STAGES_OF = {group: tuple(spec.name for spec in STAGES if spec.group == group) for group in (*GROUPS, FEATURES)}
# Hashed into fingerprints. Raise a group's number when its output for unchanged settings changes its meaning: all its
# chunks are then computed again. Do not raise it for a new layer or column: readers treat a missing column as null.
# The numbers start at 2, the record's schema version that was hashed before, so that older parts are still found.
OUTPUT_VERSIONS = {"index": 2, "vision": 2, "llm": 2}
RULE_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")  # of `leave_out`
_SEEING = ("with_image", SECOND_OPINION, "colours")  # parameters of stages of the group `llm` that see the image


class ProfileError(InvalidInput, ValueError):
    """A profile that does not exist or cannot be used; the message names it and the reason."""


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
