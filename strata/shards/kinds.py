"""What a file is: by its name as it was given, and by its first bytes where the name says nothing.

The name as given counts, and not the one that it leads to: in the cache of a model hub `train.parquet` is a link to a
file that is named by its hash, and the address of a list may end with a signature.
"""

from __future__ import annotations

import re
from typing import Literal

from strata.store import file_name

IMAGE_EXTENSIONS = frozenset(
    {"jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "gif", "tif", "tiff", "avif", "heic", "heif"}
)
Kind = Literal["image", "parquet", "lines", "tar"]
EXTENSIONS: dict[str, Kind] = dict.fromkeys(sorted(IMAGE_EXTENSIONS), "image")
EXTENSIONS |= {"tar": "tar", "parquet": "parquet", "jsonl": "lines"}
MAGIC_BYTES = 12  # of a file that `kind_by_content` needs

# how files begin: JPEG, PNG, GIF, TIFF in both byte orders, BMP; WebP and those of ISO 14496-12 (AVIF, HEIC) by a name
_IMAGE = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|II\*\0|MM\0\*|BM.{4}\0\0\0\0|RIFF.{4}WEBP"
    rb"|.{4}ftyp(?:avif|avis|heic|heix|mif1|msf1|hevc)",
    re.DOTALL,
)
# a segment of a path that begins with a dot, and is not . or ..; __MACOSX is what macOS adds to archives: files named
# like images that hold none
_HIDDEN = re.compile(r"(?:^|[/\\])(?:\.(?!\.?(?:[/\\]|\Z))|__MACOSX(?=[/\\]|\Z))")


def kind_by_name(uri: str) -> Kind | None:
    """What a file is by the extension of its name; None if it has none of those that are known."""
    return EXTENSIONS.get(extension_of(file_name(uri)))


def kind_by_content(head: bytes) -> Kind:
    """What a file is by its first MAGIC_BYTES bytes; a tar if they are of nothing else that is known."""
    if is_image(head):
        return "image"
    return "parquet" if head.startswith(b"PAR1") else "tar"


def is_image(head: bytes) -> bool:
    """Whether a file that begins with these bytes is an image."""
    return _IMAGE.match(head) is not None


def extension_of(name: str) -> str:
    """What follows the last dot of a file's name, in lower case; empty without one."""
    return name.rpartition(".")[2].lower() if "." in name else ""


def is_hidden(path: str) -> bool:
    """Whether a path relative to a shard is one that programs hide: a segment begins with a dot, or is of macOS."""
    return _HIDDEN.search(path) is not None
