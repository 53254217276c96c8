"""`strata snapshot` and `strata clean` on a store of their own; no service runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from strata.cli import exits
from strata.core.profiles import load_profile
from strata.core.settings import Settings
from strata.snapshots.features import FEATURES
from strata.snapshots.snapshots import Snapshots
from strata.store.provenance import keep_profile
from strata.store.store import Store
from tests.cli.test_cli import code_of
from tests.described import described, write_part

PROFILE = load_profile("demo", Settings().profiles_dir)
FINGERPRINT = PROFILE.fingerprint("llm")


@pytest.fixture
def described_store(store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Forty described images of the demo profile, in the store that the commands find."""
    for number in range(2):
        records = [described(f"{number}{n}", ["car"] * (n % 3), 10 * (n % 5), n % 2 == 0) for n in range(20)]
        write_part(store, records, number=number, fingerprint=FINGERPRINT)
    keep_profile(store, PROFILE)
    monkeypatch.setenv("STRATA_STORE", store.uri)
    return store


def create(name: str, *more: str, source: str = "demo") -> int:
    return code_of("snapshot", "create", name, "--from", source, *more)


@pytest.mark.usefixtures("described_store")
def test_create_shows_composition_and_provenance(capsys: pytest.CaptureFixture[str]) -> None:
    assert create("first", "--select", "balanced", "--count", "12", "--seed", "7") == 0
    out, err = capsys.readouterr()
    assert not err  # no bar where nobody watches
    assert "12 selected of 40 that pass; 40 succeeded, 0 filtered, 0 failed, in 2 parts" in out
    assert "selection: balanced, 12, seed 7, by text, objects, words, thing, objects=0 at most 0.35" in out
    assert "None" not in out and "['" not in out
    for axis in ("objects", "text", "words", "thing"):
        assert f"\n{axis} " in out
    assert "█" in out
    assert f"profile demo, fingerprint {FINGERPRINT}" in out
    for stage in PROFILE.stages.values():
        assert stage.model in out and stage.revision in out
    assert f"region {PROFILE.evidence.region}" in out
    assert "You describe a picture in a few plain sentences." in out


