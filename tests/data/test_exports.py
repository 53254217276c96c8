"""Exports, each read back with the code of the tool that uses the format."""

from __future__ import annotations

import errno
import io
import itertools
import json
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas
import pyarrow.parquet as pq
import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from strata.cli import exits
from strata.cli import main as cli
from strata.core.layers import LAYERS, LayerSpec
from strata.core.records import Record
from strata.data.boxes import MAX_PIXELS
from strata.data.exports import ExportError, Form, Request, export
from strata.data.exports import samples as export_samples
from strata.data.exports.formats import FORMATS
from strata.data.exports.names import Names
from strata.data.mixture_files import Locations, MixtureFile, open_mixture
from strata.data.mixtures import Mixture
from strata.data.reader import SampleReader
from strata.data.sources.files import DatasetSource, conversation_source, webdataset_source
from strata.data.sources.public.files import Files
from strata.data.sources.public.questions import Options
from strata.data.sources.public.source import public_source
from strata.data.sources.samples import SampleError
from strata.errors import plain_line
from strata.images import as_jpeg, decode
from strata.shards import image_reader
from strata.snapshots.snapshot import Snapshot
from strata.store.index_rows import IndexRow
from strata.store.store import Store
from tests.fakes import jpeg, write_shard
from tests.pinned import describe, pin, write_shards

COUNT = 10
FORMS: tuple[Form, ...] = tuple(FORMATS)

Written = Callable[..., Path]


