"""The images that `describe` takes, and how each is read: to the bytes of a file, or to pixels."""

from __future__ import annotations

import asyncio
import hashlib
import io
import re
import stat
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageOps

from strata.core import ImageReference, Settings
from strata.errors import InvalidInput
from strata.files import valid_name
from strata.images import ImageError, decode
from strata.shards.keys import Keys
from strata.shards.local_folders import images_below

LARGEST_FILE = 512 * 2**20  # bytes; larger ones are not decoded (`strata.images.pool`)
DOWNLOAD_SECONDS = 30.0
KINDS = "a path, a URL, bytes, a file, a PIL image, a NumPy array, or several of them"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
# modes of Pillow that a PNG or a TIFF holds without a loss; others are converted to the second one first
_PNG, _TIFF = ("1", "L", "LA", "I;16", "P", "RGB", "RGBA"), ("CMYK", "YCbCr", "LAB", "F", "I")
_SIMPLER = {"RGBa": "RGBA", "La": "LA", "PA": "RGBA", "HSV": "RGB", "RGBX": "RGB", "I;16B": "I", "I;16L": "I;16"}


@dataclass(frozen=True)
class ReadImage:
    """An image that was read: the bytes of its file, or its pixels (upright RGB)."""

    key: str
    reference: ImageReference
    data: bytes | None = None
    pixels: Image.Image | None = None


@dataclass
class ImageSource:
    """One image as the caller gave it. It is read when it is its turn, and once more where it is shown.

    number: its place among those that were given together. name: of a file in a folder, relative to it.
    """

    given: Any
    number: int = 0
    alt_text: str | None = None
    name: str | None = None

    @property
    def key(self) -> str:
        """The key before the image was read: the name of its file, or its number."""
        path = _path_of(self.given)
        named = self.name or (path.name if path else "") or (_last_part(self.given) if is_url(self.given) else "")
        return Keys.clean(named) or str(self.number)

    def read(self, settings: Settings) -> ReadImage:
        """Read the image. Raises OSError, ImageError, and InvalidInput for something that is no image."""
        given = _image_of_row(self.given)
        if isinstance(given, Image.Image | np.ndarray):
            return self._of_pixels(given, settings.max_pixels)
        path = _path_of(given)
        if isinstance(given, str) and _SCHEME.match(given) and not is_url(given):
            raise InvalidInput("the address of an image begins with http:// or https://")
        if path is not None:
            return self._of_bytes(_read_file(path), valid_name(str(path.absolute())))
        if is_url(given):
            return self._of_bytes(_downloaded(given, settings), given)
        if isinstance(given, bytes | bytearray | memoryview):
            return self._of_bytes(bytes(given), None)
        if callable(getattr(given, "read", None)):
            return self._of_bytes(self._read_stream(given), None)
        raise InvalidInput(f"an image is {KINDS}; {_told(given)} is none")

    def _of_bytes(self, data: bytes, uri: str | None) -> ReadImage:
        if not data:
            raise ImageError("empty", "there are no bytes")
        digest = hashlib.sha256(data).hexdigest()
        # as an upload, an image without a name has a key from its content
        key = self.key if uri or self.name else digest[:16]
        return ReadImage(key, ImageReference(uri=uri or f"memory:{digest}", size=len(data), sha256=digest), data=data)

    def _of_pixels(self, given: Any, max_pixels: int) -> ReadImage:
        image = given if isinstance(given, Image.Image) else _from_array(given)
        if image.width * image.height > max_pixels:
            raise ImageError("too_many_pixels", f"{image.width} × {image.height}; at most {max_pixels:,} are decoded")
        pixels = _as_rgb(image, max_pixels)
        digest = hashlib.sha256(pixels.tobytes()).hexdigest()
        size = pixels.width * pixels.height * 3
        return ReadImage(digest[:16], ImageReference(uri=f"memory:{digest}", size=size, sha256=digest), pixels=pixels)

    def _read_stream(self, stream: Any) -> bytes:
        """The bytes of an open file, which are kept: it cannot be read a second time."""
        data = stream.read(LARGEST_FILE + 1)
        if not isinstance(data, bytes):
            raise InvalidInput("the file is open as text; open it with mode 'rb'")
        self.given = _bounded(data, "the file")
        return data


