"""The group `features`: parts of their own beside the rows, computed once, found by those who read rows."""

from __future__ import annotations

import dataclasses
import errno
import io
import json
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from models.base import WeightsMissing
from models.weights.inventory import PROFILES
from strata.cli import exits
from strata.core.chunks import Chunk
from strata.core.layers import LAYERS
from strata.core.layers.features import part_schema
from strata.core.profiles import Profile, StageSettings, load_profile
from strata.core.records import ImageReference, Status
from strata.data.exports import PROVENANCE, Request, export
from strata.errors import InvalidInput
from strata.shards import ImageReader, index_shard
from strata.snapshots import Cleaning, Selection, Snapshots, Verification, read_rows
from strata.store.feature_parts import FeatureReader, MissingFeatures, feature_part, keep_kind, kinds_of
from strata.store.part_paths import Part
from strata.store.provenance import keep_profile
from strata.store.store import Store
from tests.cli.test_cli import code_of
from tests.described import described
from tests.fakes import write_shard
from tests.models.tiny.tiny_models import openai_clip
from tests.planted import NAMES, PROFILE, photograph, plant, saved, with_stages
from workers.features import FeatureRun, Totals

MAX_PIXELS = 10**7


def computed(store: Store, parts: list[Part], profile: Profile = PROFILE) -> Totals:
    run = FeatureRun(store, profile, (), MAX_PIXELS)
    return run.run(run.missing(parts))


def with_clip(folder: Path) -> Profile:
    """The demo profile with the embeddings of a CLIP, and their aesthetic scores, as its only features."""
    embedding = StageSettings(backend="open_clip", model=f"local:{folder}", revision="")
    scored = embedding.model_copy(update={"backend": "laion", "parameters": {"head": "v1"}})
    stages = with_stages().stages | {"embedding": embedding, "aesthetic": scored}
    return PROFILE.model_copy(update={"stages": stages})


def test_a_stage_more_changes_no_fingerprint_and_computes_only_itself(store: Store, tmp_path: Path) -> None:
    before, after = with_stages("sharpness"), with_stages("sharpness", "hash")
    assert [before.fingerprint(group) for group in ("index", "vision", "llm")] == [
        after.fingerprint(group) for group in ("index", "vision", "llm")
    ]
    assert after.feature_ways()["sharpness"] == before.feature_ways()["sharpness"]
    parts = plant(store, tmp_path, [saved(photograph())] * 20)
    assert len(parts) == 2
    assert computed(store, parts, before).parts == {"sharpness": 2}
    files = {path for path in store.find("parts") if "/features/" in path}
    assert computed(store, parts, after).parts == {"hash": 2}
    assert computed(store, parts, after).parts == {}
    assert {path for path in store.find("parts") if "/features/" in path} > files
    # another setting is another way, which recomputes this stage alone
    other = after.model_copy(
        update={
            "stages": after.stages
            | {"sharpness": after.stages["sharpness"].model_copy(update={"parameters": {"side": 64}})}
        }
    )
    assert computed(store, parts, other).parts == {"sharpness": 2}


