"""Parameters of the back ends that run a model in vLLM's offline engine, in the worker's own process."""

from __future__ import annotations

import json
from typing import Self

from pydantic import Field, JsonValue, field_validator, model_validator

from strata.core.parameters.base import Parameters
from strata.core.parameters.captioner import ScenePrompts
from strata.core.parameters.composer import AskedComposerParameters
from strata.core.parameters.matcher import Question
from strata.core.parameters.verifier import AskedVerifierParameters

# arguments of the engine that the stage sets itself, or that would run foreign code or read other files
_SET_BY_THE_STAGE = frozenset(
    "model tokenizer revision tokenizer_revision code_revision hf_token trust_remote_code runner convert seed "
    "limit_mm_per_prompt allowed_local_media_path allowed_media_domains worker_cls worker_extension_cls "
    "logits_processors scheduler_cls".split()
)
_SAMPLING_BY_THE_STAGE = frozenset(
    "n max_tokens temperature seed logprobs prompt_logprobs logprob_token_ids structured_outputs output_kind "
    "detokenize skip_clone".split()
)
MOST_CROPS = 16  # of one request; vLLM's engine is started with this limit of images a prompt
# they change where and how fast the engine computes, but not the output
LOAD_ONLY = frozenset(("gpu_memory_utilization", "max_num_seqs", "enable_prefix_caching", "tensor_parallel_size"))


class VllmParameters(Parameters):
    """How a stage uses vLLM's engine. Names and meanings are vLLM's own, unless told otherwise.

    gpu_memory_utilization: share of the GPU's memory for weights and KV cache; the worker's other models need the rest.
    max_model_len: tokens of a prompt with its images and its answer; a longer prompt is an item's fault. max_num_seqs:
    requests that are computed at a time. enable_prefix_caching: the beginning that prompts have in common, such as the
    composer's instructions, is computed once. engine: further arguments of `vllm.LLM`; sampling: further fields of
    `vllm.SamplingParams`; both are compared with the installed vLLM's own when the stage loads. Stages with one model
    and equal engine settings share one engine. longest_side: images are reduced to it, in pixels. language: of the
    texts, as an ISO 639-1 code; null: the language of the prompts.
    """

    temperature: float = Field(default=0.0, ge=0)
    language: str | None = Field(default=None, pattern="^[a-z]{2}$")
    longest_side: int = Field(default=1024, ge=16)
    gpu_memory_utilization: float = Field(default=0.5, gt=0, le=1)
    max_model_len: int = Field(default=8192, ge=64)
    max_num_seqs: int = Field(default=128, ge=1)
    enable_prefix_caching: bool = True
    tensor_parallel_size: int = Field(default=1, ge=1)
    chat_template_kwargs: dict[str, JsonValue] = Field(default_factory=dict)
    engine: dict[str, JsonValue] = Field(default_factory=dict)
    sampling: dict[str, JsonValue] = Field(default_factory=dict)

    @field_validator("engine", "sampling", "chat_template_kwargs")
    @classmethod
    def _has_json(cls, given: dict[str, JsonValue]) -> dict[str, JsonValue]:
        json.dumps(given, allow_nan=False)
        return given

    @model_validator(mode="after")
    def _not_set_twice(self) -> Self:
        """Refuse what the stage sets itself, and what has a parameter of its own."""
        own = _SET_BY_THE_STAGE | type(self).model_fields.keys()
        for table, taken in (("engine", own), ("sampling", _SAMPLING_BY_THE_STAGE)):
            if found := taken & getattr(self, table).keys():
                raise ValueError(f"{', '.join(sorted(found))} cannot be set in {table}: the stage sets it")
        return self

    def engine_settings(self) -> dict[str, JsonValue]:
        """The arguments of `vllm.LLM` beside the model's folder. Stages with equal ones share an engine."""
        return {
            "max_model_len": self.max_model_len,
            "max_num_seqs": self.max_num_seqs,
            "gpu_memory_utilization": self.gpu_memory_utilization,
            "enable_prefix_caching": self.enable_prefix_caching,
            "tensor_parallel_size": self.tensor_parallel_size,
            "limit_mm_per_prompt": {"image": MOST_CROPS, "video": 0},
            **self.engine,
        }


class VllmCaptionerParameters(VllmParameters, ScenePrompts):
    """crops_per_request: how many crops of one image are asked about in one request, and named in one JSON list.

    With 1 each crop is a request of its own. More save the prompt's tokens and the requests' overhead, but the model
    sees the crops beside each other, so that a phrase may depend on its neighbours of the same image.
    """

    crops_per_request: int = Field(default=1, ge=1, le=MOST_CROPS)


class VllmComposerParameters(VllmParameters, AskedComposerParameters):
    """How a composer's requests are asked in vLLM's engine, and what is asked."""


class VllmVerifierParameters(VllmParameters, AskedVerifierParameters):
    """How a verifier's requests are asked in vLLM's engine, and what is asked."""


class VllmMatcherParameters(VllmParameters, Question):
    """A question about a crop, whose answer begins with yes or no. longest_side: a crop needs less than an image."""

    longest_side: int = Field(default=512, ge=16)
