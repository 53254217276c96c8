"""What one request uses of the quotas of its API key."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from strata.core import Chunk, Quotas
from strata.errors import QueueUnavailable, QuotaExceeded
from strata.queue import IMAGES, REQUESTS, Quota, Use, Windows, bytes_quota


class State(NamedTuple):
    """How a quota stands: how much may be used in its time, and what Redis has answered last."""

    most: int
    use: Use


class KeyUse:
    """The key of one request. Every method raises QueueUnavailable; what uses a quota also QuotaExceeded.

    A quota that the key does not have costs nothing, not even a question to Redis. upload_days: for how long uploads
    are kept; None: for ever. states: the quotas that were asked, and how they stand.
    """

    def __init__(self, windows: Windows, key_id: str, quotas: Quotas, upload_days: float | None = None) -> None:
        self.windows, self.key_id, self.quotas = windows, key_id, quotas
        self.states: dict[Quota, State] = {}
        self._bytes = bytes_quota(upload_days)
        self._stored: list[str] = []  # the uploads for which bytes were used

    def request(self) -> None:
        """Use one of the requests."""
        if (most := self.quotas.requests_a_minute) is not None:
            use = self._note(REQUESTS, most, self.windows.use(REQUESTS, self.key_id, most))
            if not use.had:
                raise self._exceeded(REQUESTS, f"may send {most:,} requests a minute", use)

    def check_image(self) -> None:
        """Ask whether one image more may be described, before any work is done for it."""
        if (most := self.quotas.images_a_day) is not None:
            use = self._note(IMAGES, most, self.windows.use(IMAGES, self.key_id, most, 0))
            if use.left < 1:
                raise self._images_exceeded(most, use)

    def images(self, job_id: str, chunks: Sequence[Chunk]) -> None:
        """Use the images of chunks of a job; all or, if they do not fit, none."""
        most = self.quotas.images_a_day
        if most is None or not chunks:
            return
        things = [(chunk.field, chunk.images) for chunk in chunks]
        use = self._note(IMAGES, most, self.windows.use_for(IMAGES, self.key_id, most, job_id, things))
        if use.had < len(things):
            self.windows.give_back_for(job_id)
            raise self._images_exceeded(most, use)

    @property
    def counts_bytes(self) -> bool:
        """Whether the key may have so many bytes stored only."""
        return self.quotas.bytes_stored is not None

    def check_bytes(self, size: int) -> None:
        """Ask whether so many bytes more may be stored."""
        if size and (most := self.quotas.bytes_stored) is not None:
            use = self._note(self._bytes, most, self.windows.use(self._bytes, self.key_id, most, 0))
            if use.left < size:
                raise self._bytes_exceeded(most, size, use)

    def store(self, upload: str, size: int) -> None:
        """Use the bytes of an upload, which is stored from now on. upload: as `image_of` names it."""
        if (most := self.quotas.bytes_stored) is not None:
            use = self._note(self._bytes, most, self.windows.use_upload(self._bytes, self.key_id, most, upload, size))
            if not use.had:
                raise self._bytes_exceeded(most, size, use)
            if use.counted:
                self._stored.append(upload)

    def give_back(self, job_id: str = "") -> None:
        """Give back what this request has used of images and bytes: it was refused. job_id: of its job, if it has one.

        If Redis is away, what was used stays used until it counts no longer.
        """
        with suppress(QueueUnavailable):
            if job_id and self.quotas.images_a_day is not None:
                self.windows.give_back_for(job_id)
            if self._stored:
                self.windows.give_back_uploads(self._stored)
                self._stored = []

    def _note(self, quota: Quota, most: int, use: Use) -> Use:
        self.states[quota] = State(most, use)
        return use

    def _images_exceeded(self, most: int, use: Use) -> QuotaExceeded:
        return self._exceeded(IMAGES, f"may have {most:,} images described a day", use)

    def _bytes_exceeded(self, most: int, size: int, use: Use) -> QuotaExceeded:
        return self._exceeded(self._bytes, f"may have {most:,} bytes stored, these are {size:,}", use)

    def _exceeded(self, quota: Quota, what: str, use: Use) -> QuotaExceeded:
        return QuotaExceeded(quota.name, f"the key {self.key_id} {what}; {use.left:,} are left now", use.after)