def test_values_of_images(store: Store, tmp_path: Path) -> None:
    sharp = photograph()
    blurred = sharp.filter(ImageFilter.GaussianBlur(3))
    flat = Image.new("RGB", (64, 64), "white")
    mirrored = sharp.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    images = [saved(one, form="PNG") for one in (sharp, blurred, flat, mirrored)]
    (part,) = plant(store, tmp_path, images)
    totals = computed(store, [part])
    assert totals.succeeded == dict.fromkeys(PROFILE.feature_ways(), 4) and not any(totals.failed.values())
    reader = FeatureReader(store)
    sharpness = reader.read(part, "sharpness", ["sharpness"]).column("sharpness").to_pylist()
    assert sharpness[0] > 2 * sharpness[1] > 0 and sharpness[2] == 0
    assert sharpness[3] == pytest.approx(sharpness[0])
    hashes = reader.read(part, "hash", ["pixels", "pdq", "mirrored", "quality"]).to_pylist()
    bits = {turn: np.frombuffer(hashes[0][turn], np.uint8) for turn in ("pdq", "mirrored")}
    other = np.frombuffer(hashes[3]["pdq"], np.uint8)
    assert np.bitwise_count(bits["mirrored"] ^ other).sum() < 20 < 90 < np.bitwise_count(bits["pdq"] ^ other).sum()
    assert hashes[0]["pixels"] != hashes[3]["pixels"] and hashes[2]["quality"] < 50 <= hashes[0]["quality"]
    for stage in ("embedding", "text_embedding"):
        vectors = np.array(reader.read(part, stage, [f"{stage}.list.element"]).column(stage).to_pylist())
        assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-2)
    # rows of snapshots are chosen by them
    table = read_rows(store, [part.path], ["sharpness"]).table
    assert table.column("sharpness").to_pylist() == sharpness
    made = Snapshots(store).create("sharp", [part], Selection(where=f"sharpness >= {sharpness[0] - 1}"))
    assert made.rows().column("row").to_pylist() == [0, 3]
    assert made.manifest.selection.ways == {"sharpness": PROFILE.feature_ways()["sharpness"]}
    # `strata verify --all` reads them as all parts
    report = Verification(store)
    assert report.run(report.paths()).intact and report.report.parts == 1 + len(kinds_of(store))
    # what an earlier version has computed is passed over
    earlier = next(kind for kind in kinds_of(store) if kind.stage == "hash")
    keep_kind(store, earlier.model_copy(update={"way": "0" * 16, "fingerprint": "0" * 16}))
    assert FeatureReader(store).read(part, "hash", ["quality"]).num_rows == 4


def test_what_reads_embeddings_reads_no_image(store: Store, tmp_path: Path) -> None:
    clip = openai_clip(tmp_path / "clip")
    profile = with_clip(clip)
    records = [described("a"), described("b", status=Status.FAILED), described("c")]
    (part,) = plant(store, tmp_path, [saved(photograph(name)) for name in (*NAMES, NAMES[0])], profile, records)
    # both at once, or the embedding first: the same scores
    totals = computed(store, [part], profile)
    assert totals.succeeded == {"embedding": 2, "aesthetic": 2} and totals.failed == {"embedding": 1, "aesthetic": 1}
    both = FeatureReader(store).read(part, "aesthetic", ["aesthetic", "failure"]).to_pylist()
    assert both[1]["aesthetic"] is None and "no embedding: ValueError: its row has failed" in both[1]["failure"]
    assert both[0]["aesthetic"] == both[2]["aesthetic"] and 0 < both[0]["aesthetic"] < 11
    (kind,) = [kind for kind in kinds_of(store) if kind.stage == "aesthetic"]
    store.remove(store.path(feature_part(part, kind.fingerprint).path))
    shutil.rmtree(tmp_path / "images")
    assert computed(store, [part], profile).succeeded == {"aesthetic": 2}
    assert FeatureReader(store).read(part, "aesthetic", ["aesthetic", "failure"]).to_pylist() == both
    made = Snapshots(store).create("liked", [part], Selection(where=f"aesthetic >= {both[0]['aesthetic'] - 0.01}"))
    assert made.rows().column("row").to_pylist() == [0, 2]


def test_what_reads_embeddings_has_them_computed(store: Store, tmp_path: Path) -> None:
    clip = openai_clip(tmp_path / "clip")
    profile = with_clip(clip)
    (part,) = plant(store, tmp_path, [saved(photograph())], profile)
    run = FeatureRun(store, profile, ["aesthetic"], MAX_PIXELS)
    assert run.run(run.missing([part])).parts == {"embedding": 1, "aesthetic": 1}


