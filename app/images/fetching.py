"""Fetching `image_url`, by the rules for connections that a caller asks for (`strata.egress`)."""

from __future__ import annotations

from app.problems import ProblemError
from strata.core import Settings
from strata.egress import RefusedAddress
from strata.egress.downloads import DownloadFailed, Pool, download

TIMEOUT = 10.0  # seconds, from the first DNS query to the last byte
BYTES_IN_FLIGHT = 48 * 2**20  # of all images that are fetched at a time

_pool = Pool(BYTES_IN_FLIGHT)  # of this process


async def fetch(url: str, settings: Settings) -> bytes:
    """Download the image of a URL, of at most `max_body_bytes`. Raises ProblemError."""
    try:
        return await download(url, settings.url_rules, settings.max_body_bytes, TIMEOUT, _pool)
    except RefusedAddress as error:
        raise ProblemError("refused-url", f"image_url is refused: {error}") from error
    # every failure of the transfer is the caller's problem 422, never an error of this service
    except DownloadFailed as error:
        raise ProblemError("image-not-fetched", f"image_url could not be fetched: {error}") from error
    except OverflowError as error:
        detail = "images of other requests are being fetched; send this one again later"
        raise ProblemError("too-busy", detail) from error
