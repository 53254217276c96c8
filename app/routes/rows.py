"""`/v1/rows`: the record, the image and a preview of a row that a search has found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
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
_IMAGE: dict[int | str, dict[str, Any]] = {200: {"content": {"image/*": BYTES}, "description": "Bytes"}}
# a row never changes, but it may be deleted
_KEPT = {"Cache-Control": "private, max-age=600", "Vary": "Authorization, X-API-Key, Cookie"}
_NO_PART = "there is no such part in the store; it may have been deleted"


@dataclass(frozen=True)
class _Row:
    """The row that a path names. Both methods read the store, and raise ProblemError."""

    given: Services
    access: Access
    part: Part
    number: int

    def record(self) -> Record:
        """The row's record. A row of another tenant does not exist."""
        part, store = self.part, self.given.store
        tenant = self.access.only_tenant
        if tenant is not None and (part.fingerprint, part.identity) not in self.given.tenants.shards(tenant):
            raise ProblemError("unknown-record", _NO_PART)
        try:
            table = store.first(Source(part, part.path), lambda source: store.decoded(source)[0])
            if self.number >= table.num_rows:
                raise ProblemError("unknown-record", f"the part has {table.num_rows} rows")
            return store.to_records(table.slice(self.number, 1), Source(part, part.path))[0]
        except FileNotFoundError as error:
            raise ProblemError("unknown-record", _NO_PART) from error
        except BrokenPart as error:
            raise ProblemError("part-lost", str(error)) from error

    def image(self) -> bytes:
        """The bytes of the row's image."""
        image = self.record().image
        return self.given.originals.read(image.uri, self.part.identity, image)


async def _row(
    fingerprint: Hash,
    identity: Hash,
    part: Annotated[str, Path(pattern=r"^[0-9]{5,9}(\.[0-9]{1,9})?$")],
    row: Annotated[int, Path(ge=0, le=2**31 - 1)],
    given: ServicesDep,
    access: AccessDep,
) -> _Row:
    chunk, _, attempt = part.partition(".")
    return _Row(given, access, Part(FINAL_GROUP, fingerprint, identity, int(chunk), int(attempt or 0)), row)


RowDep = Annotated[_Row, Depends(_row)]


@router.get("", response_model=Record)
def show_row(request: Request, row: RowDep) -> Response:
    """The whole record of a row."""
    return tagged_json(request, row.record().model_dump_json(), _KEPT)


@router.get("/image", response_class=Response, responses=_IMAGE)
async def show_row_image(request: Request, row: RowDep, given: ServicesDep) -> Response:
    """The image as it is in its shard, without EXIF, places and comments; or a range of its bytes."""
    async with given.large_answers:
        data = await run_in_threadpool(row.image)
        try:
            data = await given.decoder.shown(data)
        except ImageError as error:
            raise ProblemError("image-unavailable", f"its metadata cannot be removed: {error}") from error
    return send_file(request, data, media_type(data), SAFE | _KEPT)


@router.get("/preview.jpg", response_class=Response, responses=_IMAGE)
async def show_row_preview(
    request: Request,
    row: RowDep,
    given: ServicesDep,
    side: Annotated[int, Query(ge=16, le=2048, description="the most pixels of its longer side")] = 320,
) -> Response:
    """The image as a JPEG that every browser can show: upright, as boxes and masks are, and not larger than asked."""
    async with given.large_answers:
        data = await run_in_threadpool(row.image)
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
