"""What the store knows of shards and images: uploads, where files lie that were moved, identities, and families."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

from strata.core import is_hash
from strata.store.filesystem import Files

MAX_FAMILY = 8  # indexes of a folder that are remembered: each is read when a later one is computed
_UPLOADED = re.compile(r"uploads/([0-9a-f]{2})/(\1[0-9a-f]{62})")  # the path of an upload
_UPLOAD = "upload:"  # before the SHA-256 of an uploaded image in its URI
# the URIs of uploads by earlier versions: absolute, in the folder of a store
_OLD_UPLOAD = re.compile(r".+/uploads/([0-9a-f]{2})/(\1[0-9a-f]{62})")


class ShardFiles(Files):
    """Uploads, moved files, and the identities of shards. Every method raises OSError.

    moved: where folders and buckets lie now, by the prefix of the URIs in index parts and records.
    """

    def __init__(self, uri: str, moved: Mapping[str, str] | None = None) -> None:
        super().__init__(uri)
        # the longest prefix first
        pairs = ((old.rstrip("/"), new.rstrip("/")) for old, new in (moved or {}).items())
        self.moved = sorted(pairs, key=lambda pair: -len(pair[0]))

    # where files lie

    def upload_uri(self, digest: str) -> str:
        """The URI of an uploaded image by its SHA-256, `upload:SHA256`; it does not depend on where the store lies."""
        return f"{_UPLOAD}{digest}"

    def put_upload(self, digest: str, data: bytes) -> None:
        """Write an uploaded image. It is not asked before whether it exists: that takes as long as writing it."""
        self.put(self._upload(digest), data)

    def read_upload(self, uri: str) -> bytes:
        """An upload's bytes. Raises FileNotFoundError."""
        return self.get(self._upload(_digest_of(uri) or ""))

    def is_upload(self, uri: str) -> bool:
        """Whether a shard is an upload. An upload is named by its content, so it cannot change."""
        return _digest_of(uri) is not None

    def upload_path(self, uri: str) -> str:
        """The path of an upload relative to the store's root."""
        return self.relative(self._upload(_digest_of(uri) or ""))

    def uploads_before(self, moment: float) -> list[str]:
        """The paths, relative to the root, of the uploads that were written before a time (of the epoch)."""
        return [path for path in self.written_before(moment, "uploads") if _UPLOADED.fullmatch(path)]

    def has_upload(self, uri: str) -> bool:
        """Whether an upload is still there."""
        return self.exists(self._upload(_digest_of(uri) or ""))

    def locate(self, uri: str) -> str:
        """Where the file of an image or a shard lies now: uploads in this store, other files after the moves."""
        digest = _digest_of(uri)
        if digest is not None:
            path = self._upload(digest)
            # the URI of an earlier version leads to the place where the store was then
            if uri.startswith(_UPLOAD) or self.exists(path):
                return path if self.local else str(self.fs.unstrip_protocol(path))
        for before, after in self.moved:
            if uri == before or uri.startswith(f"{before}/"):
                return after + uri[len(before) :]
        return uri

    def _upload(self, digest: str) -> str:
        return self.path("uploads", digest[:2], digest)

    # what shards are

    def read_identity(self, stamp: str) -> str | None:
        """The identity of the shard that had a stamp when it was read; None if no shard with this stamp was read.

        It is also None if the file is damaged; `keep_identity` writes it anew.
        """
        try:
            identity = self.get(self.path("identities", stamp)).decode("ascii", "replace")
        except (FileNotFoundError, IsADirectoryError):
            return None
        return identity if is_hash(identity) else None

    def keep_identity(self, stamp: str, identity: str) -> None:
        """Remember the identity of the shard that has a stamp, so that it need not be read again."""
        self.put(self.path("identities", stamp), identity.encode())

    def keep_sources(self, identity: str, sources: Mapping[str, str]) -> None:
        """Remember the identities of the tars in which the images of a picked list lie, by their URIs."""
        self.put(self.path("sources", identity), json.dumps(dict(sources)).encode())

    def read_sources(self, identity: str) -> dict[str, str]:
        """What was kept of a picked list by its identity; empty if nothing was, or if the file is damaged."""
        try:
            found = json.loads(self.get(self.path("sources", identity)))
        except (FileNotFoundError, IsADirectoryError, ValueError, RecursionError):
            return {}
        known = found.items() if isinstance(found, dict) else ()
        return {uri: source for uri, source in known if isinstance(source, str) and is_hash(source)}

    def remove_sources(self, identity: str) -> None:
        """Remove what was kept of a picked list. Harmless if nothing was."""
        self.remove(self.path("sources", identity))

    def family(self, names: Iterable[str]) -> list[str]:
        """The identities of the folders and lists of some families, each once, the newest of each family first."""
        return list(dict.fromkeys(identity for name in names for identity in self._family(name)))

    def join_families(self, names: Iterable[str], identity: str) -> None:
        """Put a folder's or list's identity first in its families. Of two simultaneous writers one is lost."""
        for name in names:
            known = self._family(name)
            joined = [identity, *(one for one in known if one != identity)][:MAX_FAMILY]
            if joined != known:
                self.put(self.path("families", name), json.dumps(joined).encode())

    def _family(self, name: str) -> list[str]:
        """The identities of a family; none if its file is damaged, because it only saves work."""
        try:
            found = json.loads(self.get(self.path("families", name)))
        except (FileNotFoundError, IsADirectoryError, ValueError, RecursionError):
            return []
        known = found[:MAX_FAMILY] if isinstance(found, list) else []
        return [identity for identity in known if isinstance(identity, str) and is_hash(identity)]


def upload_digest(uri: str) -> str | None:
    """The SHA-256 of an upload by its URI; None if it is not one, or has a URI of an earlier version."""
    # rows that were chosen of an upload are no upload
    return uri.removeprefix(_UPLOAD) if uri.startswith(_UPLOAD) and "#" not in uri else None


def _digest_of(uri: str) -> str | None:
    old = _OLD_UPLOAD.fullmatch(uri)
    return upload_digest(uri) or (old[2] if old else None)
