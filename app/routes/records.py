"""`/v1/records`: one image's record, its bytes, and its layers drawn on it."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Annotated, NamedTuple

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from PIL import Image
from starlette.concurrency import run_in_threadpool

from app.answers.ranges import send_file
from app.answers.tags import ASKED, is_known, tag_of, tagged_json, unchanged
from app.dependencies import AccessDep, KnownJob, PrefixDep, Services, ServicesDep, repairs
from app.http.access.links import LONGEST_SECONDS, LinkHeaders
from app.http.document import BYTES
from app.http.scopes import ScopedRoute
from app.images.originals import media_type
from app.images.overlay import draw_overlay
from app.images.previews import preview
from app.problems import PROBLEM_RESPONSES, ProblemError
from strata.core import ImageLinks, JobView, Record
from strata.images import ImageError
from strata.jobs import Found, NotDescribed, Results
from strata.store import upload_digest

router = APIRouter(route_class=ScopedRoute, prefix="/records/{job_id}", responses=PROBLEM_RESPONSES)

KeyPath = Annotated[str, Path(min_length=1, max_length=1024)]


class _Shard(NamedTuple):
    """Which shard of a job is meant, if several have the key."""

    identity: str | None
    uri: str | None


async def _shard(
    identity: Annotated[str | None, Query(pattern="^[0-9a-f]{1,64}$", description="of the shard")] = None,
    uri: Annotated[str | None, Query(max_length=4096, description="of the shard, or of the image")] = None,
) -> _Shard:
    return _Shard(identity, uri)


ShardQuery = Annotated[_Shard, Depends(_shard)]
# a browser must display uploaded bytes and never execute them; `BrowserGuard` adds nosniff
SAFE = {"Content-Security-Policy": "default-src 'none'; sandbox"}


async def _kept(link: LinkHeaders) -> dict[str, str]:
    """How long the answer with an image may be kept: the headers for a link, or those for all others."""
    return link or ASKED


Kept = Annotated[dict[str, str], Depends(_kept)]


@router.get(
    "/{key:path}/image",
    response_class=Response,
    responses={200: {"content": {"image/*": BYTES}, "description": "Bytes"}},
)
async def show_image(
    request: Request, job: KnownJob, key: KeyPath, given: ServicesDep, shard: ShardQuery, kept: Kept
) -> Response:
    """The image as it is in its shard, without EXIF, places and comments; or a range of its bytes."""
    async with given.large_answers:
        data = await run_in_threadpool(lambda: _bytes_of(given, _record(given, job, key, shard)[1]))
        try:
            data = await given.decoder.shown(data)
        except ImageError as error:
            raise ProblemError("image-unavailable", f"its metadata cannot be removed: {error}") from error
    return send_file(request, data, media_type(data), SAFE | kept)


@router.get(
    "/{key:path}/preview.jpg",
    response_class=Response,
    responses={200: {"content": {"image/jpeg": BYTES}, "description": "A picture"}},
)
async def show_preview(
    request: Request,
    job: KnownJob,
    key: KeyPath,
    given: ServicesDep,
    shard: ShardQuery,
    kept: Kept,
    side: Annotated[int, Query(ge=16, le=2048, description="the most pixels of its longer side")] = 1024,
) -> Response:
    """The image as a JPEG that every browser can show: upright, as boxes and masks are, and not larger than asked.

    That of a job of one image is shown before it is described.
    """
    async with given.large_answers:
        data = await run_in_threadpool(_any_bytes, given, job, key, shard)
        tag = tag_of(data, str(side))
        if is_known(request, tag):  # before the image is decoded
            return unchanged(tag, kept)
        try:
            content = await given.decoder.use(data, lambda image: preview(image, side))
        except ImageError as error:
            raise ProblemError("invalid-image", str(error)) from error
    return Response(content, media_type="image/jpeg", headers={**kept, "ETag": tag})


def _any_bytes(given: Services, job: JobView, key: str, shard: _Shard) -> bytes:
    """The bytes of an image, of a job of one image also if it has no record yet."""
    try:
        return _bytes_of(given, _record(given, job, key, shard)[1])
    except ProblemError as error:
        uri = next(iter(given.jobs.request(job.id).shards), "")
        if error.name != "unknown-record" or not given.store.is_upload(uri) or not _is_key_of(uri, key):
            raise
        return given.store.read_upload(uri)


def _is_key_of(uri: str, key: str) -> bool:
    """Whether this is the key of an upload's image."""
    return len(key) == 16 and (upload_digest(uri) or "").startswith(key)