def sources_of(
    given: Any, alt_text: str | Sequence[str | None] | None = None
) -> tuple[Iterator[ImageSource], int | None]:
    """The images that were given, and how many there are; None: not known before they are read.

    Raises InvalidInput for something that can be no image, and OSError if a folder cannot be listed.
    """
    if is_one(given):
        if not isinstance(alt_text, str | None):
            raise InvalidInput("one image has one alt text: give it as a str")
        return iter([ImageSource(given, alt_text=_alt_text(alt_text))]), 1
    folder = _path_of(given)
    images = _of_folder(folder) if folder is not None else given
    if not isinstance(images, Iterable):
        raise InvalidInput(f"describe() takes {KINDS}; not {_told(given)}")
    total = len(images) if isinstance(images, Sequence | np.ndarray) else None
    if isinstance(alt_text, str) or not isinstance(alt_text, Collection | None):
        raise InvalidInput("several images have several alt texts: give a list with one for each, or None")
    if alt_text is not None and len(alt_text) != total:
        raise InvalidInput(f"{len(alt_text)} alt texts for {'an unknown number of' if total is None else total} images")
    return _numbered(images, None if alt_text is None else list(map(_alt_text, alt_text))), total


def is_one(given: Any) -> bool:
    """Whether this is a single image, or something that can only be meant as one."""
    if isinstance(given, np.ndarray):
        return given.ndim != 4  # a batch of images
    path = _path_of(given)
    if path is not None:
        return not path.is_dir()
    single = isinstance(given, str | bytes | bytearray | memoryview | Image.Image | Mapping)
    return single or callable(getattr(given, "read", None))


def is_url(given: Any) -> bool:
    """Whether this is the address of an image on the web."""
    return isinstance(given, str) and given.lower().startswith(("http://", "https://"))


def _alt_text(given: Any) -> str | None:
    if not isinstance(given, str | None):
        raise InvalidInput(f"an alt text is a str or None, not {_told(given)}")
    return None if given is None else valid_name(given)


def _numbered(images: Iterable[Any], alt_texts: Sequence[str | None] | None) -> Iterator[ImageSource]:
    for number, image in enumerate(images):
        alt_text = alt_texts[number] if alt_texts is not None else None
        if isinstance(image, ImageSource):
            image.number, image.alt_text = number, alt_text
            yield image
        else:
            yield ImageSource(image, number, alt_text)


def _of_folder(folder: Path) -> list[ImageSource]:
    """The images of a folder and its sub-folders, sorted by name, without hidden files and links."""
    sources = [ImageSource(path, name=path.relative_to(folder).as_posix()) for path in images_below(folder)]
    if not sources:
        raise InvalidInput(f"{folder}: no images in this folder")
    return sources


def _path_of(given: Any) -> Path | None:
    if isinstance(given, Path):
        return given
    return Path(given) if isinstance(given, str) and given and not is_url(given) else None


def _last_part(url: str) -> str:
    return url.partition("?")[0].partition("#")[0].rstrip("/").rpartition("/")[2]


def _image_of_row(given: Any) -> Any:
    """The image in what a data set of Hugging Face has for one that it does not decode: its bytes, or its path."""
    if not isinstance(given, Mapping):
        return given
    found = next((given[name] for name in ("bytes", "path") if given.get(name) is not None), None)
    if found is None:
        raise InvalidInput(f"a mapping with neither `bytes` nor `path`: {', '.join(map(str, given))[:100]}")
    return found


