"""The files of an export that are sent: those that SHA256SUMS lists, and no others."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from strata.publishing.checksums import CARD, SUMS, BadSums, files_of, parse_sums, sums_of, sums_text

FILES_AT_ONCE, BYTES_AT_ONCE = 64, 256 * 2**20  # of a batch, after which it is noted that it is there


@dataclass(frozen=True)
class Contents:
    """An export's files. sums and sizes (bytes): by their paths, sorted, without SHA256SUMS itself.

    unlisted: files of the folder that SHA256SUMS does not list; they stay where they are.
    """

    folder: Path
    sums: Mapping[str, str]
    sizes: Mapping[str, int]
    unlisted: Sequence[str] = ()

    @property
    def text(self) -> str:
        """The content of SHA256SUMS."""
        return sums_text(self.sums)

    @property
    def digest(self) -> str:
        """What identifies the content: the SHA-256 of `text`, in hexadecimal digits."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def bytes(self) -> int:
        """The size of all files but SHA256SUMS."""
        return sum(self.sizes.values())

    @property
    def every_size(self) -> Mapping[str, int]:
        """The sizes (bytes) of all files that are sent, SHA256SUMS among them."""
        return {**self.sizes, SUMS: len(self.text.encode())}

    def checked(self, advance: Callable[[int], object] = lambda size: None) -> Contents:
        """The contents, after every file was compared with its checksum; advance: is called with the bytes of each.

        A data card is for its owner to write on: if it was edited, these are other contents, with its new checksum, and
        `keep` writes that into SHA256SUMS. Raises BadSums if another file does not have its checksum, and OSError.
        """
        found = sums_of(self.folder, list(self.sums), advance)
        changed = [name for name, digest in self.sums.items() if found[name] != digest]
        if changed and changed != [CARD]:
            changed = [name for name in changed if name != CARD]
            raise BadSums(f"{self.folder / changed[0]} is not what it was when it was exported{_more(changed)}")
        if changed:
            return replace(self, sums=found, sizes={**self.sizes, CARD: (self.folder / CARD).stat().st_size})
        return self

    def keep(self) -> None:
        """Write the checksums into the folder. Raises OSError."""
        (self.folder / SUMS).write_text(self.text, encoding="utf-8")

    def batches(self, names: Sequence[str]) -> Iterator[list[str]]:
        """Files in batches of bounded number and size; a large file has one of its own."""
        batch: list[str] = []
        size = 0
        for name in names:
            if batch and (len(batch) >= FILES_AT_ONCE or size + self.sizes[name] > BYTES_AT_ONCE):
                yield batch
                batch, size = [], 0
            batch.append(name)
            size += self.sizes[name]
        if batch:
            yield batch


def contents_of(folder: Path) -> Contents:
    """The files of an export. Raises BadSums if it has no SHA256SUMS or a file of it is missing, and OSError."""
    try:
        text = (folder / SUMS).read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise BadSums(f"{folder} has no {SUMS}: it is no export of `strata export`") from None
    except UnicodeDecodeError:
        raise BadSums(f"{folder / SUMS} is not UTF-8") from None
    sums, there = parse_sums(text), files_of(folder)
    if not sums:
        raise BadSums(f"{folder / SUMS} lists no file")
    missing = sorted(sums.keys() - set(there))
    if missing:
        raise BadSums(f"{folder / missing[0]} is missing{_more(missing)}")
    sizes = {name: (folder / name).stat().st_size for name in sorted(sums)}
    return Contents(folder, dict(sorted(sums.items())), sizes, [name for name in there if name not in sums])


def _more(names: Sequence[str]) -> str:
    return f", and {len(names) - 1:,} more" if names[1:] else ""
