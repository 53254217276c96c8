"""The quotas of an API key: what it may ask for in a time, and have waiting or stored at a time."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

MOST_BYTES = 2**50


class Quotas(BaseModel):
    """The quotas of a key; None: there is none. A quota of a time counts what was used within it, up to now.

    requests_a_minute: of all requests below /v1. images_a_day: images that are computed; what others have had computed
    before is free. chunks_queued: single images that are not described yet, and of each group the chunks of batches
    that are queued. bytes_stored: of the images that were sent. money_a_day: what model servers cost, in the currency
    of the profiles' prices.
    """

    model_config = ConfigDict(frozen=True)

    requests_a_minute: int | None = Field(default=None, ge=1, le=10**9)
    images_a_day: int | None = Field(default=None, ge=1, le=10**12)
    chunks_queued: int | None = Field(default=None, ge=1, le=10**9)
    bytes_stored: int | None = Field(default=None, ge=1, le=MOST_BYTES)
    money_a_day: float | None = Field(default=None, gt=0, le=1e9, allow_inf_nan=False)

    @property
    def exist(self) -> bool:
        """Whether there is any."""
        return self != NO_QUOTAS


NO_QUOTAS = Quotas()
