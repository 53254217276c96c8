"""`strata submit --upload` against a service of the test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from strata.cli import exits, jobs
from strata.cli.main import main
from strata.client.bulk import Sent
from strata.core.schemas import JobStatus
from tests.cli.test_cli import job

IMAGES = {"a.jpg": "alt of a", "deep/b.png": "", "deep/c d.jpg": ""}


class Service:
    """Has the images with a name in `known`, refuses those in `refused`, and keeps what was submitted."""

    def __init__(self) -> None:
        self.refused: set[str] = set()
        self.submitted: list[tuple[Any, Any, dict[str, Any]]] = []

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit_uploads(self, images: Any, alt_texts: Any, **options: Any) -> Any:
        self.submitted.append((images, alt_texts, options))
        return job("j1", JobStatus.IN_PROGRESS)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    made = Service()

    def sent(_: Any, files: list[Path], show: Any) -> Sent:
        show("sent", len(files), len(files))
        digests = {file: f"sha of {file.name}" for file in files if file.name not in made.refused}
        refused = {file: "it is\nno image" for file in files if file.name in made.refused}
        return Sent(digests, refused, new=1)

    monkeypatch.setattr(jobs, "open_client", lambda *_: made)
    monkeypatch.setattr("strata.client.bulk.send_images", sent)
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, alt_text in IMAGES.items():
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"picture")
        if alt_text:
            path.with_suffix(".txt").write_text(alt_text)
    return tmp_path / "photos"


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["submit", *map(str, arguments)])
    return int(caught.value.code or 0)


def test_a_folder_is_sent_and_submitted(service: Service, folder: Path, capsys: Any) -> None:
    assert run(folder, "--upload", "--profile", "demo", "--variants", "short", "--metadata", "a=b") == 0
    ((images, alt_texts, options),) = service.submitted
    assert images == [(f"sha of {Path(name).name}", name) for name in IMAGES]
    assert alt_texts == ["alt of a", None, None]
    assert options["profile"] == "demo" and options["texts"].variants == ["short"]
    out, err = capsys.readouterr()
    assert out == "j1\n" and "1 image sent, 2 known, 0 left out" in err


def test_what_is_refused_is_told_and_gives_the_exit_code(service: Service, folder: Path, capsys: Any) -> None:
    service.refused = {"b.png"}
    assert run(folder, "--upload") == exits.REQUEST_REFUSED
    assert len(service.submitted[0][0]) == 2
    assert f"strata: {folder / 'deep/b.png'}: it is no image\n" in capsys.readouterr().err
    service.refused = {"a.jpg", "b.png", "c d.jpg"}
    assert run(folder, "--upload") == exits.USAGE
    assert len(service.submitted) == 1


def test_what_is_no_file_is_refused(service: Service, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for wrong in ("https://example.org/a.jpg", str(tmp_path / "empty"), f"{folder}/*.bmp"):
        assert run(wrong, "--upload") == exits.USAGE
    assert not service.submitted


def test_files_and_globs_have_their_names_as_keys(service: Service, folder: Path) -> None:
    assert run(folder / "a.jpg", f"{folder}/deep/*", folder / "a.jpg", "--upload") == 0
    images, alt_texts, _ = service.submitted[0]
    assert [name for _, name in images] == ["a.jpg", "b.png", "c d.jpg"] and alt_texts[0] == "alt of a"