@router.get(
    "/{key:path}/overlay.png",
    response_class=Response,
    responses={200: {"content": {"image/png": BYTES}, "description": "A picture"}},
)
async def show_overlay(
    request: Request, job: KnownJob, key: KeyPath, given: ServicesDep, shard: ShardQuery, kept: Kept
) -> Response:
    """The image with its layers drawn on it, as a PNG."""
    record, found = await run_in_threadpool(_record, given, job, key, shard)
    async with given.large_answers:
        data = await run_in_threadpool(_bytes_of, given, found)
        tag = tag_of(data, record.model_dump_json())
        if is_known(request, tag):
            return unchanged(tag, kept)
        try:
            content = await given.decoder.use(data, lambda image: _drawn(image, record))
        except ImageError as error:
            raise ProblemError("invalid-image", str(error)) from error
    return Response(content, media_type="image/png", headers={**kept, "ETag": tag})


def _drawn(image: Image.Image, record: Record) -> bytes:
    file = io.BytesIO()
    draw_overlay(image, record).save(file, "PNG")
    return file.getvalue()


@router.post("/{key:path}/links", status_code=201)
def make_links(
    prefix: PrefixDep,
    job: KnownJob,
    key: KeyPath,
    given: ServicesDep,
    access: AccessDep,
    shard: ShardQuery,
    expires_in: Annotated[int, Query(ge=1, le=LONGEST_SECONDS, description="seconds for which they are valid")] = 3600,
    side: Annotated[int, Query(ge=16, le=2048, description="the most pixels of the preview's longer side")] = 1024,
) -> ImageLinks:
    """Signed links to the image, its preview and its overlay, which need no key and may be shown by any page.

    They end after the time that was asked for or with the key that asks, also when it is revoked.
    """
    _record(given, job, key, shard)  # what is not there gets no link
    query = {name: value for name, value in shard._asdict().items() if value is not None}
    end = given.links.end_of(access, expires_in)

    def link(name: str, **more: str) -> str:
        return prefix + given.links.make(access, job.id, key, name, query | more, end)

    return ImageLinks(
        image=link("image"),
        preview=link("preview.jpg", side=str(side)),
        overlay=link("overlay.png"),
        expires_at=datetime.fromtimestamp(end, UTC),
    )


@router.get("/{key:path}", response_model=Record)
def show_record(request: Request, job: KnownJob, key: KeyPath, given: ServicesDep, shard: ShardQuery) -> Response:
    """The record of one image."""
    return tagged_json(request, _record(given, job, key, shard)[0].model_dump_json())


def _record(given: Services, job: JobView, key: str, shard: _Shard) -> tuple[Record, Found]:
    """The record of one of a job's images, and where the image lies."""
    request, summaries = given.jobs.request(job.id), given.jobs.summaries(job.id)
    written = given.jobs.written(job)
    try:
        with repairs(given, job):
            found = Results(request, summaries, given.store, job.status, written).record(key, shard.identity, shard.uri)
    except NotDescribed as error:
        raise ProblemError("unknown-record", str(error)) from error
    if found is None:
        # the key may be in a shard that is not indexed yet
        waits = len(summaries) < len(request.shards) and not job.status.final
        hint = "; not all its shards are indexed yet" if waits else ""
        raise ProblemError("unknown-record", f"job {job.id} has no image with the key {key[:200]!r}{hint}")
    return found


def _bytes_of(given: Services, found: Found) -> bytes:
    return given.originals.read(found.chunk.shard, found.chunk.identity, found.image)
