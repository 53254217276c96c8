"""Parameters of the back ends that ask a chat server: a captioner, a composer and a verifier."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import Field, JsonValue, field_validator

from strata.core.parameters.base import Parameters
from strata.core.parameters.captioner import ScenePrompts
from strata.core.parameters.composer import AskedComposerParameters
from strata.core.parameters.verifier import AskedVerifierParameters

# fields of a chat request that the stage sets itself, or that would change its cost limit or its kind of response
_SET_BY_THE_STAGE = {"model", "messages", "max_tokens", "max_completion_tokens", "n", "stream", "tools"}


class ChatParameters(Parameters):
    """How a stage sends requests to its chat server.

    served_model: the model's name at the server. request: further fields of each request. timeout: seconds a request.
    concurrency: requests in flight. retries: how often a failed request is repeated, also if the server is busy.
    api_key_variable: the environment variable with the key, so that a profile contains no key. Images are sent as
    image_format with at most longest_side pixels; image_tokens: maximum number of prompt tokens of one image. Prices
    are money per million tokens; null: not known. token_limit: the request's field for the maximum length of an answer,
    and temperature "default" for none: OpenAI's models that reason (o-series, gpt-5) need "max_completion_tokens" and
    accept no temperature. language: of the texts, as an ISO 639-1 code; null: the language of the prompts.
    """

    served_model: str
    request: dict[str, JsonValue] = Field(default_factory=dict)
    temperature: Annotated[float, Field(ge=0)] | Literal["default"] = 0.0
    token_limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    language: str | None = Field(default=None, pattern="^[a-z]{2}$")
    timeout: float = Field(default=120.0, gt=0)
    concurrency: int = Field(default=8, ge=1)
    retries: int = Field(default=3, ge=0)
    api_key_variable: str = "OPENAI_API_KEY"
    longest_side: int = Field(default=1024, ge=16)
    image_format: Literal["jpeg", "png"] = "jpeg"
    image_tokens: int = Field(default=1536, ge=1)
    price_per_million_prompt_tokens: float | None = Field(default=None, ge=0)
    price_per_million_completion_tokens: float | None = Field(default=None, ge=0)

    @field_validator("request")
    @classmethod
    def _sendable(cls, request: dict[str, JsonValue]) -> dict[str, JsonValue]:
        """Refuse the fields that the stage sets itself, and values that JSON does not have."""
        if taken := _SET_BY_THE_STAGE & request.keys():
            raise ValueError(f"{', '.join(sorted(taken))} cannot be set: the cost limit of a request depends on it")
        # the fields are sent as JSON, which has neither NaN nor infinity
        json.dumps(request, allow_nan=False)
        return request


class ChatCaptionerParameters(ChatParameters, ScenePrompts):
    """The prompts for whole images and for crops, and the maximum output lengths in tokens."""


class ChatComposerParameters(ChatParameters, AskedComposerParameters):
    """How a composer's requests are sent to a chat server, and what is asked."""


class ChatVerifierParameters(ChatParameters, AskedVerifierParameters):
    """How a verifier's requests are sent to a chat server, and what is asked."""
