"""The one image of a request: a multipart field, base64 or a `data:` URL in JSON, or a URL to fetch."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request
from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile

from app.images.fetching import fetch
from app.images.forms import read_form
from app.images.inline import inline_image
from app.problems import ProblemError, invalid_request
from strata.addresses import is_data_url
from strata.core import CaptionBody, Settings, TextSettings

FIELDS = ("file", "alt_text", "profile", "variants", "language", "prompt")
MAX_TEXT = 4096  # characters of alt_text, the same limit as in CaptionBody
_HELP = "send multipart/form-data with one field `file`, or JSON with `image_url` or `image_base64`"


@dataclass(frozen=True)
class Upload:
    """An image as received, before decoding."""

    data: bytes
    alt_text: str | None
    profile: str | None
    texts: TextSettings


async def read_upload(request: Request, settings: Settings) -> Upload:
    """Read the request's one image. Raises ProblemError."""
    # choose the parser by the media type, without its parameters
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "multipart/form-data":
        upload = await _from_form(request)
    elif media_type == "application/json":
        upload = await _from_json(await request.body(), settings)
    elif not await request.body():
        raise ProblemError("invalid-request", f"no image: {_HELP}", [])
    else:
        raise ProblemError("unsupported-media-type", f"{media_type or 'no media type'}: {_HELP}")
    if not upload.data:
        raise ProblemError("invalid-image", "the image is empty (0 bytes)")
    return upload


async def _from_form(request: Request) -> Upload:
    form = await read_form(request)
    # an unknown field is an error: ignoring a misspelt one would silently drop its value
    unknown = sorted(set(form) - set(FIELDS))
    if unknown:
        raise _invalid(unknown[0], f"unknown field; the fields are {', '.join(FIELDS)}")
    files = form.getlist("file")
    if len(files) != 1:
        raise _invalid("file", f"{len(files) or 'no'} images; exactly one is allowed. {_HELP}")
    (file,) = files
    # a part without a filename is parsed as text
    if not isinstance(file, UploadFile):
        raise _invalid("file", "this is a text, not a file; give the field a filename")
    return Upload(await file.read(), _text(form, "alt_text") or None, _text(form, "profile") or None, _texts(form))


def _texts(form: FormData) -> TextSettings:
    """What texts the form asks for; `variants` is a list with commas."""
    given = {name: _text(form, name).strip() for name in TextSettings.model_fields}
    variants = [name.strip() for name in given["variants"].split(",") if name.strip()]
    fields = {name: text for name, text in given.items() if text} | ({"variants": variants} if variants else {})
    try:
        return TextSettings.model_validate(fields)
    except ValidationError as error:
        raise invalid_request(error.errors(include_url=False, include_input=False)) from error


def _text(form: FormData, name: str) -> str:
    values = form.getlist(name)
    if len(values) > 1 or not all(isinstance(value, str) for value in values):
        raise _invalid(name, "exactly one text is allowed")
    text = "".join(value for value in values if isinstance(value, str))
    if len(text) > MAX_TEXT:
        raise _invalid(name, f"longer than {MAX_TEXT} characters")
    return text


async def _from_json(body: bytes, settings: Settings) -> Upload:
    try:
        given = CaptionBody.model_validate_json(body)
    except ValidationError as error:
        raise invalid_request(error.errors(include_url=False, include_input=False)) from error
    # exactly one source of the image
    if (given.image_url is None) == (given.image_base64 is None):
        raise _invalid("image_url", "exactly one of image_url and image_base64 must be given")
    if given.image_url is not None and not is_data_url(given.image_url):
        data = await fetch(given.image_url, settings)
    else:
        data = _inline(given)  # in this thread: it needs as much memory again, for one request at a time
    return Upload(data, given.alt_text or None, given.profile or None, TextSettings.of(given))


def _inline(given: CaptionBody) -> bytes:
    """The bytes of an image that stands in the request. Raises ProblemError."""
    url = given.image_url
    field, text = ("image_base64", given.image_base64 or "") if url is None else ("image_url", url)
    try:
        return inline_image(text)
    except ValueError as error:
        raise _invalid(field, str(error)) from error


def _invalid(field: str, message: str) -> ProblemError:
    errors = [{"type": "value_error", "location": ["body", field], "message": message}]
    return ProblemError("invalid-request", f"{field}: {message}", errors)
