"""Read the images of records: find where their files lie now, and check that a tar is what it was."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from strata.shards.sources import Located, ShardChanged, index_shard, read_images, shard_stamp
from strata.store import Store


class ImageReader:
    """Reads the images of shards and of uploads. Thread-safe; it can be pickled.

    store: knows the uploads, what was moved, and the identities of shards; None: files lie where their URIs say.
    """

    def __init__(self, store: Store | None = None) -> None:
        self.store = store
        self._identities: dict[str, str] = {}  # of shards, by their stamps

    def locate(self, uri: str) -> str:
        """Where the file of a URI lies now. Raises OSError."""
        return uri if self.store is None else self.store.locate(uri)

    def read(self, rows: Sequence[Located]) -> list[bytes | Exception]:
        """The bytes of each row's image, or an exception, as `read_images` gives them. Raises OSError."""
        results = read_images(rows, self.locate)
        # an upload that is missing may only be away with the store
        if self.store is not None and any(
            isinstance(result, FileNotFoundError) and self.store.is_upload(row.uri)
            for row, result in zip(rows, results, strict=True)
        ):
            self.store.check_mark()
        return results

    def verify(self, uri: str, identity: str) -> None:
        """Raise ShardChanged if the tar at a URI is no longer the one that had this identity.

        Takes one request. If the file has another time stamp than the store knows (it was touched, copied or restored),
        its headers are read and compared instead. Otherwise raises as `shard_stamp` does.
        """
        at = self.locate(uri)
        stamp = shard_stamp(uri, at)
        # earlier versions used the stamp as the identity
        if identity != stamp and identity != self._identity(uri, at, stamp):
            raise ShardChanged(f"{uri} has changed since it was indexed: submit it again")

    def _identity(self, uri: str, at: str, stamp: str) -> str:
        """The identity of a shard with a stamp: from this process, the store, or the shard itself."""
        known = self._identities.get(stamp) or (self.store and self.store.read_identity(stamp))
        if not known:
            known = index_shard(uri, at=at).identity
            if self.store is not None:
                with suppress(OSError):  # the store of a reader may be read-only: then the next process reads again
                    self.store.keep_identity(stamp, known)
        self._identities[stamp] = known
        return known
