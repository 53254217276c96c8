"""The bytes of a described image, read from where its shard or upload lies now."""

from __future__ import annotations

from app.http.limits import SHOWN_IMAGE_BYTES
from app.problems import ProblemError
from strata.core import ImageReference, source_shard
from strata.shards import ImageReader, SourceError
from strata.store import IndexRow, Store, is_picked_list, reason_of

_MAGIC = {
    b"\xff\xd8\xff": "image/jpeg",
    b"\x89PNG": "image/png",
    b"GIF8": "image/gif",
    b"II*\0": "image/tiff",
    b"MM\0*": "image/tiff",
    b"BM": "image/bmp",
}


class Originals:
    """Reads the images of shards and uploads. body_bytes: the largest upload, which is shown whatever its size."""

    def __init__(self, store: Store, reader: ImageReader, body_bytes: int) -> None:
        self.store, self.reader = store, reader
        self.most = max(SHOWN_IMAGE_BYTES, body_bytes)

    def read(self, shard: str, identity: str, image: IndexRow | ImageReference) -> bytes:
        """The bytes of an image of a shard that had this identity when it was indexed. Raises ProblemError."""
        if image.size > self.most:
            detail = f"the image has {image.size:,} bytes; the service shows images of at most {self.most:,}"
            raise ProblemError("image-unavailable", detail)
        # the shard may have been moved or changed since it was indexed; in a changed tar another image lies there
        try:
            if image.offset:
                self.reader.verify(image.uri if is_picked_list(source_shard(shard)) else shard, identity)
            (data,) = self.reader.read([image])
        except (SourceError, OSError) as error:
            data = error
        if isinstance(data, FileNotFoundError) and self.store.is_upload(image.uri):
            raise ProblemError("image-removed", "the uploaded image was removed; send it again to describe it again")
        if isinstance(data, Exception):
            raise ProblemError("image-unavailable", f"{image.uri}: {reason_of(data)}") from data
        return data


def media_type(data: bytes) -> str:
    """The media type of an image's bytes, by their beginning."""
    # these magic numbers do not stand at the beginning
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    if data[4:8] == b"ftyp":
        return "image/avif" if data[8:12] in (b"avif", b"avis") else "image/heic"
    return next((name for magic, name in _MAGIC.items() if data.startswith(magic)), "application/octet-stream")
