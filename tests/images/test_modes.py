"""Every mode of Pillow in every format, through the pool: the same pixels as without it, and no unforeseen error."""

from __future__ import annotations

import ast
import io
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import PIL
import pytest
from PIL import Image, TiffImagePlugin

from bench.hostile.images import encoded
from strata.images import DecodersUnavailable, DecodingPool, ImageError, child, decode
from strata.images.formats import FORMATS

LIMIT = 10_000
MODES: tuple[str, ...] = (
    "1",
    "L",
    "P",
    "RGB",
    "RGBA",
    "RGBX",
    "RGBa",
    "CMYK",
    "YCbCr",
    "LAB",
    "HSV",
    "I",
    "F",
    "LA",
    "La",
    "PA",
)
MODES += ("I;16", "I;16B", "I;16L", "I;16N")
NEVER = {"ImageQt", "ImageShow", "ImageWin", "ImageTk", "ImageGrab"}  # to show pictures
COMPRESSIONS = (None, "tiff_lzw", "tiff_deflate", "packbits", "jpeg", "lzma", "zstd")


@pytest.fixture(scope="module")
def decoders() -> Iterator[DecodingPool]:
    with DecodingPool(LIMIT, processes=1) as made:
        yield made


def outcome(decoders: DecodingPool | None, data: bytes) -> object:
    """The pixels, or the error of the image. Other errors are not caught."""
    try:
        image = decode(data, LIMIT) if decoders is None else decoders.decode(data)
    except ImageError as error:
        return error.kind, error.detail
    return image.mode, image.size, image.tobytes()


def files() -> Iterator[tuple[str, bytes]]:
    """A picture of each mode in each format and compression that can hold it."""
    for name in FORMATS:
        for mode in MODES:
            for compression in COMPRESSIONS if name == "TIFF" else (None,):
                options = {} if compression is None else {"compression": compression}
                try:
                    yield f"{name} {mode} {compression}", encoded(Image.new(mode, (9, 7)), name, **options)
                except (OSError, RuntimeError, KeyError, ValueError, SystemError):
                    continue  # the format has no such mode


