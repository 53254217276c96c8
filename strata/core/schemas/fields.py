"""Fields that several requests have: texts, and names of profiles."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("contains an unpaired surrogate, which is not a character") from None
    return text


Text = Annotated[str, AfterValidator(_encodable)]  # JSON allows texts that cannot be encoded for Redis and the store
ProfileName = Annotated[Text, Field(max_length=255)]
AltText = Annotated[Text, Field(max_length=4096)]