@pytest.fixture
def snapshot(store: Store, tmp_path: Path) -> Snapshot:
    """Ten images in two shards."""
    return pin(store, write_shards(tmp_path / "shards", 2, COUNT // 2))


@pytest.fixture
def written(store: Store, snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Written:
    """Export in one format and layer, with four samples per file, so that there are several files."""
    monkeypatch.setattr(export_samples, "FILE_SAMPLES", 4)

    def write(form: Form, layer: LayerSpec = LAYERS["description"]) -> Path:
        out = tmp_path / "out" / form
        items = export(store, snapshot, Request(form, layer, "What is it?"), out)
        assert (items.count, items.skipped) == (COUNT, 0)
        return out

    return write


def keys() -> list[str]:
    """The keys of the ten images."""
    return [f"{number:09d}" for number in range(COUNT)]


def is_image_of(key: str, image: Image.Image) -> bool:
    """Whether an image belongs to a key, by its width."""
    return image.size == (100 + int(key), 50)


def llava_sample(entry: dict[str, Any], folder: Path) -> tuple[str, Image.Image, str]:
    """Read an entry as LLaVA's train.py does, with its checks: the image opens, roles alternate, and
    the conversation has as many image tokens as images."""
    image = Image.open(os.path.join(folder, entry["image"])).convert("RGB")  # noqa: PTH118
    roles = {"human": "USER", "gpt": "ASSISTANT"}
    for index, sentence in enumerate(entry["conversations"]):
        assert roles[sentence["from"]] == ("USER", "ASSISTANT")[index % 2]
    assert sum(sentence["value"].count("<image>") for sentence in entry["conversations"]) == 1
    question, answer = (sentence["value"] for sentence in entry["conversations"])
    assert question == "<image>\nWhat is it?"
    return entry["id"], image, answer


def test_llava(written: Written) -> None:
    out = written("llava")
    samples = [llava_sample(entry, out) for entry in json.loads((out / "train.json").read_text())]
    assert sorted(key for key, _, _ in samples) == keys()
    assert all(is_image_of(key, image) and answer == f"description {key}" for key, image, answer in samples)
    assert sorted(path.name for path in (out / "images").iterdir()) == ["00000", "00001", "00002"]
    loaded = datasets.load_dataset("json", data_files=str(out / "train.json"), split="train")
    assert sorted(loaded["id"]) == keys()


def qwen_elements(text: str) -> list[tuple[str, str]]:
    """Split a text as Qwen-VL's tokenizer does (`to_list_format`)."""
    pattern = re.compile(r"<(img|ref|box|quad)>(.*?)</\1>|((?:(?!<(?:img|ref|box|quad)>).)+)", re.DOTALL)
    return [(tag, inside) if tag else ("text", plain) for tag, inside, plain in pattern.findall(text)]


def test_qwen_vl(written: Written) -> None:
    entries = json.loads((written("qwen-vl") / "train.json").read_text())
    assert sorted(entry["id"] for entry in entries) == keys()
    for entry in entries:
        user, assistant = entry["conversations"]
        assert (user["from"], assistant["from"]) == ("user", "assistant")
        (number, image, question) = qwen_elements(user["value"])
        assert number == ("text", "Picture 1: ") and question == ("text", "\nWhat is it?")
        assert is_image_of(entry["id"], Image.open(image[1]))  # as it stands there
        assert qwen_elements(assistant["value"]) == [("text", f"description {entry['id']}")]


def test_qwen_vl_grounds_phrases(written: Written) -> None:
    for entry in json.loads((written("qwen-vl", LAYERS["regions"]) / "train.json").read_text()):
        elements = qwen_elements(entry["conversations"][1]["value"])
        assert elements[:2] == [("ref", f"thing {entry['id']}"), ("box", qwen_boxes(entry["id"])[0])]
        assert elements[2] == ("text", "; ")
        assert elements[3:] == [("ref", "an edge"), ("box", qwen_boxes(entry["id"])[1])]
        for tag, inside in elements:
            if tag == "box":
                corners = tuple(map(int, inside.replace("(", "").replace(")", "").split(",")))
                assert len(corners) == 4 and all(0 <= value <= 999 for value in corners)


def qwen_boxes(key: str) -> list[str]:
    """The boxes that `describe` gives, in thousandths of the image's width and its height of 50."""
    width = 100 + int(key)
    return [
        f"(0,0),({int(50_000 / width)},500)",
        f"({int(np.float32(99.9) * 1000 / width)},200),({min(999, int(100_000 / width))},999)",
    ]


def test_a_full_disk_is_told_with_the_folder(
    store: Store, snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("strata.data.exports.exporting.write_provenance", full)
    with pytest.raises(OSError) as caught:
        export(store, snapshot, Request("llava", LAYERS["caption"]), tmp_path / "out")
    assert plain_line(caught.value) == f"{tmp_path / 'out'}: No space left on device"
    assert not list(tmp_path.glob("*out*"))


def test_webdataset(written: Written) -> None:
    out = written("webdataset", LAYERS["regions"])
    shards = sorted(map(str, out.glob("*.tar")))
    assert [Path(shard).name for shard in shards] == ["00000.tar", "00001.tar", "00002.tar"]
    samples = list(webdataset.WebDataset(shards, shardshuffle=False).decode("pil"))
    assert sorted(sample["__key__"] for sample in samples) == keys()
    for sample in samples:
        assert is_image_of(sample["__key__"], sample["jpg"])
        assert sample["txt"] == f"thing {sample['__key__']}; an edge"
        assert sample["json"]["key"] == sample["__key__"] and sample["json"]["height"] == 50
        assert sample["json"]["boxes"][0] == {"phrase": f"thing {sample['__key__']}", "box": [0, 0, 50, 25]}
    loaded = datasets.load_dataset("webdataset", data_files=shards, split="train", streaming=True)
    assert all(is_image_of(row["__key__"], row["jpg"]) for row in loaded)


def test_parquet(written: Written) -> None:
    out = written("parquet", LAYERS["regions"])
    frame = pandas.read_parquet(out / "data")
    assert sorted(frame["key"]) == keys() and list(frame["height"]) == [50] * COUNT
    for row in frame.itertuples():
        assert is_image_of(row.key, Image.open(io.BytesIO(row.image["bytes"])))
        assert row.text == f"thing {row.key}; an edge" and list(row.boxes[0]["box"]) == [0, 0, 50, 25]
    assert pq.read_table(out / "data").num_rows == COUNT
    loaded = datasets.load_dataset("parquet", data_files=str(out / "data" / "*.parquet"), split="train")
    assert isinstance(loaded.features["image"], datasets.Image)
    assert all(is_image_of(row["key"], row["image"]) for row in loaded)


def test_a_dataset_on_disk(written: Written) -> None:
    out = written("hf", LAYERS["regions"])
    loaded = datasets.load_from_disk(str(out))
    assert isinstance(loaded.features["image"], datasets.Image)
    assert sorted(loaded["key"]) == keys()
    for row in loaded:
        assert is_image_of(row["key"], row["image"]) and row["boxes"][1]["phrase"] == "an edge"
    assert not list(out.glob(".*"))


# the source of a mixture that reads each export; docs/mixture.md says why there is none for mds
READ_AS: dict[Form, dict[str, str]] = {
    "llava": {"conversations": "llava/train.json"},
    "qwen-vl": {"conversations": "qwen-vl/train.json"},
    "monkey": {"conversations": "monkey/train.json"},
    "llama-factory": {"format": "messages", "file": "llama-factory/train.json"},
    "ms-swift": {"format": "messages", "file": "ms-swift/train.jsonl"},
    "messages": {"format": "messages", "file": "messages"},
    "webdataset": {"webdataset": "webdataset/{00000..00002}.tar", "instruction": "What is it?"},
    "parquet": {"dataset": "parquet", "instruction": "What is it?"},
    "hf": {"dataset": "hf", "instruction": "What is it?"},
}


@pytest.mark.parametrize("form", READ_AS)
def test_what_is_exported_is_a_source_of_a_mixture(written: Written, tmp_path: Path, form: Form) -> None:
    """Every export is read with its questions, answers and images; a second opening finds the same."""
    written(form)
    file = MixtureFile.model_validate({"name": "m", "sources": [{"name": "ours", **READ_AS[form]}]})
    locations = Locations(Store(f"{tmp_path}/store"), f"{tmp_path}/out", tmp_path / "cache")
    mixture = open_mixture(file, locations)
    (share,) = mixture.shares
    assert share.source.missing().lines == [] and share.source.problems() == (0, "")
    # Monkey asks in its own words
    asked = "What is it? Answer:" if form == "monkey" else "What is it?"
    found = {
        (*(turn["content"] for turn in sample.conversation), sample.image.width) for sample in SampleReader(mixture)
    }
    assert found == {(asked, f"description {key}", 100 + int(key)) for key in keys()}
    again = pickle.loads(pickle.dumps(share.source))
    assert again.read([3, 1]) == open_mixture(file, locations).shares[0].source.read([3, 1])
    assert again.identity == share.source.identity


@pytest.mark.parametrize("most", [MAX_PIXELS, 4 * 28**2])
def test_a_snapshot_and_its_export_have_equal_boxes(store: Store, tmp_path: Path, most: int) -> None:
    """Pixels of the image that Qwen2.5-VL's processor makes, which is smaller if it has to be."""
    snapshot = pin(store, [write_shard(tmp_path / "a.tar", [jpeg(100, 50)])])
    source = {"name": "s", "snapshot": "pinned", "layer": "regions", "instruction": "?", "max_pixels": most}
    locations = Locations(store, str(tmp_path), tmp_path / "cache")
    file = MixtureFile.model_validate({"name": "m", "sources": [{**source, "boxes": "qwen2.5"}]})
    (raw,) = open_mixture(file, locations).shares[0].source.read([0])
    request = Request("llava", LAYERS["regions"], boxes="qwen2.5", max_pixels=most)
    export(store, snapshot, request, tmp_path / "out")
    (entry,) = entries_of(tmp_path / "out")
    assert raw.turns == [entry["conversations"][1]["value"]]
    furthest = max(number for region in json.loads(raw.turns[0]) for number in region["bbox_2d"])
    assert furthest == (56 if most < MAX_PIXELS else 112)


def test_every_export_but_mds_is_a_source() -> None:
    assert set(FORMS) - set(READ_AS) == {"mds"}


def test_places_that_only_ms_swift_writes_are_refused(written: Written, tmp_path: Path) -> None:
    out = written("ms-swift", LAYERS["regions"])
    files = Files((f"{out}/train.jsonl",))
    with pytest.raises(SampleError, match=r"<bbox> in its texts stands for a place .*export with --boxes FORM"):
        public_source("messages", files, str(out), Options(), tmp_path / "cache")


def test_what_is_exported_can_be_trained_on(written: Written, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    conversations = [(str(out / "train.json"), str(out), cache) for out in map(written, ("llava", "qwen-vl", "monkey"))]
    read = [
        *(Mixture.of(conversation_source(*files), "What is it?") for files in conversations),
        Mixture.of(webdataset_source(f"{written('webdataset')}/{{00000..00002}}.tar", cache), "What is it?"),
        Mixture.of(DatasetSource(str(written("hf"))), "What is it?"),
    ]
    for mixture in read:
        found = {
            (turns[0]["content"], turns[1]["content"], image.width)
            for image, turns in ((sample.image, sample.conversation) for sample in SampleReader(mixture))
        }
        assert found == {("What is it?", f"description {key}", 100 + int(key)) for key in keys()}


# difficult images and texts


def turned(exif: int, form: str = "JPEG", mode: str = "RGB") -> bytes:
    """An image of 30 by 20, with an EXIF orientation."""
    image, buffer = Image.new(mode, (30, 20)), io.BytesIO()
    note = Image.Exif()
    note[0x0112] = exif
    image.save(buffer, form, exif=note)
    return buffer.getvalue()


def test_images_become_upright_jpegs() -> None:
    for data in (jpeg(), turned(1), turned(1, mode="L")):
        kept, made = as_jpeg(data, 1000, keep_metadata=True)[0], as_jpeg(data, 1000)[0]
        assert kept is data and decode(made, 1000).tobytes() == decode(data, 1000).tobytes()
    for data, size in (
        (turned(6), (20, 30)),
        (turned(1, "PNG"), (30, 20)),
        (turned(8, "WEBP"), (20, 30)),
        (turned(1, mode="CMYK"), (30, 20)),
    ):
        made, told = as_jpeg(data, 1000)
        image = Image.open(io.BytesIO(made))
        assert (image.format, image.mode, image.size, told) == ("JPEG", "RGB", size, size)
        assert image.getexif().get(0x0112) is None and decode(made, 1000).size == size


def test_keys_are_made_fit_for_files(store: Store, tmp_path: Path) -> None:
    names = itertools.cycle(["same", "same", "a.b", "../c"])

    def renamed(row: IndexRow) -> Record:
        return describe(row).model_copy(update={"key": next(names)})

    snapshot = pin(store, write_shards(tmp_path / "shards", 1, 4), describe=renamed)
    export(store, snapshot, Request("webdataset", LAYERS["caption"]), tmp_path / "out")
    found = webdataset.WebDataset(str(tmp_path / "out" / "00000.tar"), shardshuffle=False)
    assert [sample["__key__"] for sample in found] == ["same", "same-2", "a_b", "x___c"]


STRANGE = [
    "k" * 97,
    "漢" * 33,
    "漢" * 200,
    "k" * 200,
    "folder/a.b.c",
    "../../etc/passwd",
    "a\nb\0c",
    "Photo",
    "photo",
    "PHOTO-2",
    "photo",
    "caf\u00e9",
    "cafe\u0301",
    "con",
    "LPT1",
    "--help",
    " ",
    "a:b*c?",
    "漢" * 199 + "x",
    "👩‍👩‍👧" * 25,
]


@pytest.fixture
def strange(store: Store, tmp_path: Path) -> Snapshot:
    """Images with keys that are no names of files."""
    names = itertools.cycle(STRANGE)

    def renamed(row: IndexRow) -> Record:
        return describe(row).model_copy(update={"key": next(names), "width": 100 + int(row.key)})

    return pin(store, write_shards(tmp_path / "shards", 1, len(STRANGE)), describe=renamed)


@pytest.mark.parametrize("form", FORMS)
def test_any_key_can_be_exported_and_read_back(store: Store, strange: Snapshot, tmp_path: Path, form: Form) -> None:
    out = tmp_path / "out"
    assert export(store, strange, Request(form, LAYERS["caption"]), out).count == len(STRANGE)
    table = out / "_names.jsonl"
    renamed = [json.loads(line) for line in table.read_text().splitlines()] if table.exists() else []
    of = {line["file"]: line["key"] for line in renamed}
    pictures = read_back(form, out)
    if form == "webdataset":
        files = [f"00000.tar/{sample['__key__']}.jpg" for sample in webdataset_samples(out)]
        again = datasets.load_dataset("webdataset", data_files=str(out / "00000.tar"), split="train", streaming=True)
        assert [f"00000.tar/{row['__key__']}.jpg" for row in again] == files
    else:
        files = [str(path.relative_to(out)) for path in (out / "images").rglob("*.jpg")]
    keys_of = {file: of.get(file, Path(file).stem) for file in files}
    # each picture has its own key, and each file leads to its key; where case does not count, no file hides another
    assert [key for key, _ in pictures] == STRANGE
    assert [image.size[0] for _, image in pictures] == [100 + number for number in range(len(STRANGE))]
    assert sorted(keys_of.values()) == (sorted(STRANGE) if files else [])
    assert len({file.casefold() for file in files}) == len(files)
    assert all(len(Path(file).name.encode()) <= 204 and "\n" not in file for file in files)


def read_back(form: Form, out: Path) -> list[tuple[str, Image.Image]]:
    """The key and the picture of each sample of an export."""
    if form == "webdataset":
        return [(sample["json"]["key"], sample["jpg"]) for sample in webdataset_samples(out)]
    if form == "mds":
        return [(sample["key"], sample["image"]) for sample in mds_samples(out)]
    if form in ("parquet", "hf", "messages"):
        return [(row["key"], row["image"] if "image" in row else row["images"][0]) for row in table_rows(form, out)]
    return [(entry["id"], Image.open(out / image_of(entry))) for entry in entries_of(out)]


def entries_of(out: Path) -> list[dict[str, Any]]:
    """The entries of an export that has conversations beside a folder of images."""
    if (out / "train.jsonl").exists():
        return [json.loads(line) for line in (out / "train.jsonl").read_text().split("\n") if line]
    return list(json.loads((out / "train.json").read_text()))


def image_of(entry: dict[str, Any]) -> str:
    """The path of an entry's image."""
    if "messages" in entry:
        (image,) = entry["images"]
        return str(image)
    return str(entry.get("image") or dict(qwen_elements(entry["conversations"][0]["value"]))["img"])


def webdataset_samples(out: Path) -> list[dict[str, Any]]:
    shards = sorted(map(str, out.glob("*.tar")))
    return list(webdataset.WebDataset(shards, shardshuffle=False).decode("pil"))


def table_rows(form: Form, out: Path) -> Any:
    if form == "hf":
        return datasets.load_from_disk(str(out))
    return datasets.load_dataset("parquet", data_files=str(out / "data" / "*.parquet"), split="train")


def mds_samples(out: Path) -> list[dict[str, Any]]:
    """Read MDS by its schema (mosaicml/streaming 0.13.0, streaming/base/format/mds/reader.py and encodings.py).

    The package itself allows no numpy of 2.2 and later; docs/exports.md says when it has loaded an export.
    """
    decode: dict[str, Callable[[bytes], Any]] = {
        "str": bytes.decode,
        "int": lambda data: int(np.frombuffer(data, np.int64)[0]),
        "json": json.loads,
        "jpeg": lambda data: Image.open(io.BytesIO(data)),
    }
    index = json.loads((out / "index.json").read_text())
    assert index["version"] == 2
    samples = []
    for shard in index["shards"]:
        assert (shard["version"], shard["format"], shard["compression"], shard["zip_data"]) == (2, "mds", None, None)
        data = (out / shard["raw_data"]["basename"]).read_bytes()
        assert len(data) == shard["raw_data"]["bytes"] and np.frombuffer(data[:4], np.uint32)[0] == shard["samples"]
        ends = np.frombuffer(data, np.uint32, shard["samples"] + 1, 4).tolist()
        for first, last in itertools.pairwise(ends):
            sample = data[first:last]
            free = [size is None for size in shard["column_sizes"]]
            lengths = iter(np.frombuffer(sample, np.uint32, sum(free)).tolist())
            start, found = 4 * sum(free), {}
            columns = zip(shard["column_names"], shard["column_encodings"], shard["column_sizes"], strict=True)
            for name, encoding, size in columns:
                length = next(lengths) if size is None else size
                found[name] = decode[encoding](sample[start : start + length])
                start += length
            assert start == len(sample)
            samples.append(found)
    return samples


def test_ordinary_keys_need_no_table(written: Written) -> None:
    assert not (written("llava") / "_names.jsonl").exists() and not (written("webdataset") / "_names.jsonl").exists()


@given(keys=st.lists(st.text(max_size=250) | st.sampled_from(STRANGE), max_size=30))
def test_names_are_valid_and_distinct(keys: list[str]) -> None:
    names = Names()
    found = [names.of(key) for key in keys]
    assert len({name.casefold() for name in found}) == len(keys)
    for name in found:
        assert 0 < len(name.encode()) <= 200 and name.isprintable() and not set(name) & set('./\\<>:"|?*')


def test_rows_without_text_are_left_out(store: Store, tmp_path: Path) -> None:
    def some(row: IndexRow) -> Record:
        return describe(row).model_copy(update={"alt_text": "text" if int(row.key) % 2 else None})

    snapshot = pin(store, write_shards(tmp_path / "shards", 1, 5), describe=some)
    items = export(store, snapshot, Request("parquet", LAYERS["alt_text"]), tmp_path / "out")
    assert (items.count, items.skipped) == (2, 3)


# broken images


@pytest.fixture
def damaged(store: Store, tmp_path: Path) -> Snapshot:
    """Ten images in a folder, of which one is gone, one is empty, one is a text and one is cut off."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for number in range(COUNT):
        (folder / f"{number:09d}.jpg").write_bytes(jpeg(100 + number, 50))
    whole = jpeg(104, 50)
    (folder / "000000004.jpg").write_bytes(whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2))
    (folder / "000000005.jpg").write_bytes(b"no image" * 90)
    snapshot = pin(store, [str(folder)])
    (folder / "000000002.jpg").unlink()
    (folder / "000000007.jpg").write_bytes(b"")
    return snapshot


@pytest.mark.parametrize("form", FORMS)
def test_broken_images_are_named_or_left_out(
    store: Store, damaged: Snapshot, tmp_path: Path, form: Form, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    common = ["pinned", "--format", form, "--layer", "caption", "--store", store.uri, "--out", str(out)]
    assert run(*common) == exits.REQUEST_REFUSED
    told = capsys.readouterr().err
    assert "/folder/000000002.jpg, image 000000002: no such file; --skip-broken" in told and told.count("\n") == 1
    assert not out.exists()
    assert run(*common, "--skip-broken") == 0
    assert capsys.readouterr().out == f"{out}: 6 images; 4 broken images left out, see {out}/_skipped.jsonl\n"
    lines = [json.loads(line) for line in (out / "_skipped.jsonl").read_text().splitlines()]
    assert [line["key"] for line in lines] == [f"{number:09d}" for number in (2, 4, 5, 7)]
    assert all(line["uri"].endswith(f"{line['key']}.jpg") and line["key"] in line["reason"] for line in lines)
    if form == "hf":
        assert datasets.load_from_disk(str(out))["key"][:3] == ["000000000", "000000001", "000000003"]


def test_an_image_that_no_jpeg_holds_is_named_or_left_out(store: Store, tmp_path: Path) -> None:
    """libjpeg reads and writes at most 65,500 pixels a side; PNG holds more."""
    made = {}
    for side in (65_500, 65_501):
        Image.new("L", (side, 3), 90).save(buffer := io.BytesIO(), "PNG")
        made[side] = buffer.getvalue()
    assert as_jpeg(made[65_500], 10**6)[1] == (65_500, 3)
    snapshot = pin(store, [write_shard(tmp_path / "wide.tar", [jpeg(100, 50), made[65_501], made[65_500]])])
    with pytest.raises(SampleError, match=r"image 000000001: unsupported: 65501 × 3: a JPEG holds at most 65,500 pix"):
        export(store, snapshot, Request("llava", LAYERS["caption"]), tmp_path / "out")
    for form in FORMS:
        request = Request(form, LAYERS["caption"], skip_broken=True)
        samples = export(store, snapshot, request, tmp_path / form)
        assert (samples.count, samples.broken) == (2, 1)


def test_an_export_of_broken_images_alone_is_none(store: Store, tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", 1, 3)
    snapshot = pin(store, shards)
    Path(shards[0]).unlink()
    for form in FORMS:
        with pytest.raises(ExportError, match="no image of pinned can be read; 3 are broken"):
            export(store, snapshot, Request(form, LAYERS["caption"], skip_broken=True), tmp_path / "out")
        assert not (tmp_path / "out").exists()


# whole or not at all


@pytest.mark.parametrize("form", FORMS)
def test_a_vanished_shard_leaves_nothing(store: Store, snapshot: Snapshot, tmp_path: Path, form: Form) -> None:
    (tmp_path / "shards" / "00001.tar").unlink()
    with pytest.raises(SampleError, match=r"^no such shard: .*/00001.tar$"):
        export(store, snapshot, Request(form, LAYERS["caption"]), tmp_path / "out")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))


def test_what_is_there_is_not_touched(store: Store, snapshot: Snapshot, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(ExportError, match=r"out exists already"):
        export(store, snapshot, Request("llava", LAYERS["caption"]), tmp_path / "out")
    with pytest.raises(ExportError, match=r"the layer objects; there is text in alt_text, caption, regions, descr"):
        export(store, snapshot, Request("llava", LAYERS["objects"]), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_images_are_read_together_and_not_all_at_once(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = pin(store, [write_shard(tmp_path / "0.tar", [jpeg()] * 600)])
    spans: list[int] = []
    read = image_reader._read_span

    def counted(span: image_reader._Span, fetched: bytes | Exception | None) -> list[bytes | Exception]:
        spans.append(len(span.rows))
        return read(span, fetched)

    monkeypatch.setattr(image_reader, "_read_span", counted)
    seen: list[int] = []
    export(store, snapshot, Request("parquet", LAYERS["caption"]), tmp_path / "out", lambda: seen.append(sum(spans)))
    assert seen[0] <= 128 and len(seen) == 600 and min(spans[:-1]) == 16


# strata export


def run(*arguments: str) -> int:
    """The exit code of the command line."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["export", *arguments])
    return int(ended.value.code or 0)


def test_the_command(store: Store, snapshot: Snapshot, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    common = ["--store", store.uri, "--out", str(out)]
    assert run("pinned", "--format", "llava", "--layer", "caption", *common) == 0
    assert capsys.readouterr().out == f"{out}: 10 images\n"
    (entry, *_) = json.loads((out / "train.json").read_text())
    assert entry["conversations"][0]["value"] == "<image>\nDescribe this image in one sentence."
    for arguments, code, line in (
        (["pinned", "--format", "hf", *common], exits.REQUEST_REFUSED, "out exists already"),
        (["nobody", "--format", "hf", *common], exits.REQUEST_REFUSED, "no snapshot 'nobody'; there are: pinned"),
        (["pinned", "--format", "hf", "--layer", "poem", *common], exits.USAGE, "no layer 'poem'; there are alt_text"),
    ):
        assert run(*arguments) == code
        err = capsys.readouterr().err
        assert line in err and err.count("\n") == 1
    assert run("pinned", "--format", "llava", "--level", "caption", "--store", store.uri, "--out", f"{out}-2") == 0
    assert (tmp_path / "out-2" / "train.json").read_bytes() == (out / "train.json").read_bytes()
    capsys.readouterr()
    assert run("pinned", "--format", "pdf", *common) == exits.USAGE