def _read_file(path: Path) -> bytes:
    # a pipe or a device would be read for ever
    if not stat.S_ISREG(path.stat().st_mode):
        raise InvalidInput(f"{path}: {'a folder' if path.is_dir() else 'not a file'}, and no image")
    with path.open("rb") as file:
        return _bounded(file.read(LARGEST_FILE + 1), str(path))


def _bounded(data: bytes, name: str) -> bytes:
    if len(data) > LARGEST_FILE:
        raise ImageError("too_costly", f"{name}: more than {LARGEST_FILE:,} bytes are not decoded")
    return data


def _downloaded(url: str, settings: Settings) -> bytes:
    """The bytes of a URL, by the rules of `image_url`: no private address unless the settings allow it."""
    from strata.egress import EgressRules, RefusedAddress
    from strata.egress.downloads import DownloadFailed, Pool, download

    rules = EgressRules(tuple(settings.url_ports), tuple(settings.url_hosts), settings.private_urls)
    most = settings.max_body_bytes
    try:
        # a thread of its own: a notebook's thread runs an event loop already
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, download(url, rules, most, DOWNLOAD_SECONDS, Pool(most + 1))).result()
    except (RefusedAddress, DownloadFailed) as error:
        raise OSError(f"{url} could not be fetched: {error}") from error


def _from_array(array: np.typing.NDArray[Any]) -> Image.Image:
    """An image of an array (height, width) or (height, width, 1, 3 or 4): uint8, bool, or floats in 0..1."""
    shape = " × ".join(map(str, array.shape)) or "no"
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        turned = array.ndim == 3 and array.shape[0] in (1, 3, 4)
        hint = "; channels come last: array.transpose(1, 2, 0)" if turned else ""
        raise InvalidInput(f"an array has the shape (height, width) or (height, width, 3), not {shape}{hint}")
    if 0 in array.shape:
        raise ImageError("empty", f"an array of {shape} has no pixels")
    if array.dtype == bool:
        array = array.astype(np.uint8) * 255
    elif np.issubdtype(array.dtype, np.floating):
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise InvalidInput("an array of floats has values from 0 to 1; convert others to uint8")
        array = np.rint(array * 255).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise InvalidInput(f"an array has values of uint8 (0 to 255) or floats from 0 to 1, not {array.dtype}")
    return Image.fromarray(np.ascontiguousarray(array))


def _as_rgb(image: Image.Image, max_pixels: int) -> Image.Image:
    """The pixels as a file with them is decoded: upright RGB in the colours of sRGB, transparency on white."""
    try:
        image.load()
        upright = ImageOps.exif_transpose(image)
        profile = upright.info.get("icc_profile")
        if upright.mode == "RGB" and not profile:
            copy = upright.copy() if upright is image else upright
            copy.info = {}
            return copy
        # any other mode: through a file without loss, so that the rules of decoding are those of every image
        mode = _SIMPLER.get(upright.mode, upright.mode)
        if mode not in (*_PNG, *_TIFF):
            mode = "RGB"
        simple, buffer = upright if mode == upright.mode else upright.convert(mode), io.BytesIO()
        kept: dict[str, Any] = {"icc_profile": profile} if profile else {}
        if "transparency" in upright.info and mode in _PNG:
            kept["transparency"] = upright.info["transparency"]
        file_format: Literal["PNG", "TIFF"] = "PNG" if mode in _PNG else "TIFF"
        simple.save(buffer, file_format, **kept, **({"compress_level": 1} if file_format == "PNG" else {}))
    except (OSError, ValueError, SyntaxError) as error:
        raise ImageError("truncated", f"Pillow cannot read the image: {error}") from error
    return decode(buffer.getvalue(), max_pixels)


def _told(given: Any) -> str:
    name = "None" if given is None else type(given).__name__
    if isinstance(given, str) and not given:
        return "an empty str"
    return name if given is None else f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def is_notebook() -> bool:
    """Whether this process serves a notebook."""
    return "ipykernel" in sys.modules
