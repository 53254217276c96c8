"""`/v1/rows`: the record, the image and a preview of a row that a search has found."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from app.answers.ranges import send_file
from app.answers.tags import is_known, tag_of, tagged_json, unchanged
from app.dependencies import AccessDep, Services, ServicesDep
from app.http.document import BYTES
from app.http.scopes import ScopedRoute
from app.images.originals import media_type
from app.images.previews import SPARE, preview
from app.problems import PROBLEM_RESPONSES, ProblemError
from app.routes.records import SAFE
from strata.core import FINAL_GROUP, Record
from strata.images import ImageError
from strata.keys import Access
from strata.store import BrokenPart, Part, Source

router = APIRouter(
    route_class=ScopedRoute, prefix="/rows/{fingerprint}/{identity}/{part}/{row}", responses=PROBLEM_RESPONSES
)

Hash = Annotated[str, Path(pattern="^[0-9a-f]{1,64}$")]
Name = Annotated[str, Path(pattern=r"^[0-9]{5,9}(\.[0-9]{1,9})?$")]
Row = Annotated[int, Path(ge=0, le=2**31 - 1)]
_IMAGE: dict[int | str, dict[str, Any]] = {200: {"content": {"image/*": BYTES}, "description": "Bytes"}}
# a row never changes, but it may be deleted
_KEPT = {"Cache-Control": "private, max-age=600", "Vary": "Authorization, X-API-Key, Cookie"}
_NO_PART = "there is no such part in the store; it may have been deleted"


@router.get("", response_model=Record)
def show_row(
    request: Request,
    fingerprint: Hash,
    identity: Hash,
    part: Name,
    row: Row,
    given: ServicesDep,
    access: AccessDep,
) -> Response:
    """The whole record of a row."""
    record = _record(given, access, (fingerprint, identity, part), row)
    return tagged_json(request, record.model_dump_json(), _KEPT)


@router.get("/image", response_class=Response, responses=_IMAGE)
async def show_row_image(
    request: Request,
    fingerprint: Hash,
    identity: Hash,
    part: Name,
    row: Row,
    given: ServicesDep,
    access: AccessDep,
) -> Response:
    """The image as it is in its shard, without EXIF, places and comments; or a range of its bytes."""
    async with given.large_answers:
        data = await run_in_threadpool(_bytes_of, given, access, (fingerprint, identity, part), row)
        try:
            data = await given.decoder.shown(data)
        except ImageError as error:
            raise ProblemError("image-unavailable", f"its metadata cannot be removed: {error}") from error
    return send_file(request, data, media_type(data), SAFE | _KEPT)


@router.get("/preview.jpg", response_class=Response, responses=_IMAGE)
async def show_row_preview(
    request: Request,
    fingerprint: Hash,
    identity: Hash,
    part: Name,
    row: Row,
    given: ServicesDep,
    access: AccessDep,
    side: Annotated[int, Query(ge=16, le=2048, description="the most pixels of its longer side")] = 320,
) -> Response:
    """The image as a JPEG that every browser can show: upright, as boxes and masks are, and not larger than asked."""
    async with given.large_answers:
        data = await run_in_threadpool(_bytes_of, given, access, (fingerprint, identity, part), row)
        tag = tag_of(data, str(side))
        if is_known(request, tag):
            return unchanged(tag, SAFE | _KEPT)
        try:
            # the decoder shrinks a large image while it decodes, to no less than is needed here
            most = SPARE * side * side
            content = await given.decoder.use(data, lambda image: preview(image, side), most=most, extra=3 * most)
        except ImageError as error:
            raise ProblemError("image-unavailable", f"it cannot be decoded: {error}") from error
    return Response(content, media_type="image/jpeg", headers={**SAFE, **_KEPT, "ETag": tag})


def _record(given: Services, access: Access, place: tuple[str, str, str], row: int) -> Record:
    """The record at a place: fingerprint, shard identity and name of the part, and the row in it."""
    fingerprint, identity, name = place
    if access.only_tenant is not None and (fingerprint, identity) not in given.tenants.shards(access.only_tenant):
        raise ProblemError("unknown-record", _NO_PART)
    number, _, attempt = name.partition(".")
    part = Part(FINAL_GROUP, fingerprint, identity, int(number), int(attempt or 0))
    store = given.store
    try:
        table = store.first(Source(part, part.path), lambda source: store.decoded(source)[0])
        if row >= table.num_rows:
            raise ProblemError("unknown-record", f"the part has {table.num_rows} rows")
        return store.to_records(table.slice(row, 1), Source(part, part.path))[0]
    except FileNotFoundError as error:
        raise ProblemError("unknown-record", _NO_PART) from error
    except BrokenPart as error:
        raise ProblemError("part-lost", str(error)) from error


def _bytes_of(given: Services, access: Access, place: tuple[str, str, str], row: int) -> bytes:
    image = _record(given, access, place, row).image
    return given.originals.read(image.uri, place[1], image)