def test_json_is_whole(described_store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert create("first", "--share", "0.5", "--where", "objects >= 1 and text", "--unique", "--json") == 0
    made = json.loads(capsys.readouterr().out)
    assert code_of("snapshot", "show", made["id"], "--json") == 0
    assert json.loads(capsys.readouterr().out) == made
    opened = Snapshots(described_store).open("first")
    assert made["name"] == "first" and made["parts"] == opened.parts and made["sources"] == ["demo"]
    assert made["counts"]["selected"] == round(made["counts"]["passed"] / 2) == opened.rows().num_rows
    assert made["provenance"][0]["prompts"].keys() == {"small"}
    assert code_of("snapshot", "list", "--json") == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert listed["id"] == made["id"] and "parts" not in listed


@pytest.mark.usefixtures("described_store")
def test_list_and_diff(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("snapshot", "list") == 0
    assert create("one", "--count", "10") == create("two", "--count", "20") == create("three", "--like", "one") == 0
    capsys.readouterr()
    assert code_of("snapshot", "list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["name", "one", "two", "three"]
    assert code_of("snapshot", "diff", "one", "two") == 0
    out = capsys.readouterr().out
    assert "rows: 10 in both, 10 added, 0 removed\nparts: 2 in both, 0 added, 0 removed\n" in out
    assert "  count: 10 → 20\n" in out and out.endswith("provenance: the same\n")
    assert code_of("snapshot", "diff", "one", "three") == 0
    assert "the same parts, selection and rows" in capsys.readouterr().out
    assert code_of("snapshot", "diff", "two", "one", "--json") == 0
    assert json.loads(capsys.readouterr().out)["rows"] == {"common": 10, "added": 0, "removed": 10}


def test_what_a_balance_makes_less_even_is_told(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    # half of the rows have text: all of those without things, and few of the others
    records = [described(f"{n}", ["car"] * (n % 4), 30, n % 4 == 0 or n % 12 == 1) for n in range(48)]
    write_part(store, [*records, *(described(f"t{n}", [], 30, True) for n in range(16))], fingerprint=FINGERPRINT)
    chosen = ("--select", "balanced", "--by", "objects:1", "--by", "text", "--count", "32", "--store", store.uri)
    assert create("first", *chosen, source=FINGERPRINT) == 0
    out = capsys.readouterr().out
    assert "farther from the target than before the selection:\n" in out
    assert "  text=yes: 50.0% before, 62.5% after; the target is 50.0%\n" in out


@pytest.mark.usefixtures("described_store")
def test_own_files_and_a_cap(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores, keys = tmp_path / "scores.csv", tmp_path / "keys.txt"
    scores.write_text("key,beauty\n00,5\n01,6\n02,7\n", encoding="utf-8")
    keys.write_text("01\nnot-there\n", encoding="utf-8")
    files = ("--scores", str(scores), "--exclude", str(keys))
    assert create("first", "--where", "beauty > 4", *files) == 0
    out, err = capsys.readouterr()
    assert "2 selected of 2 that pass" in out and "--scores " in out
    assert err.splitlines() == [
        "strata: 37 of 40 rows have no scores, such as '03'",
        "strata: of the keys of --exclude, no row has 1, such as 'not-there'",
    ]
    assert create("second", "--like", "first") == exits.USAGE
    assert "needs a file: give --exclude and --scores" in capsys.readouterr().err
    assert create("second", "--like", "first", *files) == 0
    # every description is a repeated "word", which is a noun
    assert create("third", "--cap", "5", "--json") == 0
    made = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert made["composition"]["nouns"]["word"][0] > 30 and 0 < made["counts"]["selected"] < 30


@pytest.mark.usefixtures("described_store")
def test_a_selection_from_a_file_and_options_that_come_before_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, plot = tmp_path / "half.toml", tmp_path / "plot.png"
    file.write_text("select = 'concepts'\nshare = 0.5\n\n[quota]\ndemo = 15\n", encoding="utf-8")
    chosen = ("--selection", str(file), "--accept-shortfall", "--plot", str(plot), "--json")
    assert create("first", *chosen, "--share", "0.25") == 0
    made = json.loads(capsys.readouterr().out)
    assert made["counts"]["selected"] == 10 and plot.stat().st_size > 1000
    assert made["composition"]["quotas"] == {"demo": [40, 10], "other": [0, 0]}
    assert made["composition"]["nouns"]["word"][0] > 30
    assert create("second", *chosen[:-1]) == 0
    out = capsys.readouterr().out
    assert "15 selected of 40 that pass" in out
    assert "concepts, 0.5 of all, seed 0, of nouns, at most 15 of demo" in out
    assert create("third", "--selection", str(file), "--like", "first") == exits.USAGE


@pytest.mark.usefixtures("described_store")
def test_pages_and_deletion(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("one", "two", "three"):
        assert create(name, "--count", "3") == 0
    capsys.readouterr()
    assert code_of("snapshot", "list", "--limit", "2") == 0
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()] == ["name", "two", "three"]
    assert err == "1 older: strata snapshot list --limit 2 --before two\n"
    assert code_of("snapshot", "list", "--before", "two", "--json") == 0
    out, err = capsys.readouterr()
    assert [one["name"] for one in json.loads(out)] == ["one"] and not err
    assert code_of("snapshot", "delete", "one", "two") == 0
    assert capsys.readouterr() == ("one\ntwo\n", "nothing was deleted: add --yes\n")
    assert code_of("snapshot", "delete", "one", "none", "--yes") == exits.REQUEST_REFUSED  # all, or none
    capsys.readouterr()
    assert code_of("snapshot", "delete", "one", "two", "--yes") == 0
    assert capsys.readouterr().out == "deleted one\ndeleted two\n"
    assert code_of("snapshot", "list", "--json") == 0
    assert [one["name"] for one in json.loads(capsys.readouterr().out)] == ["three"]


@pytest.mark.usefixtures("described_store")
def test_a_picture_that_cannot_be_written_leaves_the_snapshot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.png").mkdir()
    assert create("first", "--count", "3", "--plot", str(tmp_path / "a.png")) == exits.USAGE
    assert "the snapshot first is there, its picture is not" in capsys.readouterr().err
    assert code_of("snapshot", "show", "first") == 0


@pytest.mark.usefixtures("described_store")
def test_of_many_snapshots_the_newest_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(22):
        assert create(f"n{number}", "--count", "1") == 0
    capsys.readouterr()
    assert code_of("snapshot", "show", "none") == exits.REQUEST_REFUSED
    told = capsys.readouterr().err
    assert told.count(", n") == 19 and told.endswith("n9, and 2 others\n")


@pytest.mark.usefixtures("described_store")
def test_target_shares(capsys: pytest.CaptureFixture[str]) -> None:
    chosen = ("--select", "balanced", "--by", "text", "--by", "objects:1", "--target", "text=yes:0.75", "--count", "16")
    assert create("first", *chosen, "--json") == 0
    composition = json.loads(capsys.readouterr().out)["composition"]
    assert composition["text"] == {"no": [20, 4], "yes": [20, 12]}
    assert composition["objects"]["0"] == [14, 7] or composition["objects"]["0"] == [14, 8]
    assert set(composition) == {"objects", "text", "words", "thing"}  # what is shown does not depend on it


@pytest.mark.usefixtures("described_store")
def test_plots(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert create("first", "--count", "10") == 0
    png, svg = tmp_path / "plot.png", tmp_path / "plot.svg"
    for path in (png, svg):
        assert code_of("snapshot", "show", "first", "--plot", str(path)) == 0
        assert capsys.readouterr().err == f"plot: {path}\n"
    with Image.open(png) as image:
        assert image.width > 400 and len(set(image.convert("RGB").resize((200, 80)).getdata())) > 3
    assert ElementTree.parse(svg).getroot().tag.endswith("svg")


@pytest.mark.usefixtures("described_store")
def test_clean_tells_first(described_store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert create("first", "--count", "1") == 0
    stray = write_part(described_store, [described("x")], identity="c" * 16).path
    capsys.readouterr()
    assert code_of("clean") == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{stray}\n1 file, ") and out.endswith("can be removed with --yes\n")
    assert described_store.exists(described_store.path(stray))
    assert code_of("clean", "--yes", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["removed"] and told["files"] == [stray] and told["bytes"] > 0
    assert not described_store.exists(described_store.path(stray))
    assert code_of("clean") == 0
    assert capsys.readouterr().out == "0 files, 0.0 MB can be removed with --yes\n"


@pytest.mark.usefixtures("described_store")
@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        ("create taken --from demo", exits.REQUEST_REFUSED, "strata: there is a snapshot 'taken'"),
        ("create a/b --from demo", exits.USAGE, "strata: 'a/b' is not a valid snapshot name"),
        ("create x --from nojob", exits.REQUEST_REFUSED, "strata: 'nojob': there is no such job, profile or finger"),
        ("create x --from demo --count 41", exits.USAGE, "strata: 41 rows are requested, but only 40 exist"),
        ("create x --from demo --share 2", exits.USAGE, "strata: --share: Input should be less than or equal to 1"),
        ("create x --from demo --share 1 --count 1", exits.USAGE, "strata: a count and a share exclude each other"),
        ("create x --from demo --where colour", exits.USAGE, "strata: the filter 'colour' cannot be read: there is no"),
        (
            "create x --from demo --where objects>9",
            exits.USAGE,
            "strata: no row to select: 40 succeeded, of which 0 pass",
        ),
        ("create x --from demo --by text", exits.USAGE, "strata: --by and --target are for --select balanced"),
        ("create x --from demo --select balanced --by colour", exits.USAGE, "strata: --by 'colour': there is no"),
        ("create x --from demo --select balanced --target text=1", exits.USAGE, "strata: --target 'text=1' is no"),
        (
            "create x --from demo --select balanced --by text --target text=yes:1.0 --count 30",
            exits.USAGE,
            "strata: the target text=yes:1 of 30 rows is 30 rows, but only 20 can be taken; --accept-shortfall",
        ),
        (
            "create x --from demo --select balanced --by thing --target thing=cra:0.5",
            exits.USAGE,
            "strata: no row has the thing 'cra'; did you mean 'car'?",
        ),
        ("delete none", exits.REQUEST_REFUSED, "strata: no snapshot 'none'; there are: taken"),
        ("list --before none", exits.USAGE, "strata: --before 'none': there is no snapshot of this name"),
        ("create x --from demo --like none", exits.REQUEST_REFUSED, "strata: no snapshot 'none'; there are: taken"),
        ("create x --from demo --like taken --count 1", exits.USAGE, "strata: --like uses the whole selection"),
        ("show none", exits.REQUEST_REFUSED, "strata: no snapshot 'none'; there are: taken"),
        ("diff taken none", exits.REQUEST_REFUSED, "strata: no snapshot 'none'; there are: taken"),
        ("show taken --plot plot.txt", exits.USAGE, "strata: plot.txt: a plot is saved as .png"),
        ("show taken --plot /no/such/plot.png", exits.USAGE, "strata: /no/such/plot.png: its folder does not exist"),
        ("create x --from demo --scores no.csv", exits.USAGE, "strata: no.csv: No such file or directory"),
        ("create x --from demo --exclude .", exits.USAGE, "strata: .: Is a directory"),
        ("create x --from demo --same near", exits.USAGE, "strata: --same says which pictures are one to --unique"),
        ("create x --from demo --share 0", exits.USAGE, "strata: --share: Input should be greater than 0"),
        ("create x --from demo --select best --quality colour", exits.USAGE, "strata: the filter 'colour' cannot be"),
        ("create x --from demo --select concepts --concepts verbs", exits.USAGE, "strata: --concepts: Input should be"),
        (
            "create x --from demo --select diverse",
            exits.USAGE,
            "strata: the rows of the profile 'demo' have no 'embedding' yet",
        ),
        ("create x --from demo --quota demo", exits.USAGE, "strata: --quota 'demo' is not SOURCE=ROWS"),
        ("create x --from demo --quota job=3", exits.USAGE, "strata: no row comes from 'job'"),
        (
            "create x --from demo --quota demo=3 --count 9",
            exits.USAGE,
            "strata: 9 rows are requested, but the quotas leave 3",
        ),
        ("create x --from demo --selection none.toml", exits.USAGE, "strata: none.toml: No such file or directory"),
        ("create x --from demo --plot plot.txt", exits.USAGE, "strata: plot.txt: a plot is saved as .png"),
        ("list --store nothing://at/all", exits.USAGE, "strata: --store or STRATA_STORE: nothing://"),
    ],
)
def test_what_goes_wrong_is_one_line_and_a_code(
    arguments: str, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert create("taken") == 0
    capsys.readouterr()
    assert code_of("snapshot", *arguments.split()) == code
    out, err = capsys.readouterr()
    assert err.startswith(line) and err.count("\n") == 1 and not out


@pytest.mark.usefixtures("described_store")
def test_without_matplotlib_a_plot_says_what_to_install(capsys: pytest.CaptureFixture[str]) -> None:
    assert create("first") == 0
    hide = "import sys; sys.modules['matplotlib'] = None; from strata.cli.main import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", hide, "snapshot", "show", "first", "--plot", "a.png"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == exits.USAGE
    assert done.stderr == "strata: plots need matplotlib: pip install 'strata[training]'\n"


def test_features_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("snapshot", "features") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(FEATURES)
    assert lines[1].split()[-5:] == ["0,", "1,", "2-3,", "4-6,", "7+"]


def test_a_store_that_is_not_there_has_no_snapshots(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("snapshot", "list", "--json", "--store", str(tmp_path / "none")) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert not (tmp_path / "none").exists()
