"""From pictures to exports as a user does it, with the models of `everyday`: numbers on signs, places, faces."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw, ImageFont

from bench.curation.signs import drawn_sign, jpeg
from strata.data.exports.formats import FORMATS
from strata.store.store import Store
from tests.checkout import CHECKOUT
from tests.cli.test_cli import code_of
from tests.fakes import write_shard
from tests.images.marks import MARK, marked
from tests.planted import photograph

PHONE, EMAIL, FREEPHONE = "+49 30 1234567", "anna.berg@example.org", "0808 157 0123"
RULE = ("--leave-out", "personal_data=personal > 0")
FACE = (180, 65, 270, 210)  # of the astronaut, in a picture of 512 × 512 pixels: from chin to hair


def real_sign() -> Image.Image:
    """A photograph of a sign on a wall, with a number where such signs have one."""
    image = photograph("freephone-sign.jpg", (640, 480))
    ImageDraw.Draw(image).text((150, 405), FREEPHONE, "#f0e090", font=ImageFont.load_default(size=34))
    return image


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, str]]:
    """A store, and the id of a job with six pictures that `strata run` has described."""
    folder, random = tmp_path_factory.mktemp("privacy"), np.random.default_rng(7)
    ground = photograph("meadow.jpg", (640, 480))
    signs = [drawn_sign(ground, text, random) for text in (PHONE, EMAIL, "OPEN 08:00-18:00")]
    astronaut = photograph("astronaut.jpg", (512, 512))
    pictures = [*map(jpeg, signs), jpeg(real_sign())]
    pictures += [marked("JPEG", image=astronaut), marked("JPEG", image=photograph("coffee.jpg", (600, 400)))]
    tar, uri = write_shard(folder / "pictures.tar", pictures), str(folder / "store")
    assert sum(MARK.encode() in picture for picture in pictures) == 2
    environment = {**os.environ, "STRATA_STORE": uri, "PYTHONPATH": str(CHECKOUT)}
    command = [sys.executable, "-m", "strata", "run", tar, "--profile", "everyday"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    yield Store(uri), done.stdout.split()[0]


def test_what_a_rule_names_is_in_no_export(
    job: tuple[Store, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store, job_id = job
    monkeypatch.setenv("STRATA_STORE", store.uri)
    assert code_of("features", job_id, "--stage", "faces") == 0
    # nothing is left out or blurred that nobody asked for
    assert code_of("snapshot", "create", "all", "--from", job_id) == 0
    exported("all", "webdataset", "description", tmp_path / "told")
    assert all(secret.encode() in b"".join(contents(tmp_path / "told")) for secret in (PHONE, EMAIL, FREEPHONE))
    exported("all", "webdataset", "alt_text", tmp_path / "all")
    before = pictures_in(tmp_path / "all")
    assert len(before) == 6
    # the rule: counted, with the values that it has read
    assert code_of("snapshot", "create", "fit", "--from", job_id, *RULE) == 0
    capsys.readouterr()
    assert code_of("snapshot", "left-out", "fit", "--json") == 0
    left = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["key"], row["rule"], row["values"]) for row in left] == [
        (key, "personal_data", {"personal": 1}) for key in ("000000000", "000000001", "000000003")
    ]
    layers = [(form, "alt_text") for form in FORMATS] + [("llava", "description"), ("parquet", "description")]
    for form, layer in layers:
        out = tmp_path / f"{form}-{layer}"
        exported("fit", form, layer, out, "--blur-faces")
        written = b"".join(contents(out))
        for secret in (PHONE, EMAIL, FREEPHONE, MARK):
            assert secret.encode() not in written and "".join(secret.split()).encode() not in written, (form, secret)
        if layer == "description":  # that with a face has none
            continue
        pictures = pictures_in(out)
        assert sorted(image.size for image in pictures) == [(512, 512), (600, 400), (640, 480)], form
        for image in pictures:
            if image.size == (512, 512):
                (whole,) = (one for one in before if one.size == image.size)
                assert edges(image.crop(FACE)) < edges(whole.crop(FACE)) / 3, form
                assert edges(image.crop((0, 250, 512, 512))) > 0.9 * edges(whole.crop((0, 250, 512, 512))), form
    # the rows are there as before
    assert code_of("snapshot", "create", "again", "--from", job_id, "--leave-out", "personal_data=False") == 0


def exported(snapshot: str, form: str, layer: str, out: Path, *more: str) -> None:
    assert code_of("export", snapshot, "--format", form, "--layer", layer, "--out", str(out), *more) == 0, form


def contents(folder: Path, packed: bool = True) -> Iterator[bytes]:
    """The bytes of every file below a folder; those inside tars, and the values inside Parquet files, too.

    packed: whether also those of Parquet files as they are.
    """
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        if packed or path.suffix != ".parquet":
            yield path.read_bytes()
        if path.suffix == ".tar":
            with tarfile.open(path) as tar:
                yield from (file.read() for member in tar if (file := tar.extractfile(member)))
        elif path.suffix == ".parquet":
            yield from _values(pq.read_table(path).to_pylist())


def _values(value: object) -> Iterator[bytes]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from _values(one)
    elif value is not None:
        yield value if isinstance(value, bytes) else str(value).encode()


def pictures_in(folder: Path) -> list[Image.Image]:
    """The pictures of an export, each once: JPEGs, wherever in a file they begin."""
    found: dict[bytes, Image.Image] = {}
    for data in contents(folder, packed=False):
        start = data.find(b"\xff\xd8\xff")
        while start >= 0:
            try:
                image = Image.open(io.BytesIO(data[start:])).convert("RGB")
                found[image.tobytes()] = image
            except OSError:  # bytes that only look like a JPEG
                pass
            start = data.find(b"\xff\xd8\xff", start + 3)
    return list(found.values())


def edges(image: Image.Image) -> float:
    return float(np.abs(np.diff(np.asarray(image.convert("L"), np.float64))).mean())