def test_missing_weights_name_their_profile(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRATA_MODELS", str(tmp_path / "models"))
    run = FeatureRun(store, load_profile("paper", PROFILES), ["aesthetic"], MAX_PIXELS)
    with pytest.raises(WeightsMissing, match="`strata models fetch paper`"):
        run.run(run.missing(plant(store, tmp_path, [saved(photograph())])))


def test_images_without_values_keep_their_neighbours(store: Store, tmp_path: Path) -> None:
    profile = with_stages("sharpness", "text_embedding")
    records = [described("a"), described("b"), described("c", status=Status.FAILED), described("d")]
    records[3] = records[3].model_copy(update={"description": None, "caption": None})
    images = [saved(photograph()), b"no image", b"not even looked at", saved(photograph())]
    (part,) = plant(store, tmp_path, images, profile, records)
    totals = computed(store, [part], profile)
    assert totals.succeeded == {"sharpness": 2, "text_embedding": 3}
    assert totals.failed == {"sharpness": 2, "text_embedding": 1}
    rows = FeatureReader(store).read(part, "sharpness", part_schema("sharpness").names).to_pylist()
    assert [row["key"] for row in rows] == ["a", "b", "c", "d"]
    assert [row["sharpness"] is None for row in rows] == [False, True, True, False]
    assert "ImageError" in rows[1]["failure"] and "row has failed" in rows[2]["failure"]
    # a row without a value does not pass a filter
    made = Snapshots(store).create("known", [part], Selection(where="sharpness >= 0"))
    assert made.rows().column("row").to_pylist() == [0, 3]


def test_a_file_that_is_away_is_no_image_of_fault(store: Store, tmp_path: Path) -> None:
    profile = with_stages("sharpness")
    parts = plant(store, tmp_path, [saved(photograph())] * 3, profile)
    (tmp_path / "images").rename(tmp_path / "away")
    totals = computed(store, parts, profile)
    assert not totals.parts and len(totals.unread) == 1 and "no image can be read" in totals.unread[0]
    (tmp_path / "away").rename(tmp_path / "images")
    assert computed(store, parts, profile).succeeded == {"sharpness": 3}


def test_a_failed_row_does_not_hide_that_the_file_is_away(store: Store, tmp_path: Path) -> None:
    profile = with_stages("sharpness")
    records = [described(name, status=Status.FAILED if name == "a" else Status.SUCCEEDED) for name in "abc"]
    parts = plant(store, tmp_path, [saved(photograph())] * 3, profile, records)
    shutil.rmtree(tmp_path / "images")
    totals = computed(store, parts, profile)
    assert not totals.parts and len(totals.unread) == 1


def test_an_image_that_cannot_be_read_now_waits(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = with_stages("sharpness")
    parts = plant(store, tmp_path, [saved(photograph())] * 3, profile)

    def read(self: ImageReader, rows: Sequence[Any]) -> list[bytes | Exception]:
        return [*(Path(row.uri).read_bytes() for row in rows[1:]), OSError(errno.EIO, "the disk is sick")]

    with monkeypatch.context() as patched:
        patched.setattr(ImageReader, "read", read)
        totals = computed(store, parts, profile)
    assert not totals.parts and "cannot be read now" in totals.unread[0] and "the disk is sick" in totals.unread[0]
    assert computed(store, parts, profile).succeeded == {"sharpness": 3}


def test_a_tar_that_has_changed_gives_no_values_of_other_pictures(store: Store, tmp_path: Path) -> None:
    profile = with_stages("sharpness")
    keep_profile(store, profile)
    path = tmp_path / "a.tar"
    write_shard(path, [saved(photograph()), saved(photograph(NAMES[1]))])
    index = index_shard(str(path))
    records = [
        described(row.key).model_copy(update={"image": ImageReference(uri=row.uri, offset=row.offset, size=row.size)})
        for row in index.rows
    ]
    chunk = Chunk("llm", profile.name, profile.fingerprint("llm"), str(path), index.identity, 0, len(records))
    store.write_records(chunk, records)
    # two pictures have changed places: of the same sizes at the same offsets
    first, second = (path.read_bytes()[row.offset :][: row.size] for row in index.rows)
    size = max(len(first), len(second))
    write_shard(path, [second.ljust(size), first.ljust(size)])
    totals = computed(store, [Part.of_chunk(chunk)], profile)
    assert not totals.parts and "has changed since it was indexed" in totals.unread[0]
    write_shard(path, [first, second])
    assert computed(store, [Part.of_chunk(chunk)], profile).succeeded == {"sharpness": 2}


def test_a_retried_chunk_is_computed_again(store: Store, tmp_path: Path) -> None:
    profile = with_stages("sharpness")
    first = plant(store, tmp_path, [saved(photograph())], profile)
    computed(store, first, profile)
    again = plant(store, tmp_path, [saved(photograph())], profile, attempt=1)
    assert computed(store, again, profile).parts == {"sharpness": 1}
    # who reads the first attempt's rows finds those of the newer one
    assert all(FeatureReader(store).read(part, "sharpness", ["sharpness"]).num_rows == 1 for part in first + again)


def test_a_run_that_dies_is_gone_on_with(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = with_stages("sharpness", "hash")
    parts = plant(store, tmp_path, [saved(photograph())] * 20, profile)
    write = store.write_part
    written: list[Any] = []

    def dies(*arguments: Any) -> None:
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(arguments)
        write(*arguments)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(store, "write_part", dies)
        computed(store, parts, profile)
    missing = FeatureRun(store, profile, (), MAX_PIXELS).missing(parts)
    assert [(part.number, len(kinds)) for part, kinds in missing] == [(1, 1)]
    assert sum(computed(store, parts, profile).parts.values()) == 1


def test_a_store_that_cannot_be_written_is_one_line(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STRATA_STORE", store.uri)
    plant(store, tmp_path, [saved(photograph())])

    def put(self: Store, path: str, data: bytes, private: bool = False) -> None:
        raise OSError(errno.EROFS, "Read-only file system", path)

    monkeypatch.setattr(Store, "put", put)
    assert code_of("features", "demo", "--stage", "sharpness") == exits.USAGE
    assert "Read-only file system" in capsys.readouterr().err.splitlines()[-1]


def test_what_was_not_computed_is_said(store: Store, tmp_path: Path) -> None:
    parts = plant(store, tmp_path, [saved(photograph())])
    with pytest.raises(MissingFeatures, match="strata features"):
        read_rows(store, [parts[0].path], ["sharpness"])
    with pytest.raises(InvalidInput, match="no stage 'aesthetic'"):
        FeatureRun(store, PROFILE, ["aesthetic"], MAX_PIXELS)
    with pytest.raises(InvalidInput, match="no stage of the group"):
        FeatureRun(store, with_stages(), (), MAX_PIXELS)
    # two ways: the reader must be told which
    profile = with_stages("sharpness")
    computed(store, parts, profile)
    stage = profile.stages["sharpness"].model_copy(update={"parameters": {"side": 64}})
    other = profile.model_copy(update={"stages": profile.stages | {"sharpness": stage}})
    computed(store, parts, other)
    with pytest.raises(MissingFeatures, match="2 ways"):
        read_rows(store, [parts[0].path], ["sharpness"])
    for chosen in (profile, other):
        found = read_rows(store, [parts[0].path], ["sharpness"], ways=chosen.feature_ways())
        assert found.ways == {"sharpness": chosen.feature_ways()["sharpness"]}


def test_features_live_as_long_as_their_rows(store: Store, tmp_path: Path) -> None:
    profile = with_stages("sharpness")
    parts = plant(store, tmp_path, [saved(photograph())] * 20, profile)
    computed(store, parts, profile)
    beside = {path for path in store.find("parts") if "/features/" in path}
    assert len(beside) == 2 and beside < set(Cleaning(store).unreferenced())
    Snapshots(store).create("pinned", parts[:1], Selection())
    assert len(beside & set(Cleaning(store).unreferenced())) == 1


def test_the_command(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STRATA_STORE", store.uri)
    plant(store, tmp_path, [saved(photograph())] * 20)
    asked = ("features", "demo", "--stage", "sharpness")
    assert code_of(*asked, "--share", "2/2", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "parts": {"sharpness": 1},
        "succeeded": {"sharpness": 4},
        "failed": {"sharpness": 0},
        "unread": [],
        "gone": 0,
        "there": 0,
    }
    assert code_of(*asked) == 0
    assert capsys.readouterr().out == "sharpness: 1 part with 16 rows, 0 without\n1 part had all before\n"
    # what cannot be is one line
    for more in (["--share", "3/2"], ["--share", "x"], ["--stage", "aesthetic"], ["--profile", "none"]):
        assert code_of("features", "demo", *more) != 0
        assert len(capsys.readouterr().err.splitlines()) == 1
    shutil.rmtree(tmp_path / "images")
    assert code_of("features", "demo", "--stage", "hash") == exits.FAILURE
    shown = capsys.readouterr()
    lines = shown.err.splitlines()
    assert [line for line in lines if "no image can be read: FileNotFoundError: no such file" in line] and len(
        lines
    ) > 2
    assert "2 parts could not be computed: see the reasons above" in lines[-1]


def test_the_command_tells_its_progress_where_there_is_no_terminal(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STRATA_STORE", store.uri)
    plant(store, tmp_path, [saved(photograph())] * 20)
    assert code_of("features", "demo", "--stage", "sharpness") == 0
    assert capsys.readouterr().err == "strata: parts with features: 1 of 2\n"  # and one every ten seconds


def test_faces_are_found_and_blurred_in_what_is_exported(store: Store, tmp_path: Path) -> None:
    profile = with_stages("faces")
    whole = photograph("astronaut.jpg", (512, 512))
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side
    whole.transpose(Image.Transpose.ROTATE_90).save(turned, "JPEG", quality=95, exif=exif)
    images = [saved(whole, 95), turned.getvalue(), saved(photograph(), 95), b"no image"]
    (part,) = plant(store, tmp_path, images, profile)
    computed(store, [part], profile)
    rows = FeatureReader(store).read(part, "faces", ["faces", "face_boxes.list.element"]).to_pylist()
    assert [row["faces"] for row in rows] == [1, 1, 0, None]
    x1, y1, x2, y2 = rows[0]["face_boxes"]
    assert 0.3 < x1 < 0.4 < 0.5 < x2 < 0.6 and 0.05 < y1 < 0.2 < 0.3 < y2 < 0.5  # where the face is, as one sees
    assert rows[1]["face_boxes"] == pytest.approx(rows[0]["face_boxes"], abs=0.03)
    made = Snapshots(store).create("all", [part], Selection())
    out, plain = tmp_path / "blurred", tmp_path / "plain"
    request = Request("webdataset", LAYERS["description"], blur_faces=True, skip_broken=True)
    samples = export(store, made, request, out)
    # an image in which nobody could look for faces is left out, and not written as it is
    assert (samples.count, samples.broken) == (3, 1)
    assert export(store, made, dataclasses.replace(request, blur_faces=False), plain).count == 3
    blurred, before = images_in(out), images_in(plain)
    face = tuple(round(512 * side) for side in (x1, y1, x2, y2))
    for row in (0, 1):
        assert blurred[row].size == before[row].size == (512, 512)
        assert edges(blurred[row].crop(face)) < edges(before[row].crop(face)) / 3
        beside = (0, 300, 512, 512)
        assert difference(blurred[row].crop(beside), before[row].crop(beside)) < 2
    # where there is no face, the pixels stay
    assert blurred[2].tobytes() == before[2].tobytes()
    assert json.loads((out / PROVENANCE).read_text(encoding="utf-8"))["request"]["blur_faces"] is True
    # and so does the file of rows that were never asked about
    with pytest.raises(MissingFeatures, match="'faces'"):
        (other,) = plant(store, tmp_path, [saved(whole)], profile, attempt=2)
        export(store, Snapshots(store).create("other", [other], Selection()), request, tmp_path / "other")


def images_in(folder: Path) -> list[Image.Image]:
    with tarfile.open(next(folder.glob("*.tar"))) as tar:
        members = sorted((member for member in tar.getmembers() if member.name.endswith("jpg")), key=lambda m: m.name)
        return [Image.open(io.BytesIO(tar.extractfile(member).read())).convert("RGB") for member in members]  # type: ignore[union-attr]


def edges(image: Image.Image) -> float:
    return float(np.abs(np.diff(np.asarray(image.convert("L"), np.float64))).mean())


def difference(one: Image.Image, other: Image.Image) -> float:
    return float(np.abs(np.asarray(one, np.float64) - np.asarray(other, np.float64)).mean())
