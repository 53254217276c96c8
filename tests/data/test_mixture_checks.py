"""`strata mixture check`: what it says of images that are not there, and of entries that cannot be used."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from strata.cli import exits
from strata.data.mixture_files import Locations, SourceSettings
from strata.data.sources import missing_files
from strata.data.sources.missing_files import NeededFile
from strata.store.store import Store
from tests.cli.test_cli import code_of
from tests.data.test_mixtures import llava, write_json
from tests.egress.web import Web, response, web_server
from tests.fakes import jpeg
from tests.pinned import pin, write_shards

NOBODY = "http://127.0.0.1:1"  # where nothing listens

Check = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def web() -> Iterator[Web]:
    with web_server() as server:
        for number in range(3):
            server.pages[f"/{number}.jpg"] = response(jpeg(20 + number))
        yield server


@pytest.fixture
def locations(store: Store, tmp_path: Path) -> Locations:
    (tmp_path / "data" / "images").mkdir(parents=True)
    for number in range(4):
        (tmp_path / "data" / "images" / f"{number}.jpg").write_bytes(jpeg(20 + number))
    return Locations(store, str(tmp_path / "data"), tmp_path / "cache")


@pytest.fixture
def check(locations: Locations, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Check:
    """The checks of `strata mixture check` of sources, and what it prints in `check.printed`."""

    def run(*sources: dict[str, Any], options: tuple[str, ...] = ()) -> list[dict[str, Any]]:
        tables = ("\n".join(f"{name} = {json.dumps(value)}" for name, value in source.items()) for source in sources)
        path = tmp_path / "mixture.toml"
        path.write_text("name = 'test'\n" + "".join(f"[[sources]]\n{table}\n" for table in tables))
        where = ["--store", locations.store.uri, "--data", locations.data, "--cache", str(locations.cache)]
        capsys.readouterr()
        code = code_of("mixture", "check", str(path), *where, "--json", *options)
        found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["sources"]
        assert code == (exits.MIXTURE_INCOMPLETE if any(one["problem"] for one in found) else 0)
        return found

    return run


def entries(locations: Locations, *given: Any, images: str | None = None) -> dict[str, Any]:
    write_json(Path(locations.data) / "said.json", list(given))
    return {"name": "said", "conversations": "said.json"} | ({"images": images} if images else {})


def test_one_image_that_cannot_be_reached_is_named_and_the_others_are_looked_for(
    check: Check, locations: Locations
) -> None:
    given = [llava(0), llava(1, image=f"{NOBODY}/x.jpg"), llava(2), llava(3, image="images/no.jpg")]
    (found,) = check(entries(locations, *given))
    # the images of folders come first
    first = f"no such image: {locations.data}/images/no.jpg (sample l3)"
    assert found["problem"].startswith(first) and found["problem"].endswith("(the first of 2)")
    (found,) = check(entries(locations, *given[:3]))
    assert found["problem"] == f"{NOBODY}/x.jpg (sample l1): the host '127.0.0.1' has an address that is not public"
    assert found["supply"] == 3
    (found,) = check(entries(locations, llava(1, image="x.jpg"), images=NOBODY))
    assert found["problem"].startswith(f"{NOBODY}/x.jpg (sample l1): Connect call failed")


def test_images_of_a_web_server_are_asked_for_without_a_listing(check: Check, locations: Locations, web: Web) -> None:
    there = [llava(number, image=f"{web.url}/{number}.jpg") for number in range(3)]
    (found,) = check(entries(locations, *there, images=web.url))
    assert (found["problem"], found["note"]) == (None, None)
    (found,) = check(entries(locations, *there, llava(3, image=f"{web.url}/no.jpg?token=hidden"), images=web.url))
    assert found["problem"] == f"{web.url}/no.jpg?… (sample l3): the server answered 404 Not Found"
    # also as a further image of a sample
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    both = llava(1, image=[f"{web.url}/1.jpg", f"{web.url}/gone.jpg"], conversations=turns)
    (found,) = check(entries(locations, there[0], both, images=web.url))
    assert found["problem"] == f"{web.url}/gone.jpg (sample l1): the server answered 404 Not Found"


def test_a_silent_server_is_given_up_and_the_rest_is_counted(monkeypatch: pytest.MonkeyPatch, web: Web) -> None:
    monkeypatch.setattr(missing_files, "_THREADS", 1)
    files = [NeededFile(f"{NOBODY}/{number}", f"{NOBODY}/{number}", str(number)) for number in range(50)]
    there = NeededFile("1", f"{web.url}/1.jpg", "1")
    found = missing_files.missing_files([*files, there])
    assert len(found.lines) == missing_files.MOST_SILENT and found.not_asked == 50 - missing_files.MOST_SILENT
    assert web.asked == ["/1.jpg"]


def test_of_many_images_on_the_web_some_are_asked_for_and_the_note_says_so(
    check: Check, locations: Locations, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(missing_files, "MOST_ASKED", 2)
    (found,) = check(
        entries(locations, *(llava(number, image=f"{web.url}/{number}.jpg") for number in range(3)), images=web.url)
    )
    note = "images on web servers that were not looked for: 1; --decode reads all"
    assert (found["problem"], found["note"]) == (None, note) and len(web.asked) == 2
    (found,) = check(
        entries(locations, *(llava(number, image=f"{web.url}/{number}.jpg") for number in range(3)), images=web.url),
        options=("--decode",),
    )
    assert (found["problem"], found["note"], found["broken"]) == (None, None, 0)


@pytest.mark.parametrize(
    ("image", "line"),
    [
        ("x\0y/a.jpg", "its folder cannot be listed: "),
        ("http://[::1/a.jpg", "(sample l1): "),
        ("images/0.jpg/a.jpg", "no such image: "),
        ("closed/a.jpg", "its folder cannot be listed: {data}/closed: Permission denied"),
    ],
)
def test_names_that_no_storage_takes_are_named(
    check: Check, locations: Locations, image: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = missing_files._names

    def closed(folder: str) -> set[str]:
        if folder.endswith("/closed"):  # root may read what nobody may
            raise PermissionError(13, "Permission denied", folder)
        return names(folder)

    monkeypatch.setattr(missing_files, "_names", closed)
    (found,) = check(entries(locations, llava(0), llava(1, image=image)))
    assert line.format(data=locations.data) in found["problem"] and "Errno" not in found["problem"]
    assert "(sample l1)" in found["problem"] and found["supply"] == 2


def test_a_missing_image_does_not_hide_bad_entries(check: Check, locations: Locations) -> None:
    missing = llava(1, image="images/no.jpg")
    bad = {"id": "b", "image": "images/2.jpg"}
    (found,) = check(entries(locations, llava(0), missing, bad))
    image = f"no such image: {locations.data}/images/no.jpg (sample l1)"
    line = '1 of 3 entries cannot be used; the first: entry 3 (id b): no list "conversations"'
    assert (found["problem"], found["note"]) == (f"{image}; {line}", None)
    # few bad ones are a note, beside the problem
    (found,) = check(entries(locations, *[llava(0)] * 150, missing, bad))
    assert (found["problem"], found["note"]) == (
        image,
        line.replace("1 of 3", "1 of 152").replace("entry 3", "entry 152"),
    )


def test_the_table_shows_the_note_beside_the_problem(
    locations: Locations, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = entries(locations, *[llava(0)] * 150, llava(1, image="images/no.jpg"), {"id": "b"})
    path = tmp_path / "mixture.toml"
    path.write_text("name = 'test'\n[[sources]]\n" + "\n".join(f"{key} = {json.dumps(source[key])}" for key in source))
    where = ["--store", locations.store.uri, "--data", locations.data, "--cache", str(locations.cache)]
    assert code_of("mixture", "check", str(path), *where) == exits.MIXTURE_INCOMPLETE
    told = " ".join(capsys.readouterr().out.split())
    assert "no such image:" in told and "1 of 152 entries cannot be used" in told


@pytest.mark.parametrize(
    "arguments",
    [
        ["mixture", "check", "{folder}"],
        ["train", "{folder}"],
        ["snapshot", "create", "a", "--from", "x", "--scores", "{folder}/a.csv"],
        ["snapshot", "create", "a", "--from", "x", "--exclude", "{folder}"],
        ["submit", "@{folder}"],
        ["calibrate", "demo", "--from", "x", "--labels", "{folder}"],
    ],
)
def test_a_folder_in_the_place_of_a_file_is_told_in_words(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.csv").mkdir()
    code = code_of(*(one.format(folder=tmp_path) for one in arguments))
    err = capsys.readouterr().err
    assert code == exits.USAGE and "Errno" not in err and str(tmp_path) in err


@pytest.mark.parametrize(
    "source",
    [
        {"format": "vqav2", "file": "images", "questions": "images", "images": "images"},
        {"format": "messages", "file": "images/0.jpg/x", "images": "images"},
        {"format": "llava", "file": "images", "images": "images"},
        {"conversations": "images"},
        {"dataset": "images/0.jpg", "instruction": "?"},
        {"webdataset": "images/0.jpg/a.tar", "instruction": "?"},
    ],
)
def test_a_folder_or_file_of_another_kind_in_a_source(check: Check, source: dict[str, Any]) -> None:
    (found,) = check({"name": "odd", **source})
    assert found["problem"] and "Errno" not in found["problem"], found


@pytest.mark.parametrize(
    ("image", "line"),
    [
        ("file:///etc/hostname", "an image may be at a web address or in a bucket, not at file:"),
        ("local:///etc/hostname", "not at local:"),
        ("simplecache::file:///etc/hostname", "not at simplecache::file:"),
        ("../../x.jpg", "the path of its image leads out of `images`"),
        ("a/../../../x.jpg", "the path of its image leads out of `images`"),
    ],
)
def test_places_that_an_entry_may_not_name(check: Check, locations: Locations, image: str, line: str) -> None:
    (found,) = check(entries(locations, llava(0), llava(1, image=image)))
    assert "1 of 2 entries cannot be used; the first: sample l1: " in found["problem"] and line in found["problem"]


def test_an_entry_does_not_lead_into_the_own_network(check: Check, locations: Locations, web: Web) -> None:
    turns = [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": f"{web.url}/0.jpg"}}]},
        {"role": "assistant", "content": "a"},
    ]
    write_json(Path(locations.data) / "m.json", [{"messages": turns}] * 3)
    source = {"name": "m", "format": "messages", "file": "m.json"}
    found = check(source, {**entries(locations, llava(0, image=f"{web.url}/0.jpg"), llava(1))}, options=("--decode",))
    assert web.asked == [] and [one["broken"] for one in found] == [3, 1]
    # the server of `images` is the operator's choice
    (found_there,) = check({**source, "images": web.url}, options=("--decode",))
    assert found_there["problem"] is None and "/0.jpg" in web.asked


def test_a_pipe_is_no_image_and_is_not_waited_for(check: Check, locations: Locations, tmp_path: Path) -> None:
    os.mkfifo(Path(locations.data) / "images" / "pipe.jpg")
    report = tmp_path / "report.jsonl"
    source = entries(locations, llava(0), llava(1, image="images/pipe.jpg"))
    (found,) = check(source, options=("--decode", "--report", str(report)))
    assert found["broken"] == 1 and json.loads(report.read_text())["reason"].endswith("not a regular file")


@pytest.mark.parametrize(
    "action",
    [
        ("export", "pinned", "--format", "llava", "--out", "out"),
        ("snapshot", "show", "pinned"),
        ("snapshot", "show", "pinned", "--json"),
        ("snapshot", "split", "pinned"),
        ("evaluate", "pinned"),
        ("report", "pinned", "--out", "page.html"),
        ("check",),
    ],
)
def test_a_lost_part_of_a_snapshot_is_told(
    action: tuple[str, ...],
    locations: Locations,
    check: Check,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    pin(locations.store, write_shards(tmp_path / "shards", 1, 3))
    (part,) = (tmp_path / "store").glob("parts/llm/**/*.parquet")
    part.unlink()
    line = "snapshot pinned has lost parts/llm/"
    if action == ("check",):
        (found,) = check({"name": "ours", "snapshot": "pinned", "instruction": "?"})
        assert found["problem"].startswith(line)
    else:
        assert code_of(*action, "--store", locations.store.uri) == exits.STORE_BROKEN
        shown, err = capsys.readouterr()
        assert f"strata: {line}" in err
        # what can be shown is shown
        assert ("selection" in shown) is (action[:2] == ("snapshot", "show"))


@pytest.mark.parametrize(
    ("instruction", "line"),
    [
        ("Be short.", "the instruction 'Be short.' has no {question}"),
        (["{question}", "Be short."], "the instruction 'Be short.' has no {question}"),
        ("{question} {other}", "an instruction has {other}; the only placeholder is {question}"),
    ],
)
def test_an_instruction_that_loses_the_questions_is_refused(instruction: Any, line: str) -> None:
    source = {"name": "charts", "format": "chartqa", "file": "a.json", "images": "i", "instruction": instruction}
    with pytest.raises(ValidationError, match=re.escape(f"charts: {line}")):
        SourceSettings.model_validate(source)
    SourceSettings.model_validate({**source, "instruction": "Answer with {question} as JSON {}"})
