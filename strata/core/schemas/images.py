"""One image: `/v1/captions`, and links to the image of a record."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from strata.addresses import is_data_url
from strata.core.parameters.texts import TextFields
from strata.core.schemas.fields import ProfileName

MAX_URL = 4096  # characters of an address that is fetched


def _short_url(url: str) -> str:
    if len(url) > MAX_URL and not is_data_url(url):
        raise ValueError(f"a URL has at most {MAX_URL} characters, if it is no data: URL")
    return url


class CaptionBody(TextFields):
    """`POST /v1/captions` as JSON: exactly one of image_url and image_base64.

    image_url: http or https, which the service fetches, or `data:`. image_base64: in the plain or the URL-safe
    alphabet, with or without padding; a `data:` URL too.
    """

    model_config = ConfigDict(extra="forbid")
    image_url: Annotated[str, AfterValidator(_short_url)] | None = None
    image_base64: str | None = None
    alt_text: str | None = Field(default=None, max_length=4096)
    profile: ProfileName | None = None


class ImageLinks(BaseModel):
    """Signed links to a record's image: paths at the host of the service. They need no key until they expire."""

    image: str
    preview: str
    overlay: str
    expires_at: datetime
