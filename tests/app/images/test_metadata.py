"""No metadata of an image leaves the service or an export: every output is searched for a planted mark."""

from __future__ import annotations

import base64
import logging
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from bench.hostile.images import encoded
from strata.core.layers import LAYERS
from strata.data.exports import Request, export
from strata.images import decode
from strata.queue.queue import Queue
from strata.store.store import Store
from tests.fakes import wait_for_end, write_shard
from tests.images.marks import KINDS, MARK, PHOTO, has_mark, marked
from tests.pinned import pin
from tests.service import Service, running_service

LIMIT = 10_000_000
PICTURES = {kind: marked(kind, 6 if kind in ("JPEG", "WEBP", "PNG", "AVIF") else None) for kind in KINDS}


def files_with_mark(folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob("*") if path.is_file() and has_mark(path.read_bytes())]


def test_uploads_are_clean_in_the_store_and_in_all_answers(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for data in PICTURES.values():
        answer = service.caption(data)
        assert answer.status_code == 200
        record, place = answer.json(), answer.headers["Content-Location"]
        image, overlay = (service.client.get(place + end) for end in ("/image", "/overlay.png"))
        assert image.status_code == overlay.status_code == 200
        assert not any(map(has_mark, (answer.content, image.content, overlay.content)))
        assert decode(image.content, LIMIT).tobytes() == decode(data, LIMIT).tobytes()
        assert (record["width"], record["height"]) == decode(data, LIMIT).size
        # the same picture without metadata is the same upload
        body = {"image_base64": base64.b64encode(image.content).decode()}
        again = service.client.post("/v1/captions", json=body, headers={"Prefer": "wait=120"}).json()
        assert (again["image"]["sha256"], again["key"]) == (record["image"]["sha256"], record["key"])
    assert not files_with_mark(Path(service.settings.store_uri)) and MARK not in caplog.text


def test_images_of_shards_are_clean_in_answers(service: Service) -> None:
    folder = Path(service.settings.shard_roots[0])
    folder.mkdir(exist_ok=True)
    tar = write_shard(folder / "marked.tar", list(PICTURES.values()))
    job = service.submit(tar).json()["id"]
    wait_for_end(service.jobs, job)
    for number, data in enumerate(PICTURES.values()):
        place = f"/v1/records/{job}/{number:09d}"
        image = service.client.get(f"{place}/image")
        assert image.status_code == 200 and image.headers["content-type"].startswith("image/")
        assert not has_mark(image.content) and not has_mark(service.client.get(f"{place}/overlay.png").content)
        assert decode(image.content, LIMIT).tobytes() == decode(data, LIMIT).tobytes()
    assert has_mark(Path(tar).read_bytes())
    assert not files_with_mark(Path(service.settings.store_uri))


def test_an_image_that_no_jpeg_holds_is_sent_and_drawn(service: Service) -> None:
    """Of more than 65,500 pixels a side: an export leaves it out, but no answer needs a JPEG."""
    data = encoded(Image.new("L", (65_501, 3), 90), "PNG")
    answer = service.caption(data)
    place = answer.headers["Content-Location"]
    image, overlay = (service.client.get(place + end) for end in ("/image", "/overlay.png"))
    assert (answer.status_code, image.status_code, overlay.status_code) == (200, 200, 200)
    assert image.content == data and decode(overlay.content, LIMIT).width == 8192


def test_what_is_no_image_is_not_sent(service: Service) -> None:
    folder = Path(service.settings.shard_roots[0])
    folder.mkdir(exist_ok=True)
    tar = write_shard(folder / "texts.tar", [MARK.encode(), PICTURES["JPEG"][:40], PICTURES["TIFF"][:300]])
    job = service.submit(tar).json()["id"]
    wait_for_end(service.jobs, job)
    for number in range(3):
        answer = service.client.get(f"/v1/records/{job}/{number:09d}/image")
        assert not has_mark(answer.content) and answer.status_code in (200, 404)


def test_metadata_can_be_kept(queue: Queue, tmp_path: Path) -> None:
    with running_service(queue, tmp_path, keep_metadata=True) as service:
        answer = service.caption(PICTURES["JPEG"])
        image = service.client.get(answer.headers["Content-Location"] + "/image")
        assert image.content == PICTURES["JPEG"]


@pytest.mark.parametrize("form", ["llava", "monkey", "webdataset", "parquet", "hf"])
def test_exports_are_clean(store: Store, tmp_path: Path, form: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    snapshot = pin(store, [write_shard(tmp_path / "marked.tar", list(PICTURES.values()))])
    request = Request(form, LAYERS["caption"])  # type: ignore[arg-type]
    assert export(store, snapshot, request, tmp_path / "out").count == len(KINDS)
    assert not files_with_mark(tmp_path / "out") and MARK not in caplog.text
    kept = Request(form, LAYERS["caption"], keep_metadata=True)  # type: ignore[arg-type]
    upright = pin(store, [write_shard(tmp_path / "upright.tar", [marked("JPEG", profile=False)])], "upright")
    export(store, upright, kept, tmp_path / "kept")
    assert files_with_mark(tmp_path / "kept")


def test_the_search_finds_what_is_hidden(tmp_path: Path) -> None:
    """A search that finds nothing anywhere would show nothing."""
    for kind, data in PICTURES.items():
        (tmp_path / kind).write_bytes(b"before" + data + b"after")
    assert len(files_with_mark(tmp_path)) == len(KINDS)
    hidden = PngImagePlugin.PngInfo()
    hidden.add_text("parameters", MARK * 100, zip=True)
    compressed = encoded(PHOTO, "PNG", pnginfo=hidden)
    assert MARK.encode() not in compressed and has_mark(compressed)


def test_an_image_without_its_end_is_described_with_a_warning(service: Service) -> None:
    data = encoded(PHOTO, "JPEG")
    folder = Path(service.settings.shard_roots[0])
    folder.mkdir(exist_ok=True)
    job = service.submit(write_shard(folder / "cut.tar", [data[:-2], data[: len(data) // 2], data])).json()["id"]
    wait_for_end(service.jobs, job)
    rows = [service.client.get(f"/v1/records/{job}/{number:09d}").json() for number in range(3)]
    assert [row["status"] for row in rows] == ["succeeded", "failed", "succeeded"]
    assert rows[0]["warnings"] == [{"type": "incomplete_image", "detail": "the end marker is missing"}]
    assert rows[1]["failure"]["error_type"] == "truncated" and not rows[2]["warnings"]
    record = service.caption(data[:-2]).json()
    assert record["status"] == "succeeded" and record["warnings"] == rows[0]["warnings"]
