"""Images that are sent before they are submitted: `/v1/uploads`."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_UPLOADS = 50_000  # images of one batch that were sent before; with their alt texts as many values as JSON may have
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class UploadsBody(BaseModel):
    """`POST /v1/uploads`: files that are to be sent, by their SHA-256 and their sizes in bytes, in the same order."""

    model_config = ConfigDict(extra="forbid")
    sha256: list[Sha256] = Field(min_length=1, max_length=MAX_UPLOADS, fail_fast=True)
    sizes: list[Annotated[int, Field(ge=0, le=2**62)]] = Field(min_length=1, max_length=MAX_UPLOADS, fail_fast=True)

    @model_validator(mode="after")
    def _as_many(self) -> UploadsBody:
        if len(self.sha256) != len(self.sizes):
            raise ValueError(f"{len(self.sizes)} sizes for {len(self.sha256)} files")
        return self


class UploadsView(BaseModel):
    """Which files are to be sent (`missing`), and which are refused because they are too large; each once."""

    missing: list[str]
    too_large: list[str]


class UploadView(BaseModel):
    """An image that was sent. stored_sha256, size: of what is stored, which has no metadata."""

    sha256: str
    stored_sha256: str
    size: int