def tiffs() -> Iterator[tuple[str, bytes]]:
    """A TIFF of each layout of pixels that Pillow knows; it can write only some of them."""
    for layout in TiffImagePlugin.OPEN_INFO:
        prefix, photometric, kind, order, bits, extra = layout
        tags = TiffImagePlugin.ImageFileDirectory_v2(prefix=prefix)
        tags[256], tags[257], tags[258], tags[259], tags[262] = 9, 7, bits, 1, photometric
        tags[266], tags[277], tags[278], tags[279] = order, len(bits), 7, 9 * 7 * -(-sum(bits) // 8)
        if photometric == 3:
            tags[320] = list(range(768))
        if extra:
            tags[338] = extra
        tags[339] = kind
        tags[273] = 0  # Pillow adds where the pixels begin: after the directory
        file = io.BytesIO()
        tags.save(file)
        yield str(layout), file.getvalue() + bytes(number % 251 for number in range(1000))


def test_all_modes_of_all_formats_give_the_same_as_without_the_pool(decoders: DecodingPool) -> None:
    found = {name: (outcome(None, data), outcome(decoders, data)) for name, data in files()}
    assert len(found) > 80 and {"TIFF LAB None", "TIFF YCbCr tiff_lzw", "JPEG CMYK None"} <= set(found)
    for name, (expected, got) in found.items():
        assert got == expected, name
        assert isinstance(expected, tuple) and expected[0] == "RGB", (name, expected)


def test_all_layouts_of_tiff_give_the_same_as_without_the_pool(decoders: DecodingPool) -> None:
    found = {name: (outcome(None, data), outcome(decoders, data)) for name, data in tiffs()}
    assert all(got == expected for expected, got in found.values())
    decoded = [name for name, (expected, _) in found.items() if isinstance(expected, tuple) and expected[0] == "RGB"]
    # the others have a palette or inverted grey with reversed bits, which Pillow cannot read
    assert len(decoded) >= 116 and str((b"II", 1, (1,), 1, (8, 8), (1,))) in decoded


@pytest.mark.parametrize(
    ("lab", "rgb", "tolerance"),
    [
        ((0, 128, 128), (0, 0, 0), 1),
        ((255, 128, 128), (255, 255, 255), 1),
        ((127, 128, 128), (119, 119, 119), 1),  # L* = 50
        # sRGB red, green and blue in CIELAB for D50: (54.3, 80.8, 69.9), (87.8, -79.3, 81.0), (29.6, 68.3, -112.0);
        # a step of a* or b* is up to 22 steps of a dark channel
        ((138, 209, 198), (255, 0, 0), 22),
        ((224, 49, 209), (0, 255, 0), 22),
        ((75, 196, 16), (0, 0, 255), 22),
    ],
)
def test_lab_becomes_srgb(decoders: DecodingPool, lab: tuple[int, ...], rgb: tuple[int, ...], tolerance: int) -> None:
    found = decoders.decode(encoded(Image.new("LAB", (8, 8), lab), "TIFF")).getpixel((3, 3))
    assert isinstance(found, tuple)
    assert max(abs(a - b) for a, b in zip(found, rgb, strict=True)) <= tolerance


def test_all_that_pillow_imports_late_is_imported_before_the_sandbox_closes() -> None:
    source = pathlib.Path(PIL.__file__).parent
    used: tuple[str, ...] = (
        "Image",
        "ImageFile",
        "ImagePalette",
        "ImageCms",
        "ImageFilter",
        "TiffImagePlugin",
        "JpegImagePlugin",
    )
    used += ("PngImagePlugin", "WebPImagePlugin", "GifImagePlugin", "BmpImagePlugin", "MpoImagePlugin")
    # what functions of these modules import from Pillow
    late = set()
    for module in used:
        for node in ast.walk(ast.parse((source / f"{module}.py").read_text("utf-8"))):
            for line in ast.walk(node) if isinstance(node, ast.FunctionDef) else ():
                if isinstance(line, ast.ImportFrom) and line.level == 1:
                    late |= {line.module} if line.module else {name.name for name in line.names}
    assert {"ImageCms", "TiffImagePlugin", "ImagePalette"} <= late
    program = "import sys; from strata.images.child import _warm_up; _warm_up(); print(*sys.modules)"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {name for name in late - NEVER if f"PIL.{name}" not in told.stdout.split()}


FAULTY = """
from strata.images import child
decode = child._decoded
def decode_or_fail(image, data, *place):
    if data[:1] == b"G" or FAILS_ALWAYS:
        raise KeyError("an unforeseen error")
    return decode(image, data, *place)
child._decoded = decode_or_fail
child.main()
"""


def with_faults(monkeypatch: pytest.MonkeyPatch, always: bool) -> DecodingPool:
    """A pool whose processes fail for GIF files, or for all."""
    start = subprocess.Popen

    def start_faulty(command: list[str], **options: object) -> object:
        program = FAULTY.replace("FAILS_ALWAYS", str(always))
        at = command.index("-m")
        return start([*command[:at], "-c", program, *command[at + 2 :]], **options)  # type: ignore[call-overload]

    monkeypatch.setattr("strata.forks.subprocess.Popen", start_faulty)
    return DecodingPool(LIMIT, processes=1)


def test_an_unforeseen_error_is_told_for_its_image_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.new("RGB", (8, 8))
    with with_faults(monkeypatch, always=False) as decoders:
        with pytest.raises(ImageError, match="unforeseen") as caught:
            decoders.decode(encoded(image, "GIF"))
        assert caught.value.kind == "unsupported" and "KeyError" in caught.value.detail
        assert decoders.decode(encoded(image, "PNG")).size == (8, 8)
        # together with others too
        found = decoders.decode_all([encoded(image, name) for name in ("PNG", "GIF", "JPEG")], [None] * 3)
        assert [isinstance(one, ImageError) for one in found] == [False, True, False]
        assert decoders.budget.in_use == 0


def test_decoders_that_cannot_decode_their_own_picture_are_no_fault_of_the_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with with_faults(monkeypatch, always=True) as decoders, pytest.raises(DecodersUnavailable, match="unforeseen"):
        decoders.decode(encoded(Image.new("RGB", (8, 8)), "PNG"))


def test_a_reply_of_too_little_address_space_names_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    class Short:
        grown = 0

        def allow(self, memory: int, seconds: float) -> bool:
            return False

        def rest(self) -> None:
            pass

    def fail(*_: object) -> dict[str, object]:
        raise MemoryError

    monkeypatch.setattr(child, "_decoded", fail)
    reply = child._reply({"images": [{"size": 0}], "memory": 1, "seconds": 1}, b"", Short())  # type: ignore[arg-type]
    (answer,) = reply["images"]
    assert "limit of address space" in answer["short"]
