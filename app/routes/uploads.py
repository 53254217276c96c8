"""`POST /v1/uploads` and `PUT /v1/uploads/SHA256`: many images from another machine, before a batch over them.

The sender names the hashes and sizes of its files, sends those that are missing, several at a time if it likes, and
then submits a batch that names them. What a tenant has sent is not sent again, whenever the sender goes on.
"""

from __future__ import annotations

import hashlib
import pathlib
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from starlette.concurrency import run_in_threadpool

from app.dependencies import AccessDep, Services, ServicesDep
from app.http.quotas import UseDep
from app.http.scopes import ScopedRoute
from app.problems import PROBLEM_RESPONSES, ProblemError
from strata.core import UploadsBody, UploadsView, UploadView
from strata.errors import QueueUnavailable
from strata.queue import image_of
from strata.quotas import KeyUse
from strata.store import Received, ReceivedUploads

router = APIRouter(route_class=ScopedRoute, prefix="/uploads")

_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.post("", responses=PROBLEM_RESPONSES)
async def find_missing_uploads(body: UploadsBody, given: ServicesDep, access: AccessDep, use: UseDep) -> UploadsView:
    """Which of these files are to be sent. Those that are too large for the service are told before they are sent.

    If all that is missing does not fit into the key's quota of stored bytes, this is refused.
    """
    sizes = dict(zip(body.sha256, body.sizes, strict=True))
    found = await run_in_threadpool(ReceivedUploads(given.store, access.tenant).find, list(sizes))
    missing = [digest for digest, known in zip(sizes, found, strict=True) if known is None]
    most = given.settings.max_body_bytes
    view = UploadsView(
        missing=[digest for digest in missing if sizes[digest] <= most],
        too_large=[digest for digest in missing if sizes[digest] > most],
    )
    wanted = sum(sizes[digest] for digest in view.missing)
    await run_in_threadpool(_check_room, given, wanted)
    if use is not None and use.counts_bytes:
        await run_in_threadpool(use.check_bytes, wanted)
    return view


@router.put("/{sha256}", status_code=201, responses=PROBLEM_RESPONSES, openapi_extra=_BODY)
async def receive_upload(
    request: Request,
    given: ServicesDep,
    access: AccessDep,
    use: UseDep,
    sha256: Annotated[str, Path(pattern="^[0-9a-f]{64}$")],
) -> UploadView:
    """Send one image, the bytes of its file; the address has their SHA-256. It is checked, and stored once.

    As with `POST /v1/captions`, what the file says beside its pixels is removed before it is stored.
    """
    data = await request.body()
    digest = hashlib.sha256(data).hexdigest()
    if digest != sha256:
        detail = f"the {len(data):,} bytes that arrived have the SHA-256 {digest}: send the file again"
        errors = [{"type": "value_error", "location": ["path", "sha256"], "message": detail}]
        raise ProblemError("invalid-request", detail, errors)
    clean = await given.decoder.checked(data)
    received = await run_in_threadpool(_keep, given, ReceivedUploads(given.store, access.tenant), sha256, clean, use)
    return UploadView(sha256=sha256, stored_sha256=received.sha256, size=received.size)


def _keep(given: Services, uploads: ReceivedUploads, sha256: str, data: bytes, use: KeyUse | None) -> Received:
    """Store an image; it counts once, for the key that has sent it first. Raises QuotaExceeded."""
    image = image_of(hashlib.sha256(data).hexdigest())
    with _announced(given, image):
        if use is None or not use.counts_bytes or uploads.find([sha256])[0] is not None:
            return uploads.keep(sha256, data)
        use.store(image, len(data))
        try:
            return uploads.keep(sha256, data)
        except Exception:
            use.give_back()
            raise


@contextmanager
def _announced(given: Services, image: str) -> Iterator[None]:
    """Within the block an upload is not removed, and later not as the file of a request that was refused meanwhile."""
    listed, name = given.jobs.queue.job_list, f"sent:{secrets.token_hex(8)}"
    with suppress(QueueUnavailable):  # then nothing of refused requests is removed either
        listed.announce(image, name, sent=True)
    try:
        yield
    finally:
        with suppress(QueueUnavailable):
            listed.withdraw(image, name)


def _check_room(given: Services, size: int) -> None:
    """Raise ProblemError if so many bytes do not fit on the store's disk; a bucket tells that only when written."""
    if not given.store.local:
        return
    # the store's folder is made with its first file
    folder = pathlib.Path(given.store.root)
    free = shutil.disk_usage(next(one for one in (folder, *folder.parents) if one.exists())).free
    if size > free:
        detail = f"the files have {size:,} bytes together, and {free:,} are free"
        raise ProblemError("storage-full", detail, headers={"Retry-After": "60"})
