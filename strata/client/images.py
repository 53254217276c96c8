"""Calls on one image: its description, its record, its overlay, and links to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from strata.client.responses import parse_response
from strata.client.steps import Steps, call
from strata.client.transport import Transport, quoted
from strata.core import ImageLinks, JobView, Record, TextSettings
from strata.files import open_regular, valid_name


@dataclass(frozen=True)
class Captioned:
    """The response for one image: its record if it was finished in time, else its job; and the job's id, if known."""

    record: Record | None
    job: JobView | None
    job_id: str | None


class ImageCalls(Transport):
    """The calls on one image."""

    @call
    def caption(
        self,
        image: bytes | Path | str,
        alt_text: str | None = None,
        profile: str | None = None,
        wait: float = 10.0,
        texts: TextSettings | None = None,
    ) -> Steps[Record | JobView]:
        """Caption one image: its bytes, its file, or a URL, which the service fetches.

        Returns its record if it is finished within `wait` seconds, else the job.
        texts: what is written besides the description, in which language, and with which prompt.
        """
        captioned = yield from self._captioned(image, alt_text, profile, wait, texts)
        if captioned.record is not None:
            return captioned.record
        assert captioned.job is not None
        return captioned.job

    @call
    def captioned(
        self,
        image: bytes | Path | str,
        alt_text: str | None = None,
        profile: str | None = None,
        wait: float = 10.0,
        texts: TextSettings | None = None,
    ) -> Steps[Captioned]:
        """Caption one image like `caption`, and also return the job's id."""
        return (yield from self._captioned(image, alt_text, profile, wait, texts))

    def _captioned(
        self,
        image: bytes | Path | str,
        alt_text: str | None,
        profile: str | None,
        wait: float,
        texts: TextSettings | None,
    ) -> Steps[Captioned]:
        fields: dict[str, Any] = {"alt_text": alt_text, "profile": profile}
        if texts is not None:
            fields |= texts.model_dump()
        given = {field: value for field, value in fields.items() if value is not None}
        given |= {field: valid_name(value) for field, value in given.items() if isinstance(value, str)}
        if isinstance(image, str):
            content: dict[str, Any] = {"json": {"image_url": image, **given}}
        else:
            name, data = ("image", image) if isinstance(image, bytes) else _read(image)
            if "variants" in given:
                given["variants"] = ",".join(given["variants"])
            content = {"files": {"file": (name, data)}, "data": {k: v for k, v in given.items() if v}}
        # the read timeout must be longer than the time that the service may wait before it responds
        response = yield from self._send(
            "POST",
            "/v1/captions",
            **content,
            headers={"Prefer": f"wait={wait:g}"},
            timeout=httpx.Timeout(self._timeout, read=self._timeout + wait),
        )
        # the body of a finished record has no job id; the header has it
        job_id = response.headers.get("Location", "").rpartition("/v1/jobs/")[2].split("/")[0] or None
        if response.status_code == 202:
            job = parse_response(JobView, response)
            return Captioned(None, job, job.id)
        return Captioned(parse_response(Record, response), None, job_id)

    @call
    def record(self, job: str, key: str) -> Steps[Record]:
        """Fetch one record of a job."""
        return (yield from self._fetch(Record, "GET", f"/v1/records/{quoted(job)}/{quoted(key)}"))

    @call
    def overlay(self, job: str, key: str) -> Steps[bytes]:
        """Fetch a PNG of a record's image with its layers drawn on it."""
        response = yield from self._send("GET", f"/v1/records/{quoted(job)}/{quoted(key)}/overlay.png")
        return response.content

    @call
    def image_links(
        self, job: str, key: str, expires_in: int = 3600, *, side: int = 1024, identity: str | None = None
    ) -> Steps[ImageLinks]:
        """Make links to a record's image, its preview and its overlay, which need no key and end by themselves.

        expires_in: seconds for which they are valid, at most a week; side: of the preview, in pixels; identity: of the
        shard, if several of the job have the key. The links are whole addresses.
        """
        params = {"expires_in": expires_in, "side": side} | ({"identity": identity} if identity is not None else {})
        place = f"/v1/records/{quoted(job)}/{quoted(key)}/"
        made = yield from self._fetch(ImageLinks, "POST", f"{place}links", params=params)
        # below the address by which this client calls the service, whether or not the service knows its prefix
        names = ("image", "preview", "overlay")
        whole = {name: self.url + place + getattr(made, name).rpartition("/")[2] for name in names}
        return made.model_copy(update=whole)


def _read(image: Path) -> tuple[str, bytes]:
    """The name of a file, as a form can hold it, and its bytes. Raises OSError."""
    with open_regular(image) as file:
        return valid_name(image.name), file.read()
