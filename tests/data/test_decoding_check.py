"""`strata mixture check --decode`: every sample is read and decoded ahead of a training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.hostile.images import encoded
from strata.cli import exits
from strata.cli import main as cli
from strata.data import Fault, MixtureFile, SourceCheck, check_decoding
from strata.data.decoding_check import RUN, _Decoding
from strata.data.sources.samples import Cause
from strata.data.substitutes import SourceAway
from tests.data.fragile import Fragile
from tests.data.test_mixtures import llava, write_json

COUNT = 50  # more than two runs
NOISE = Image.fromarray(np.random.default_rng(1).integers(0, 255, (40, 32, 3), np.uint8)).resize((320, 400))
PHOTO = encoded(NOISE, "JPEG")
PNG = encoded(NOISE, "PNG")

BROKEN: dict[int, tuple[bytes | None, str]] = {  # bytes of a file (None: missing), and a part of the reason
    1: (PHOTO[: len(PHOTO) // 2], "truncated: JPEG, 320 × 400"),
    2: (PNG[: len(PNG) // 2], "truncated: PNG, 320 × 400"),
    17: (b"\n<!DOCTYPE html><html><body>404</body></html>", "not_an_image: the file is an HTML page"),
    18: (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "not_an_image: the first bytes match"),
    33: (b"", "empty: there are no bytes"),
    34: (None, "no such file"),
}
INCOMPLETE = 40
BAD_ENTRY = 48


@pytest.fixture
def mixture(tmp_path: Path) -> Path:
    """A mixture of a source with faults of each kind and a good one."""
    (tmp_path / "images").mkdir()
    for number in range(COUNT):
        data = BROKEN[number][0] if number in BROKEN else PHOTO[:-2] if number == INCOMPLETE else PHOTO
        if data is not None:
            (tmp_path / "images" / f"{number}.jpg").write_bytes(data)
    entries: list[Any] = [llava(number) for number in range(COUNT)]
    entries[BAD_ENTRY] = {"id": "bad", "image": "images/0.jpg", "conversations": "no list"}
    write_json(tmp_path / "some.json", entries)
    write_json(tmp_path / "good.json", [llava(0), llava(3)])
    path = tmp_path / "mixture.toml"
    path.write_text(
        'name = "test"\n'
        '[[sources]]\nname = "some"\nconversations = "some.json"\n'
        '[[sources]]\nname = "good"\nconversations = "good.json"\n'
        '[[sources]]\nname = "none"\nconversations = "none.json"\n'
    )
    return path


@pytest.fixture
def check(mixture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(*options: str) -> tuple[int, str, str]:
        where = ["--cache", str(tmp_path / "cache"), "--store", str(tmp_path / "store")]
        with pytest.raises(SystemExit) as ended:
            cli.main(["mixture", "check", str(mixture), *where, *options])
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run


def test_every_fault_is_found_and_counted(check: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    report = tmp_path / "report.jsonl"
    code, out, _ = check("--decode", "--report", str(report), "--json")
    assert code == exits.MIXTURE_INCOMPLETE
    some, good, none = json.loads(out)["sources"]
    assert (some["broken"], some["incomplete"], some["supply"]) == (len(BROKEN) + 1, 1, COUNT)
    assert some["problem"] == "7 of 50 samples cannot be used"
    assert some["note"] == "samples with an image whose end is missing, which are used: 1"
    assert (good["broken"], good["incomplete"], good["problem"]) == (0, 0, None)
    assert none["broken"] is None and "no such file" in none["problem"]
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    assert {line["source"] for line in lines} == {"some"}
    found = {line["key"]: line for line in lines}
    assert len(found) == len(lines) == len(BROKEN) + 2
    for number, (_, reason) in BROKEN.items():
        line = found[f"l{number}"]
        assert reason in line["reason"] and line["uri"] == f"{tmp_path}/images/{number}.jpg" and not line["used"]
    assert found[f"l{INCOMPLETE}"]["used"] and "the end marker is missing" in found[f"l{INCOMPLETE}"]["reason"]
    (bad,) = (line for line in lines if line["uri"] == f"{tmp_path}/some.json")
    assert "conversations" in bad["reason"]
    # in the order of the source
    places = [int(line["key"][1:]) for line in lines if line is not bad]
    assert places == sorted(places)


def test_the_first_of_each_source_are_shown(check: Callable[..., tuple[int, str, str]]) -> None:
    code, out, err = check("--decode")
    assert code == exits.MIXTURE_INCOMPLETE and err.splitlines()[-1] == "2 of 3 sources have problems"
    shown = out.split("what is wrong")[1]
    assert shown.count("images/") == 5 and "HTML" in shown and "--report FILE writes all" in shown
    assert "7 of 50 samples cannot be used" in out


def test_without_decode_only_files_are_looked_for(check: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = check("--json")
    some = json.loads(out)["sources"][0]
    assert code == exits.MIXTURE_INCOMPLETE and some["broken"] is None and "34.jpg" in some["problem"]
    code, _, err = check("--report", "x.jsonl")
    assert code == exits.USAGE and "--report needs --decode" in err


def test_progress_goes_to_the_end(check: Callable[..., tuple[int, str, str]]) -> None:
    assert "strata: some: 16 of 50\n" in check("--decode")[2]


class Locations:
    """Gives one source, whatever is asked for."""

    def __init__(self, source: Fragile) -> None:
        self.source = source

    def open(self, settings: Any) -> Fragile:
        """Return the source."""
        return self.source


def decoding(source: Fragile) -> tuple[list[Fault], SourceCheck]:
    file = MixtureFile.model_validate({"name": "m", "sources": [{"name": "a", "conversations": "x"}]})
    check = SourceCheck(name="a", task="a", supply=len(source), count=None, problem=None)
    return list(check_decoding(file, Locations(source), [check], lambda *of: None, pauses=())), check  # type: ignore[arg-type]


@pytest.mark.parametrize("cause", ["storage", "absent"])
def test_a_storage_that_is_away_is_told_once(cause: Cause) -> None:
    faults, check = decoding(Fragile(40, dict.fromkeys(range(40), cause)))
    assert faults == [] and check.problem is not None
    assert check.problem.startswith("nothing of this source can be read: file ")


def test_good_neighbours_are_read_once_and_equal_images_decoded_once() -> None:
    source = Fragile(40, {5: "content"}, frozenset({7, 30}))
    faults, check = decoding(source)
    assert [fault.key for fault in faults] == ["5", "7", "30"] and check.broken == 3
    assert source.reads == 3 + RUN
    work = _Decoding("a", source, ())
    assert sum(map(len, work.faults())) == 3
    assert len(work._known) == 2


def test_a_storage_that_comes_back_is_no_fault() -> None:
    source = Fragile(40, away=25)
    assert sum(map(len, _Decoding("a", source, (0.0,) * 30).faults())) == 0 and source.away == 0
    with pytest.raises(SourceAway):
        list(_Decoding("a", Fragile(40, dict.fromkeys(range(40), "storage")), ()).faults())
