"""How pictures are compared, which row of a cluster stays, and benchmarks that are kept out of training."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageEnhance

from strata.cli import exits
from strata.core.records import Description, Sentence
from strata.data.picture_hashes import PictureHasher, hash_pictures, picture_files
from strata.images.hashes import THUMBNAIL_BYTES, thumbnail_of
from strata.snapshots import Cleaning, OwnFiles, Selection, Snapshots
from strata.snapshots.duplicates import pictures as pictures_module
from strata.snapshots.duplicates import vectors as vectors_module
from strata.snapshots.duplicates.alignment import LEAST_LIKENESS, likeness
from strata.snapshots.duplicates.arrays import RowArray
from strata.snapshots.duplicates.benchmarks import read_benchmarks, write_benchmarks
from strata.snapshots.duplicates.clusters import kept_of
from strata.snapshots.duplicates.pictures import PictureHashes, SameError, found_in, same_pictures
from strata.snapshots.duplicates.thumbnails import planes_of
from strata.snapshots.duplicates.vectors import alike_vectors
from strata.snapshots.selection import SelectionError
from strata.store.feature_parts import MissingFeatures
from strata.store.part_paths import Part
from strata.store.store import Store
from tests.cli.test_cli import code_of
from tests.described import described
from tests.planted import NAMES, PROFILE, photograph, plant, saved, with_stages
from workers.features import FeatureRun, embed_pictures

MIRRORED = Image.Transpose.FLIP_LEFT_RIGHT
ONE, OTHER = map(photograph, NAMES)
# a scene, its pixels in another file, its copy of less quality, its mirror image, and another scene
IMAGES = [saved(ONE, form="PNG"), saved(ONE, form="BMP"), saved(ONE, 40), saved(ONE.transpose(MIRRORED)), saved(OTHER)]
LEFT = {"bytes": [0, 1, 2, 3, 4], "pixels": [0, 2, 3, 4], "near": [0, 3, 4], "mirrored": [0, 4]}


def chosen(store: Store, cache: Path, parts: list[Part], **values: object) -> list[int]:
    selection = Selection.model_validate({"unique": True, **values})
    hasher = PictureHasher(store, selection.same or "near", cache)
    name = f"s{len(Snapshots(store).names())}"
    made = Snapshots(store).create(name, parts, selection, pictures=hasher.hashes)
    return [int(row) for row in made.rows().column("row").to_pylist()]


@pytest.mark.parametrize("computed", [False, True])
def test_each_level_finds_what_the_one_before_finds(store: Store, tmp_path: Path, computed: bool) -> None:
    parts = plant(store, tmp_path, IMAGES)
    if computed:
        run = FeatureRun(store, with_stages("hash", "embedding"), (), 10**7)
        run.run(run.missing(parts))
        # what the stage has computed is not computed again: the images may be gone
        shutil.rmtree(tmp_path / "images")
    for same, left in LEFT.items():
        if not computed or same != "bytes":
            assert chosen(store, tmp_path / "cache", parts, same=same) == left
    if computed:
        assert chosen(store, tmp_path / "cache", parts, same="embedding", alike=0.9999) == LEFT["mirrored"]
        assert chosen(store, tmp_path / "cache", parts, same="embedding", alike=0.01)[:1] == [0]
        made = Snapshots(store).open("s3")
        assert made.manifest.selection.ways == {"embedding": PROFILE.feature_ways()["embedding"]}
    else:
        with pytest.raises(MissingFeatures, match="embedding"):
            chosen(store, tmp_path / "cache", parts, same="embedding", alike=0.9)


def test_which_row_stays_is_a_rule(store: Store, tmp_path: Path) -> None:
    records = [described("small"), described("best", ["car"]), described("large"), described("alone")]
    told = Description(text="One.", sentences=[Sentence(text="One.", evidence=["caption"])])
    records[1] = records[1].model_copy(update={"description": told})
    records[2] = records[2].model_copy(update={"width": 640, "height": 480})
    images = [saved(ONE, 80), saved(ONE, 70), saved(ONE, 90), saved(OTHER)]
    parts = plant(store, tmp_path, images, records=records)
    assert [chosen(store, tmp_path, parts, same="near", keep=keep) for keep in ("first", "largest", "best")] == [
        [0, 3],
        [2, 3],
        [1, 3],
    ]
    snapshot = Snapshots(store).open("s1")
    clusters = snapshot.with_keys(snapshot.clusters()).to_pylist()
    assert [(row["key"], row["cluster"], row["kept"]) for row in clusters] == [
        ("small", 0, False),
        ("best", 0, False),
        ("large", 0, True),
    ]
    # the file of clusters lives as long as its snapshot
    assert not [path for path in Cleaning(store).unreferenced() if "clusters" in path]
    for option in ({"keep": "largest"}, {"same": "near"}, {"unique": True, "same": "embedding"}, {"alike": 0.5}):
        with pytest.raises(ValueError, match=r"only|embeddings"):
            Selection.model_validate(option)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=20), st.data())
def test_one_row_of_each_group_stays(numbers: list[int], data: st.DataObject) -> None:
    groups = np.array([numbers.index(number) for number in numbers])
    worth = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(groups), max_size=len(groups))), float)
    kept = kept_of(groups, worth)
    assert sorted(groups[kept]) == sorted(set(groups.tolist())) and list(kept) == sorted(kept)
    for row in kept:
        inside = np.flatnonzero(groups == groups[row])
        assert worth[row] == worth[inside].max() and row == inside[worth[inside] == worth[row]][0]
    assert kept_of(groups, None).tolist() == sorted(set(groups.tolist()))


def unit(rows: int, seed: int = 0) -> np.typing.NDArray[np.float16]:
    found = np.random.default_rng(seed).standard_normal((rows, 32))
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float16)


Array = np.typing.NDArray[Any]


def near(queries: Array, database: Array | None, least: float, most: int = 16) -> set[tuple[int, int]]:
    """The pairs of vectors that are near each other; those of one table once."""
    found = alike_vectors(RowArray(queries), None if database is None else RowArray(database), least, most)
    pairs = {pair for ones, others in found for pair in zip(ones.tolist(), others.tolist(), strict=True)}
    return {(min(pair), max(pair)) for pair in pairs} if database is None else pairs


def test_many_vectors_are_compared_as_few_are(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = unit(3000)
    vectors[[7, 70, 700, 2999]] = vectors[[1, 2, 3, 4]]
    vectors[5] = 0  # an image without one
    few = near(vectors, None, 0.98)
    assert few == {(1, 7), (2, 70), (3, 700), (4, 2999)}
    others = np.concatenate([unit(50, 1), vectors[:3]])
    asked = near(others, vectors, 0.98)
    assert asked == {(50, 0), (51, 1), (51, 7), (52, 2), (52, 70)}
    monkeypatch.setattr(vectors_module, "FEW", 100)
    assert near(vectors, None, 0.98) == few
    assert near(others, vectors, 0.98) == asked
    assert near(vectors[:0], None, 0.9) == near(vectors, vectors[:0], 0.9) == set()


@pytest.mark.parametrize("few", [1, 10_000])
def test_the_nearest_vectors_are_kept(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors_module, "FEW", few)
    monkeypatch.setattr(vectors_module, "PROBES", 100)  # all lists
    monkeypatch.setattr(vectors_module, "AT_ONCE", 700)
    queries, database = unit(30, 3), unit(200, 4)
    cosines = queries.astype(np.float32) @ database.astype(np.float32).T
    least = float(np.quantile(cosines, 0.9))
    wanted = {
        (row, int(column))
        for row in range(30)
        for column in np.argsort(-cosines[row])[:5]
        if cosines[row, column] >= least
    }
    assert near(queries, database, least, 5) == wanted


def test_pictures_of_a_list_may_be_there_twice() -> None:
    none = np.zeros((6, 16), np.uint16)
    listed = PictureHashes([*"aabcde"], none, np.zeros(6, np.int64))
    rows = PictureHashes([*"xeda"], none[:4], np.zeros(4, np.int64))
    assert found_in(rows, listed, "bytes").tolist() == [-1, 5, 4, 0]


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(2, 40))
def test_pictures_of_a_list_are_found_as_in_one_table(seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    base = random.integers(0, 2**16, (count, 16), np.uint16)
    base[1::2] = base[0::2][: len(base[1::2])]  # pairs of equal hashes, one of which loses some bits
    for row in range(1, count, 2):
        for bit in random.permutation(256)[: random.integers(0, 45)]:
            base[row, bit // 16] ^= np.uint16(1 << (bit % 16))
    pixels = [bytes([number]) * 32 for number in range(count)]
    hashes = PictureHashes([str(n) for n in range(count)], base, np.full(count, 100), 0, pixels, base[:, ::-1].copy())
    half = count // 2
    rows, listed = hashes.take(np.arange(half)), hashes.take(np.arange(half, count))
    for most in (31, 40):
        found = found_in(rows, listed, "near", bits=most)
        for row in range(half):
            bits = np.bitwise_count(rows.pdq[row] ^ listed.pdq).sum(axis=1)
            near = np.flatnonzero(bits <= most)
            assert found[row] == (near[0] if len(near) else -1)


def test_many_hashes_are_compared_as_few_are(monkeypatch: pytest.MonkeyPatch) -> None:
    pdq = np.random.default_rng(2).integers(0, 2**16, (500, 16), np.uint16)
    pdq[[10, 400]] = pdq[[3, 4]] ^ np.uint16(7)  # 48 bits
    hashes = PictureHashes([str(number) for number in range(500)], pdq, np.full(500, 100))
    few = same_pictures(hashes, "near", bits=48)
    assert (few[10], few[400]) == (3, 4) and len(set(few.tolist())) == 498
    assert len(set(same_pictures(hashes, "near", bits=47).tolist())) == 500
    monkeypatch.setattr(pictures_module, "ALL", 100)
    assert same_pictures(hashes, "near", bits=48).tolist() == few.tolist()


def test_copies_without_an_edge_or_with_other_colours_are_found(store: Store, tmp_path: Path) -> None:
    sides = [(0, 0, 304, 228), (16, 12, 320, 240), (8, 6, 312, 234)]
    changed = [saved(ONE.crop(side)) for side in sides]
    changed += [saved(recoloured(ONE, factor)) for factor in (0.7, 1.3)]
    changed.append(saved(recoloured(ONE.crop(sides[1]), 0.8).transpose(MIRRORED)))
    images = [saved(ONE), *changed, saved(OTHER)]
    parts = plant(store, tmp_path, images)
    assert chosen(store, tmp_path, parts, same="cropped") == [0, len(images) - 1]
    assert len(chosen(store, tmp_path, parts, same="mirrored")) > 2
    # whichever comes first
    again = plant(store, tmp_path, images[::-1])
    assert chosen(store, tmp_path / "other", again, same="cropped") == [0, 1]


def recoloured(image: Image.Image, factor: float) -> Image.Image:
    """With a hue that is turned by 14 degrees, and other saturation, brightness and contrast."""
    hue, *others = image.convert("HSV").split()
    image = Image.merge("HSV", (hue.point(lambda at: (at + 10) % 256), *others)).convert("RGB")
    for enhance in (ImageEnhance.Color, ImageEnhance.Brightness, ImageEnhance.Contrast):
        image = enhance(image).enhance(factor)
    return image


def thumbnails(*images: Image.Image) -> Array:
    return planes_of(np.stack([np.frombuffer(thumbnail_of(image), np.uint8) for image in images]))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.tuples(*[st.integers(0, 11)] * 4), st.floats(0.67, 1.33))
def test_a_copy_is_like_its_original_and_no_other(seed: int, cut: tuple[int, int, int, int], factor: float) -> None:
    random = np.random.default_rng(seed)
    image, other = (
        Image.fromarray(random.integers(40, 200, (9, 9, 3), np.uint8)).resize((224, 224), Image.Resampling.BICUBIC)
        for _ in range(2)
    )
    # up to 5 % of width and height are cut off
    left, top, right, bottom = cut[0], cut[1], 224 - cut[2] * (11 - cut[0]) // 11, 224 - cut[3] * (11 - cut[1]) // 11
    copy = recoloured(image.crop((left, top, right, bottom)), factor)
    ones, others = thumbnails(image, copy), thumbnails(copy, image)
    assert likeness(ones, others).min() >= LEAST_LIKENESS
    assert likeness(ones, thumbnails(other, other)).max() < LEAST_LIKENESS - 0.3
    assert likeness(ones[:0], others[:0]).tolist() == []


def page(seed: int) -> Image.Image:
    """A page of text: paragraphs of words in one column."""
    random = np.random.default_rng(seed)
    found = Image.new("RGB", (600, 800), "white")
    draw, top = ImageDraw.Draw(found), 60
    while top < 720:
        lines = int(random.integers(1, 9))
        for line in range(lines):
            left, end = 60, 540 if line + 1 < lines else int(random.integers(120, 540))
            while left < end and top < 740:
                width = int(random.integers(8, 60))
                draw.rectangle((left, top, min(left + width, 540), top + 5), fill="black")
                left += width + 6
            top += 14
        top += 10
    return found


def sky(angle: float, cloud: int) -> Image.Image:
    """A slope of brightness, with a faint cloud somewhere."""
    across, down = np.meshgrid(np.linspace(-1, 1, 200), np.linspace(-1, 1, 200))
    light = 128 + 60 * (across * np.cos(angle) + down * np.sin(angle))
    light[cloud : cloud + 40, cloud : cloud + 60] += 3
    return Image.fromarray(light.clip(0, 255).astype(np.uint8)).convert("RGB")


@pytest.mark.parametrize(
    "images", [[page(seed) for seed in range(3)], [sky(0, 20), sky(1, 100), sky(2, 60)]], ids=["pages", "skies"]
)
def test_pictures_of_one_make_are_not_one(images: list[Image.Image], store: Store, tmp_path: Path) -> None:
    parts = plant(store, tmp_path, [saved(image) for image in images])
    assert chosen(store, tmp_path, parts, same="cropped") == [0, 1, 2]


def test_what_is_not_there_cannot_be_compared() -> None:
    hashes = PictureHashes(["a", "b"], np.zeros((2, 16), np.uint16), np.zeros(2, np.int64))
    with pytest.raises(SameError, match="pixels"):
        same_pictures(hashes, "pixels")
    full = PictureHashes(["a", "b"], hashes.pdq, hashes.quality, 0, [b"", b""])
    with pytest.raises(SameError, match="mirror"):
        same_pictures(full, "mirrored")
    mirrored = PictureHashes(["a", "b"], hashes.pdq, hashes.quality, 0, [b"", b""], hashes.pdq)
    with pytest.raises(SameError, match="thumbnails"):
        same_pictures(mirrored, "cropped")
    whole = dataclasses.replace(mirrored, thumbnails=RowArray(np.zeros((2, THUMBNAIL_BYTES), np.uint8)))
    assert same_pictures(whole, "cropped").tolist() == [0, 1]
    with pytest.raises(SameError, match="embeddings"):
        same_pictures(whole, "embedding", 0.9)


@pytest.fixture
def benchmark(tmp_path: Path) -> Path:
    """A folder with pictures of a benchmark: a mirror image of one in the store, another, and a file that is none."""
    folder = tmp_path / "benchmark" / "images"
    folder.mkdir(parents=True)
    (folder / "a.jpg").write_bytes(saved(ONE.transpose(MIRRORED), 60))
    (folder / "b.png").write_bytes(saved(photograph(NAMES[1], (64, 48)).rotate(90), form="PNG"))
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "labels.txt").write_text("a cup", encoding="utf-8")
    return folder.parent


def test_benchmarks_are_left_out(
    store: Store, benchmark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STRATA_STORE", store.uri)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    plant(store, tmp_path, IMAGES)
    file = tmp_path / "bench.parquet"
    assert code_of("snapshot", "hashes", str(benchmark), "--out", str(file)) == 0
    shown = capsys.readouterr()
    assert "2 pictures, 1 that cannot be read" in shown.out and "broken.jpg" in shown.err
    common = ("snapshot", "create", "--from", "demo", "--without", str(file), "--json")
    assert code_of(*common, "near") == code_of(*common, "all", "--same", "mirrored", "--unique") == 0
    near, mirrored = map(json.loads, capsys.readouterr().out.splitlines())
    assert near["counts"]["left_out"] == {"benchmark": 1} and near["counts"]["selected"] == 4
    assert mirrored["counts"]["left_out"] == {"benchmark": 4} and mirrored["counts"]["selected"] == 1
    # the selection says which file it was, and needs one to be repeated
    assert mirrored["selection"]["files"][0][0] == "without"
    like = ("snapshot", "create", "again", "--from", "demo", "--like", "all")
    assert code_of(*like) == exits.USAGE and "--without" in capsys.readouterr().err
    assert code_of(*like, "--without", str(file), "--json") == 0
    assert json.loads(capsys.readouterr().out)["id"] == mirrored["id"]


def test_pictures_below_a_folder_are_those_that_are_not_hidden(tmp_path: Path) -> None:
    for name in ("b.jpg", "a/c.PNG", "__MACOSX/._b.jpg", ".git/d.jpg", "note.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "link.jpg").symlink_to("b.jpg")
    (tmp_path / "loop").symlink_to(".")
    found = picture_files([tmp_path, tmp_path / "note.txt"])
    assert [str(path.relative_to(tmp_path)) for path in found] == ["a/c.PNG", "b.jpg", "link.jpg", "note.txt"]


def test_embeddings_of_benchmarks_are_those_of_the_rows_profile(store: Store, benchmark: Path, tmp_path: Path) -> None:
    parts = plant(store, tmp_path, IMAGES)
    profile = with_stages("embedding")
    run = FeatureRun(store, profile, (), 10**7)
    run.run(run.missing(parts))
    found, refused = hash_pictures(sorted((benchmark / "images").glob("*.*g")))
    assert len(refused) == 1
    embedded = embed_pictures(found, profile, 10**7)
    file = tmp_path / "bench.parquet"
    write_benchmarks(file, embedded)
    again = read_benchmarks(file, file.read_bytes())
    assert again.names == embedded.names and again.way == profile.feature_ways()["embedding"]
    assert again.hashes.vectors is not None and embedded.hashes.vectors is not None
    assert np.array_equal(again.hashes.vectors[:], embedded.hashes.vectors[:])
    assert again.hashes.thumbnails is not None and found.hashes.thumbnails is not None
    assert np.array_equal(again.hashes.thumbnails[:], found.hashes.thumbnails[:])
    assert np.array_equal(again.hashes.pdq, found.hashes.pdq) and again.hashes.pixels == found.hashes.pixels
    hasher = PictureHasher(store, "embedding", tmp_path / "cache")
    selection = Selection.model_validate({"same": "embedding", "alike": 0.999, "files": (("without", "0" * 64),)})
    own = OwnFiles(sha256s=(("without", "0" * 64),), benchmarks=again)
    made = Snapshots(store).create("fit", parts, selection, own=own, pictures=hasher.hashes)
    assert made.manifest.counts.left_out["benchmark"] >= 4
    other = OwnFiles(sha256s=(("without", "0" * 64),), benchmarks=found)
    with pytest.raises(SelectionError, match="not those of the rows' profile"):
        Snapshots(store).create("other", parts, selection, own=other, pictures=hasher.hashes)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"name,sha256\na,b\n"])
def test_a_file_that_is_none_is_refused(
    content: bytes, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STRATA_STORE", store.uri)
    plant(store, tmp_path, IMAGES[:1])
    (tmp_path / "bad.parquet").write_bytes(content)
    given = ("snapshot", "create", "x", "--from", "demo", "--without", str(tmp_path / "bad.parquet"))
    assert code_of(*given) == exits.USAGE and len(capsys.readouterr().err.splitlines()) == 1
    assert code_of("snapshot", "hashes", str(tmp_path / "none"), "--out", "x.parquet") == exits.USAGE
    assert code_of("snapshot", "hashes", str(tmp_path), "--out", "no/x.parquet") == exits.USAGE
    assert len(capsys.readouterr().err.splitlines()) == 2
