"""Read the images of records: find where their files lie now, and check that a tar is what it was."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress

from strata.shards.roots import ShardMissing
from strata.shards.sources import Located, ShardChanged, Stamps, find_shard, index_shard, read_images, shard_stamps
from strata.store import Store

# for which a shard of unknown version is believed to be the same: reading it for each chunk would take longer than the
# work on the chunk
UNKNOWN_SECONDS = 300.0


class ImageReader:
    """Reads the images of shards and of uploads. Thread-safe; it can be pickled.

    store: knows the uploads, what was moved, and the identities of shards; None: files lie where their URIs say.
    """

    def __init__(self, store: Store | None = None) -> None:
        self.store = store
        self._identities: dict[str, str] = {}  # of shards, by their stamps
        self._read_lately: dict[str, tuple[str, float]] = {}  # the same, until when (monotonic seconds) it is believed

    def locate(self, uri: str) -> str:
        """Where the file of a URI lies now. Raises OSError."""
        return uri if self.store is None else self.store.locate(uri)

    def read(self, rows: Sequence[Located], versions: Sequence[str | None] = ()) -> list[bytes | Exception]:
        """The bytes of each row's image, or an exception, as `read_images` gives them. Raises OSError."""
        results = read_images(rows, self.locate, versions)
        # an upload that is missing may only be away with the store
        if self.store is not None and any(
            isinstance(result, FileNotFoundError) and self.store.is_upload(row.uri)
            for row, result in zip(rows, results, strict=True)
        ):
            self.store.check_mark()
        return results

    def is_gone(self, uri: str) -> bool:
        """Whether there is no file or folder of a shard. Raises as `shard_stamps` does, but not ShardMissing."""
        try:
            find_shard(uri, self.locate(uri))
        except ShardMissing:
            return True
        return False

    def verify(self, uri: str, identity: str) -> None:
        """Raise ShardChanged if the tar at a URI is no longer the one that had this identity.

        Takes one request. If the file has another time stamp than the store knows (it was touched, copied or restored),
        its headers are read and compared instead. If its storage does not tell its version, they are read again after
        UNKNOWN_SECONDS, and when its size differs. Otherwise raises as `shard_stamps` does.
        """
        at = self.locate(uri)
        stamps = shard_stamps(uri, at)
        # earlier versions, and tables of samples, have the stamp as the identity
        if identity not in stamps and identity != self._identity(uri, at, stamps, identity):
            raise ShardChanged(f"{uri} has changed since it was indexed: submit it again")

    def _identity(self, uri: str, at: str, stamps: Stamps, expected: str) -> str:
        """The identity of a shard with a stamp: from this process, the store, or the shard itself."""
        stamp = stamps.now
        if stamp is None:
            return self._unversioned(uri, at, stamps.earlier, expected)
        known = self._identities.get(stamp) or (self.store and self.store.read_identity(stamp))
        if not known:
            known = index_shard(uri, at=at).identity
            if self.store is not None:
                with suppress(OSError):  # the store of a reader may be read-only: then the next process reads again
                    self.store.keep_identity(stamp, known)
        self._identities[stamp] = known
        return known

    def _unversioned(self, uri: str, at: str, stamp: str, expected: str) -> str:
        """The identity of a shard whose version is not known: the expected one if it was read a short time ago."""
        known, until = self._read_lately.get(stamp, ("", 0.0))
        if known != expected or time.monotonic() >= until:
            known = index_shard(uri, at=at).identity
            self._read_lately[stamp] = known, time.monotonic() + UNKNOWN_SECONDS
        return known
