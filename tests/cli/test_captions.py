"""`strata caption` for many images: what its arguments mean, and files with captions."""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from strata.cli import exits
from strata.cli.images import caption as command
from strata.cli.images.files import HEADER, CsvFile, TextFiles
from strata.cli.images.targets import Target, targets_of
from strata.cli.main import main
from strata.client import ApiError
from strata.client.images import Captioned, _read
from strata.core import NOTHING_FOUND
from strata.core.claims import Variant
from strata.core.records import Caption, Description, FailureNote, ImageReference, Record, Status
from strata.core.schemas import Problem
from strata.errors import InvalidInput
from tests.fakes import jpeg

ODD = ["a b.jpg", "ü–猫.jpg", "new\nline.jpg", '"quoted", it is.jpg', "-dash.jpg", "x" * 240 + ".jpg"]


class Service:
    """Describes each image by its content; keeps what was sent. Content: text, failing, empty, or anything else."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.interrupt_after: int | None = None

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def captioned(self, image: Any, alt_text: Any, profile: Any, wait: float, texts: Any) -> Captioned:
        data = _read(image)[1] if isinstance(image, Path) else image
        if self.interrupt_after is not None and len(self.sent) >= self.interrupt_after:
            raise KeyboardInterrupt
        self.sent.append(image)
        if data == b"text":
            raise ApiError(Problem(type="/problems/no-image", title="No image", status=422, detail="it is text"))
        told = data if isinstance(data, str) else data[:20].decode("latin-1")
        record = Record(key="k", image=ImageReference(uri="u", size=1), caption=Caption(text="a caption", score=1.0))
        if data == b"failing":
            note = FailureNote(stage="decode", error_type="truncated", detail="cut off")
            return Captioned(record.model_copy(update={"status": Status.FAILED, "failure": note}), None, "j")
        text = {b"empty": "", b"unknown": NOTHING_FOUND}.get(data, f"It shows {told}.")
        update: dict[str, Any] = {"description": Description(text=text, sentences=[])}
        update["variants"] = [
            Variant(name=name, text=f"{name} text") for name in (texts.variants if texts else None) or ()
        ]
        return Captioned(record.model_copy(update=update), None, "j")


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    made = Service()
    monkeypatch.setattr(command, "open_client", lambda *_: made)
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images with odd names, two of them in a sub-folder, and files that are none."""
    for name in (*ODD, "deep/er/one.JPG", "deep/two.png"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"picture")
    for name in (".hidden.jpg", "notes.md", ".git/three.jpg"):
        (tmp_path / "images" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "images" / name).write_bytes(b"picture")
    return tmp_path / "images"


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["caption", *map(str, arguments)])
    return int(caught.value.code or 0)


def texts_of(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*.txt")}


def rows_of(path: Path) -> list[list[str]]:
    return list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))


def test_texts_lie_beside_pictures_of_all_names(service: Service, folder: Path, capsys: Any) -> None:
    assert run(folder, "--write-txt") == 0
    names = [f"{Path(name).stem}.txt" for name in ODD] + ["deep/er/one.txt", "deep/two.txt"]
    assert texts_of(folder) == dict.fromkeys(names, "It shows picture.")
    assert capsys.readouterr().err == "8 captions written, 0 kept\n"
    assert not list(folder.rglob(".strata*"))


def test_texts_that_exist_are_kept_and_not_asked_for(service: Service, folder: Path, capsys: Any) -> None:
    (folder / "a b.txt").write_text("mine")
    assert run(folder, "--write-txt") == 0
    assert len(service.sent) == 7 and (folder / "a b.txt").read_text() == "mine"
    assert run(folder, "--write-txt") == 0
    assert len(service.sent) == 7 and capsys.readouterr().err.endswith("0 captions written, 8 kept\n")
    assert run(folder, "--write-txt", "--overwrite") == 0
    assert (folder / "a b.txt").read_text() == "It shows picture."


def test_a_csv_file_is_what_image_folder_reads(service: Service, folder: Path) -> None:
    assert run(folder, "--csv", folder / "metadata.csv") == 0
    rows = rows_of(folder / "metadata.csv")
    assert tuple(rows[0]) == HEADER
    assert sorted(name for name, _ in rows[1:]) == sorted([*ODD, "deep/er/one.JPG", "deep/two.png"])
    assert run(folder, "--csv", folder / "metadata.csv") == 0
    assert rows_of(folder / "metadata.csv") == rows and len(service.sent) == 8


