"""Images that stand in the text of a request: base64, and `data:` URLs (RFC 2397).

They are read as browsers read them (https://fetch.spec.whatwg.org/#data-url-processor and
https://infra.spec.whatwg.org/#forgiving-base64): the padding may be left out, and white space is passed over. Beyond
that the URL-safe alphabet of RFC 4648 is read too. The media type of a `data:` URL is not used: what an image is, is
known from its bytes.
"""

from __future__ import annotations

import base64
import binascii
import re
from urllib.parse import unquote_to_bytes

from strata.addresses import is_data_url

MAX_ESCAPES = 100_000  # of a data: URL: each needs the memory of an object while they are read
_SPACE = b"\t\n\f\r "
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_IS_BASE64 = re.compile(r";[ ]*base64[\t\n\f\r ]*\Z", re.IGNORECASE)


def inline_image(text: str) -> bytes:
    """The bytes of an image: of a `data:` URL, or of base64. Raises ValueError, whose text is for the caller."""
    return _of_data_url(text) if is_data_url(text) else _of_base64(_ascii(text))


def _of_data_url(text: str) -> bytes:
    """The bytes of a `data:` URL; what follows its `#` is no part of them."""
    head, comma, body = text.partition(",")
    if not comma:
        raise ValueError("a data: URL has a comma before its data, as data:image/png;base64,iVBOR…")
    encoded = _ascii(body.partition("#")[0])
    if encoded.count(b"%") > MAX_ESCAPES:
        raise ValueError(f"the data: URL has more than {MAX_ESCAPES} characters as %XX; send it as base64")
    data = unquote_to_bytes(encoded)
    return _of_base64(data) if _IS_BASE64.search(head) else data


def _ascii(text: str) -> bytes:
    try:
        return text.encode("ascii")
    except UnicodeEncodeError as error:
        raise ValueError(f"it has the character {text[error.start]!r}, which is not ASCII") from None


def _of_base64(text: bytes) -> bytes:
    """The bytes of base64 in either alphabet. Raises ValueError."""
    text = text.translate(None, _SPACE)
    url_safe = b"-" in text or b"_" in text
    if url_safe and (b"+" in text or b"/" in text):
        raise ValueError("it mixes the two alphabets of base64: `+` and `/`, and `-` and `_`")
    text = text.translate(_URL_SAFE) if url_safe else text
    if b"=" not in text:
        text += b"=" * (-len(text) % 4)
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"it is not valid base64: {error}") from None