def test_a_csv_file_elsewhere_has_whole_paths(service: Service, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert run(folder / "a b.jpg", "https://example.org/cat.jpg", "--csv", tmp_path / "out" / "c.csv") == 0
    assert [name for name, _ in rows_of(tmp_path / "out" / "c.csv")[1:]] == [
        str(folder / "a b.jpg"),
        "https://example.org/cat.jpg",
    ]


@pytest.mark.parametrize("options", [["--write-txt"], ["--csv", "captions.csv"]])
def test_after_ctrl_c_the_same_command_goes_on(
    service: Service, folder: Path, options: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(command, "AT_A_TIME", 1)
    service.interrupt_after = 5
    assert run(".", *options) == 130
    kept = len(texts_of(folder)) if options == ["--write-txt"] else len(rows_of(Path("captions.csv"))) - 1
    assert kept == 5 and "5 captions written" in capsys.readouterr().err
    service.interrupt_after = None
    assert run(".", *options) == 0
    assert not set(service.sent[:5]) & set(service.sent[5:])
    assert capsys.readouterr().err == "3 captions written, 5 kept\n"


@given(cut=st.integers(0, 400))
@example(cut=len("file_name,text") - 1)
@example(cut=len("file_name,text"))  # the whole first row without its line end
def test_a_csv_file_that_was_cut_anywhere_is_completed(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp() / "cut"
    folder.mkdir(exist_ok=True)
    path = folder / "c.csv"
    targets = [Target(name, folder / name) for name in ODD[:4]]

    def complete() -> int:
        file = CsvFile(path, overwrite=False)
        for target in file.missing(targets):
            file.write(target, 'a "text",\nwith lines')
        return file.kept

    path.unlink(missing_ok=True)
    complete()
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    try:
        kept = complete()
    except InvalidInput:
        assert cut < len(whole.splitlines()[0])  # not even the first row is there: it may be any file
        return
    assert path.read_bytes() == whole
    assert (kept == 4) == (cut >= len(whole))


def test_a_foreign_csv_file_is_left_as_it_is(service: Service, folder: Path, tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "own.csv"
    path.write_text("id,price\n1,2\n")
    assert run(folder, "--csv", path) == exits.USAGE
    assert path.read_text() == "id,price\n1,2\n" and capsys.readouterr().err.count("\n") == 1
    assert not service.sent


def test_each_problem_is_told_and_the_others_go_on(service: Service, tmp_path: Path, capsys: Any) -> None:
    for name in ("text", "failing", "empty", "unknown", "good"):
        (tmp_path / f"{name}.jpg").write_text(name)
    assert run(tmp_path, "--write-txt") == exits.JOB_FAILED
    err = capsys.readouterr().err
    assert "truncated: cut off" in err and "No image: it is text" in err
    # what tells of the profile is no caption of the image
    assert all(f"{name}.jpg: nothing that the profile knows was found" in err for name in ("empty", "unknown"))
    assert err.endswith("1 caption written, 0 kept, 3 without a text\n")
    assert texts_of(tmp_path) == {"good.txt": "It shows good."}


@pytest.mark.parametrize(
    ("options", "text"),
    [([], "It shows picture."), (["--variant", "caption"], "a caption"), (["--variant", "short"], "short text")],
)
def test_the_text_that_is_written(service: Service, folder: Path, options: list[str], text: str) -> None:
    assert run(folder / "a b.jpg", "--write-txt", *options) == 0
    assert (folder / "a b.txt").read_text() == text


def test_two_pictures_with_one_text_file_are_refused(service: Service, tmp_path: Path, capsys: Any) -> None:
    for name in ("cat.jpg", "cat.png"):
        (tmp_path / name).write_bytes(b"picture")
    assert run(tmp_path, "--write-txt") == exits.USAGE
    assert "cat.txt" in capsys.readouterr().err and not service.sent
    assert run(tmp_path, "--csv", tmp_path / "c.csv") == 0


def test_a_folder_that_cannot_be_written_is_one_line_before_anything_is_sent(
    service: Service, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def read_only(dir: Path) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("strata.cli.images.files.tempfile", SimpleNamespace(TemporaryFile=read_only))
    for options in (["--write-txt"], ["--csv", str(folder / "c.csv")]):
        assert run(folder, *options) == exits.USAGE
        assert capsys.readouterr().err.count("\n") == 1
    assert not service.sent and not texts_of(folder)


@pytest.mark.parametrize(
    "options",
    [["--write-txt", "--csv", "c.csv"], ["--overwrite"], ["--variant", "short"], ["--write-txt", "--variant", "poem"]],
)
def test_options_that_contradict_are_refused(service: Service, folder: Path, options: list[str]) -> None:
    assert run(folder, *options) == exits.USAGE and not service.sent


def stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))


def test_stdin_is_an_image_or_a_list(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stdin(monkeypatch, jpeg())
    assert targets_of(["-"]) == [Target("-", jpeg())]
    paths = [folder / name for name in ODD]
    stdin(monkeypatch, b"\0".join(os.fsencode(path) for path in paths) + b"\0")
    assert [target.path for target in targets_of(["-"])] == paths
    stdin(monkeypatch, f"{folder / 'a b.jpg'}\n\nhttps://a.org/b.jpg\n{folder / 'deep'}\n/missing.jpg\n".encode())
    names = [
        str(folder / "a b.jpg"),
        "https://a.org/b.jpg",
        str(folder / "deep/er/one.JPG"),
        str(folder / "deep/two.png"),
    ]
    assert [target.name for target in targets_of(["-"])] == [*names, "/missing.jpg"]
    for wrong in (b"", b"\n\n", b"-\n"):
        stdin(monkeypatch, wrong)
        with pytest.raises(InvalidInput):
            targets_of(["-"])


def test_globs_and_what_is_named_twice(folder: Path, tmp_path: Path) -> None:
    twice = [f"{folder}/**/*.[jJ]*", str(folder / "a b.jpg")]
    names = [target.path for target in targets_of(twice)]
    assert names.count(folder / "a b.jpg") == 2 and folder / "deep/er/one.JPG" in names
    assert len(TextFiles(overwrite=False).missing(targets_of(twice))) == len(names) - 1
    odd = tmp_path / "a[1].jpg"
    odd.write_bytes(b"picture")
    assert targets_of([str(odd)]) == [Target(str(odd), odd)]  # a file with this very name
    for nothing in (f"{folder}/*.bmp", str(tmp_path / "empty")):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(InvalidInput):
            targets_of([nothing])


def test_a_glob_follows_no_link_and_finds_nothing_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`**` finds what the folder form finds; another glob what a shell finds, without what macOS hides."""
    for name in ("a.jpg", "a/a/b.jpg", "a/ü/c.jpg", "__MACOSX/d.jpg", "a/.e.jpg", ".f/g.jpg", "a/._h.jpg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"picture")
    for link, to in (("loop", "."), ("a/up", ".."), ("link.jpg", "a.jpg")):
        (tmp_path / link).symlink_to(to)
    monkeypatch.chdir(tmp_path)

    def found(pattern: str) -> list[str]:
        return [str(target.path) for target in targets_of([pattern])]

    below = ["a.jpg", "a/a/b.jpg", "a/ü/c.jpg"]
    assert found(".") == found("**/*.jpg") == found("**") == found("**/**/*.jpg") == found("./**//*.j[p]g") == below
    assert found(f"{tmp_path}/**/*.jpg") == [f"{tmp_path}/{name}" for name in below]
    assert found("**/a/*.jpg") == found("a/a/*") == found("**/a/a/**") == ["a/a/b.jpg"]
    assert found("*.jpg") == ["a.jpg", "link.jpg"] and found("loop/*/a/?.jpg") == ["loop/a/a/b.jpg"]
    assert found("*/*.jpg") == ["loop/a.jpg", "loop/link.jpg"]
    assert found("__MACOSX/*.jpg") == ["__MACOSX/d.jpg"] and found(".*/*.jpg") == [".f/g.jpg"]


def test_what_is_no_regular_file_is_one_line_and_not_waited_for(service: Service, tmp_path: Path, capsys: Any) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "good.jpg").write_bytes(b"picture")
    assert run(tmp_path / "pipe.jpg", "/dev/zero", tmp_path / "good.jpg") == exits.USAGE
    out, err = capsys.readouterr()
    assert "good.jpg" in out and err.count("neither a regular file nor a folder") == err.count("\n") == 2
    assert run(tmp_path, "--csv", tmp_path / "c.csv") == 0 and len(rows_of(tmp_path / "c.csv")) == 2


@pytest.mark.parametrize("options", [[], ["--json"], ["--write-txt"], ["--csv", "c.csv"], ["--overlay", "o"]])
def test_a_name_that_is_not_utf8_is_like_any_other(
    service: Service, tmp_path: Path, options: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(service, "overlay", lambda *_: b"png", raising=False)
    bad = os.fsdecode(b"bad\xff.jpg")
    for name, data in ((bad, b"picture"), ("good.jpg", b"picture"), (os.fsdecode(b"text\xfe.jpg"), b"text")):
        (tmp_path / name).write_bytes(data)
    assert run(".", *options) == exits.REQUEST_REFUSED
    assert len(service.sent) == 3 and "No image: it is text" in capsys.readouterr().err
    if "--write-txt" in options:
        assert (tmp_path / os.fsdecode(b"bad\xff.txt")).read_text() == "It shows picture."
    if "--csv" in options:
        assert b"bad\xff.jpg,It shows picture.\n" in (tmp_path / "c.csv").read_bytes()
        assert run(".", *options) == exits.REQUEST_REFUSED and len(service.sent) == 4  # it goes on


def test_a_list_or_an_argument_that_cannot_be_used_is_one_line(
    service: Service, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr("sys.stdin", None)
    assert run("-") == exits.USAGE and "stdin is closed" in capsys.readouterr().err
    stdin(monkeypatch, b"\x93[*\0\xff\x1b[31m\n\xfe")
    assert run("-") == exits.USAGE and "neither an image nor a list" in capsys.readouterr().err
    assert run("s3://bucket/a.jpg") == exits.USAGE and "http:// or https://" in capsys.readouterr().err
    assert targets_of([os.fsdecode(b"https://a.org/\xff.jpg")])[0].image == "https://a.org/%FF.jpg"
    stdin(monkeypatch, ("x" * 5000 + "\nhttps://a.org/b.jpg\nftp://a.org/c.jpg\n").encode())
    assert run("-") == exits.USAGE and "File name too long" in capsys.readouterr().err
    assert service.sent == ["https://a.org/b.jpg", "ftp://a.org/c.jpg"]


def test_a_missing_file_of_a_list_does_not_stop_the_others(
    service: Service, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    stdin(monkeypatch, f"/missing.jpg\n{folder / 'a b.jpg'}\n".encode())
    assert run("-") == exits.USAGE
    out, err = capsys.readouterr()
    assert "a b.jpg" in out and err.count("\n") == 1 and "/missing.jpg" in err


def test_an_image_of_stdin_or_a_url_has_no_place_for_a_text(service: Service, capsys: Any) -> None:
    assert run("https://example.org/cat.jpg", "--write-txt") == exits.USAGE
    assert "use --csv" in capsys.readouterr().err
    assert run("https://example.org/cat.jpg") == 0
    assert service.sent == ["https://example.org/cat.jpg"]


def test_ctrl_c_ends_the_command_while_the_service_is_silent(folder: Path) -> None:
    """A real process, whose service accepts connections and never answers."""
    import signal
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        arguments = [sys.executable, "-m", "strata", "caption", str(folder), "--write-txt", "--url", url]
        # a shell starts what it runs in the background with the interrupt ignored, and so this process' children
        process = subprocess.Popen(
            arguments,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        silent.settimeout(120)
        connection, _ = silent.accept()
        # Python drops an interrupt that comes while it runs a finalizer: then a person presses the keys again
        for _ in range(12):
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
                break
        _, err = process.communicate(timeout=120)
        connection.close()
    assert process.returncode == 130 and "Traceback" not in err
    assert "0 captions written" in err


def test_a_text_file_keeps_what_is_there_until_the_new_one_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = tmp_path / "a.jpg"
    image.write_bytes(b"x")
    (tmp_path / "a.txt").write_text("old")
    files = TextFiles(overwrite=True)
    (target,) = files.missing([Target("a", image)])

    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        files.write(target, "new")
    assert (tmp_path / "a.txt").read_text() == "old" and len(list(tmp_path.iterdir())) == 2


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("STRATA_URL", raising=False)
    yield
