"""Data cards: what they say of snapshots and exports, their head, and the commands in them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path, PureWindowsPath
from types import SimpleNamespace
from typing import Any, get_args

import datasets
import pytest
import yaml
from huggingface_hub import DatasetCard
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from strata.cli import exits
from strata.core import chosen_shard
from strata.core.layers import LAYERS, VARIANT_LEVELS
from strata.data.exports import FORMATS, Form, Request
from strata.errors import InvalidInput
from strata.judgments import Judgments
from strata.publishing import About, BadSums, card_of, facts_of
from strata.publishing.checksums import SUMS, parse_sums
from strata.publishing.papers.commands import selection_options
from strata.publishing.papers.facts import Exported
from strata.publishing.papers.heads import size_of, yaml_of
from strata.publishing.papers.markdown import fenced, inline, table
from strata.publishing.papers.rules import rules_of
from strata.snapshots import Same, Selection, Snapshot, Snapshots, axes_of, quotas_of
from strata.store import Store
from tests.cli.test_cli import code_of
from tests.data.test_exports import mds_samples
from tests.described import described, write_part
from tests.judged import JOB, judgment
from tests.publishing.conftest import ABOUT, FINGERPRINT, keep_demo_profile
from tests.queue.requests import job_request

LEVELS = {**LAYERS, **VARIANT_LEVELS}


def test_a_card_says_what_is_known(exports: Callable[[Form], Path]) -> None:
    text = (exports("parquet") / "README.md").read_text(encoding="utf-8")
    head = DatasetCard(text).data.to_dict()
    assert (head["license"], head["license_link"], head["pretty_name"]) == ("other", ABOUT.license, "Cars")
    assert (head["size_categories"], head["task_categories"]) == (["n<1K"], ["object-detection", "image-to-text"])
    assert head["configs"][0]["data_files"] == [{"split": "train", "path": "data/*.parquet"}]
    assert "# Cars\n" in text and re.search(r"\| snapshot's id \| [0-9a-f]{64} \|", text)
    size = (exports("parquet") / "data" / "00000.parquet").stat().st_size
    assert f"| size | {size / 1e3:,.1f} kB in 1 file |" in text and "| question |" not in text
    # no features were computed
    assert "libfacedetection" not in text and "| demo | sharpness |" not in text
    assert "| words | 32 in the texts, 4.0 an image |" in text  # "thing KEY; an edge"
    assert re.search(r"\n```text\nthing 00000000\d; an edge\n```\n", text)
    for row in ("succeeded | 8", "filtered by a rule | 1", "failed | 1", "exported | 8", "few\\_words | 1"):
        assert f"| {row} |" in text, row
    assert "| ocr OSError | 1 |" in text and "| wrong\\_count | 8 |" in text
    assert "16 sentences of 8 descriptions" in text and "has cut or shortened 8" in text
    assert "| regions | 16 | low\\_match 8 |" in text
    # models with revisions and licences, prompts, warnings
    assert (
        "| demo | captioner | bundled:captioner | e3b32263ac020a42cc97c485b716617b3c661a7828fa76b26af22e71e17fc2a4"
        in text
    )
    assert "Apache-2.0 |" in text and "You describe a picture in a few plain sentences." in text
    assert "Its models know only drawn scenes" in text
    assert "Nobody reviewed it" in text and "CC-BY-4.0, as its owner has named it" in text
    assert "It has not read the texts of the layer regions, which were exported." in text


def test_what_nobody_knows_is_unknown(store: Store, tmp_path: Path) -> None:
    write = write_part(store, [described(key) for key in "ab"])
    card = card_of(facts_of(store, Snapshots(store).create("bare", [write], Selection()), About()))
    head = DatasetCard(card).data.to_dict()
    assert head["license"] == "unknown" and "language" not in head and "configs" not in head
    assert "their models are unknown" in card and "No verifier has read" in card
    assert "unknown: its owner has named none" in card and "does not name its sources" in card


def exported_as(layer: str, **options: Any) -> Exported:
    """An export in `llava` of all eight images, without its files."""
    counts = {"exported": 8, "without_text": 0, "broken": 0}
    return Exported(Request("llava", LEVELS[layer], **options), counts, datetime.now(UTC))


def test_the_language_is_that_of_the_descriptions(store: Store, snapshot: Snapshot) -> None:
    for layer, named, languages in (
        ("description", (), ["en"]),
        ("alt_text", (), None),
        ("alt_text", ("de", "fr"), ["de", "fr"]),
    ):
        text = card_of(facts_of(store, snapshot, About(languages=named), exported_as(layer)))
        assert DatasetCard(text).data.to_dict().get("language") == languages


def test_a_card_of_other_texts_of_the_descriptions(store: Store, snapshot: Snapshot) -> None:
    card = card_of(facts_of(store, snapshot, About(), exported_as("description.short")))
    assert "each with a text of the layer description.short" in card and "| languages | en |" in card
    assert "It has not read the texts of the layer description.short, which were exported." in card
    asked = card_of(facts_of(store, snapshot, About(), exported_as("description.questions")))
    assert "each with questions and their answers" in asked and "| question |" not in asked


def test_reviewers_are_counted_and_not_named(store: Store) -> None:
    part = write_part(store, [described(key) for key in "abcd"])
    snapshot = Snapshots(store).create("few", [part], Selection())
    said = [judgment("1", 0, key="a"), judgment("2", 1, "rejected", key="b", reviewer="Bob", reason="incomplete")]
    Judgments(store).append(said)
    card = card_of(facts_of(store, snapshot, About()))
    assert "2 reviewers judged 2 records of 4" in card and "Nobody" not in card
    assert "| descriptions accepted as they are | 0.500 | 0.095 to 0.905 | 1 | 2 |" in card
    assert "| incomplete | 1 |" in card
    assert not re.search("Ada|Bob", card)


def test_lost_judgments_are_told(store: Store) -> None:
    part = write_part(store, [described(key) for key in "ab"])
    snapshot = Snapshots(store).create("few", [part], Selection())
    (path,) = Judgments(store).append([judgment("1", 0, key="a")])
    store.put(store.path(path), b"broken")
    assert "cannot be read whole, so no rate is given" in card_of(facts_of(store, snapshot, About()))


@pytest.mark.parametrize("form", FORMATS)
def test_checksums_of_every_format(exports: Callable[[Form], Path], form: Form) -> None:
    out = exports(form)
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", SUMS], cwd=out, check=True)
    listed = parse_sums((out / SUMS).read_text())
    there = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert there == {*listed, SUMS} and {"README.md", "croissant.json", "composition.png", "_provenance.json"} <= there


@pytest.mark.parametrize("form", FORMATS)
def test_the_code_of_the_card_loads_it(
    exports: Callable[[Form], Path], tmp_path: Path, form: Form, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its code alone, and for `datasets` by its head. Of `streaming`, which allows no numpy of ours, a reader."""
    out = exports(form)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path))
    reader = SimpleNamespace(StreamingDataset=lambda local: mds_samples(Path(local)))
    monkeypatch.setitem(sys.modules, "streaming", reader)
    text = (out / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"## Load it\n\n```python\n(.*?)\n```", text, re.DOTALL)
    found: dict[str, Any] = {}
    exec(code.replace("FOLDER", str(out)), found)
    assert len(found["samples"]) == 8
    sample = found["samples"][0]
    image: Any = (
        found.get("image") or sample.get("image") or sample.get("jpg") or next(iter(sample.get("images") or []), None)
    )
    assert form in ("qwen-vl", "monkey") or (100 <= image.width < 108 and image.height == 50)
    # the fields that the card names are there
    fields = re.findall(r"^\| (\S+) \|", text.split("Its fields:")[1].split("##")[0], re.MULTILINE)
    names = {name.replace("\\", "").lstrip(".").rstrip(",") for name in fields} - {"field", "---"}
    assert names - {"objects"} <= set(sample)  # which has boxes in it


def test_a_data_set_on_disk_is_loaded_from_the_hub_too(exports: Callable[[Form], Path], tmp_path: Path) -> None:
    """By the head of its card, as from the hub, where `load_from_disk` reads nothing; `datasets` refuses a folder."""
    shutil.copytree(exports("hf"), tmp_path / "hub", ignore=shutil.ignore_patterns("state.json"))
    loaded = datasets.load_dataset(str(tmp_path / "hub"), split="train", cache_dir=str(tmp_path))
    assert loaded.num_rows == 8 and loaded[0]["image"].height == 50


@pytest.mark.parametrize(
    "selection",
    [
        *(Selection(unique=True, same=same, alike=0.9 if same == "embedding" else None) for same in get_args(Same)),
        Selection(unique=True, keep="best"),
        Selection(same="near", files=(("without", "0" * 64),), leave_out=(("blurred", "sharpness < 20"),)),
        Selection(
            unique=True, same="near", bits=40, keep="largest", files=(("scores", "1" * 64), ("exclude", "2" * 64))
        ),
    ],
)
def test_every_selection_is_told(selection: Selection) -> None:
    told = " ".join(rules_of(selection))
    for name, rule in selection.leave_out:
        assert f"rule {name} " in told and rule in told
    for option, digest in selection.files:
        assert f"--{option}" in told and digest in told
    assert ("Of pictures that are one" in told) is selection.unique
    assert ("cosine is at least 0.9" in told) is (selection.alike is not None)
    assert selection.bits == 31 or f"at most {selection.bits} bits" in told
    words = selection_options(selection)
    assert (selection.keep == "first") is ("--keep" not in words) and ("--without" in words) is bool(
        selection.same == "near" and not selection.unique
    )


def test_every_setting_has_its_option_in_the_command() -> None:
    """Or follows from the others: from the rows, from the files, from the rules, which are told by themselves."""
    follows = {"score", "own", "split", "reviewed", "ways", "leave_out", "centroids"}
    settings: dict[str, dict[str, Any]] = {
        "method": {"method": "concepts"},
        "count": {"count": 5},
        "share": {"share": 0.5},
        "seed": {"seed": 5},
        "where": {"where": "text"},
        "unique": {"unique": True},
        "axes": {"method": "balanced", "axes": axes_of(["words:5"], [])},
        "cap": {"cap": 5},
        "files": {"files": (("scores", "0" * 64),)},
        "same": {"unique": True, "same": "near"},
        "alike": {"unique": True, "same": "embedding", "alike": 0.9},
        "bits": {"unique": True, "same": "near", "bits": 40},
        "keep": {"unique": True, "keep": "largest"},
        "concepts": {"cap": 5, "concepts": ("tags",)},
        "quotas": {"quotas": quotas_of(["a=5"])},
        "quality": {"method": "best", "quality": "words"},
        "better": {"better": ("match",)},
    }
    assert settings.keys() | follows == Selection.model_fields.keys()
    commands = {name: selection_options(Selection(**given)) for name, given in settings.items()}
    assert len({*map(tuple, commands.values()), ()}) == len(settings) + 1
    assert selection_options(Selection()) not in commands.values()


def test_chosen_rows_are_named_by_their_shards(store: Store, snapshot: Snapshot) -> None:
    shards = [chosen_shard(f"s3://bucket/cc3m/0000{n}.tar?signature=a", JOB, "a" * 16) for n in range(3)]
    store.write_job_file(JOB, "request", job_request(JOB, tuple(shards)))
    made = Snapshots(store).create("again", list(snapshot.parts), Selection(), [JOB])
    card = card_of(facts_of(store, made, About()))
    assert "00000.tar … 00002.tar" in card and "a" * 16 not in card.split("Sources and licences")[1].split("##")[0]


def test_a_setting_of_a_later_version_is_told() -> None:
    class Later(Selection):
        weights: tuple[str, ...] = ("one",)

    assert not any("setting" in line for line in rules_of(Later()))
    told = rules_of(Later(method="concepts", count=3, weights=("one", "two")))
    assert "The setting weights: one, two" in told


def test_blurred_faces_are_told(store: Store, snapshot: Snapshot) -> None:
    card = card_of(facts_of(store, snapshot, About(), exported_as("description", blur_faces=True)))
    assert "The faces that a detector has found were blurred." in card and "Faces, names and numbers" not in card
    assert re.search(r"^strata export pinned .* --blur-faces ", card, re.MULTILINE)


COMMANDS: list[list[str]] = [
    [],
    ["--select", "balanced", "--count", "12", "--seed", "7"],
    ["--select", "balanced", "--count", "8", "--by", "words:20,40", "--by", "thing:car", "--target", "thing=car:0.5"],
    ["--select", "balanced", "--count", "8", "--target", "objects=0:0.25", "--accept-shortfall"],
    ["--select", "best", "--share", "0.3"],
    ["--where", 'objects >= 1 and key != "it\'s"', "--cap", "9", "--unique", "--same", "listed"],
    ["--better", "review", "--better=-words"],
]


@pytest.mark.parametrize("options", COMMANDS)
def test_the_commands_make_the_same_snapshot(
    store: Store, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(2):
        records = [described(f"{number}{n}", ["car"] * (n % 3), 10 * (n % 5), n % 2 == 0) for n in range(20)]
        write_part(store, records, number=number)
    keep_demo_profile(store)
    place = ["--store", store.uri]
    assert code_of("snapshot", "create", "first", "--from", FINGERPRINT, *options, *place) == 0
    capsys.readouterr()
    assert code_of("snapshot", "card", "first", "--license", "mit", *place) == 0
    card = capsys.readouterr().out
    assert DatasetCard(card).data.to_dict()["license"] == "mit"
    (command,) = re.findall(r"^strata snapshot create .*", card, re.MULTILINE)
    snapshots = Snapshots(store)
    made = snapshots.open("first").id
    snapshots.delete("first")
    more = [*place, *[option for option in options if option == "--accept-shortfall"]]
    assert code_of(*shlex.split(command)[1:], *more) == 0
    assert snapshots.open("first").id == made


def test_a_split_snapshot_has_both_commands(
    store: Store, snapshot: Snapshot, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ["--store", store.uri]
    assert code_of("snapshot", "split", "pinned", "--validation", "0.4", "--seed", "3", *place) == 0
    made = Snapshots(store).open("pinned-validation")
    card = card_of(facts_of(store, made, About()))
    assert "\nstrata snapshot split pinned --validation 0.4 --seed 3 --same near\n" in card
    assert "It is the part validation of the snapshot" in card


@pytest.mark.parametrize(
    "options",
    [
        ["--license", "all rights reserved"],
        ["--license", "https://user:word@example.org/licence"],
        ["--language", "English"],
        ["--title", "two\nlines"],
        ["--creator", " "],
        ["--url", "example.org"],
    ],
)
def test_what_cannot_be_in_a_head_is_refused(
    store: Store, snapshot: Snapshot, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--format", "llava", "--out", str(tmp_path / "out"), "--store", store.uri]
    assert code_of("export", "pinned", *common, *options) == exits.USAGE
    assert capsys.readouterr().err.startswith(f"strata: {options[0]}") and not (tmp_path / "out").exists()


def test_the_card_is_shown_on_a_terminal(store: Store, snapshot: Snapshot, capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("snapshot", "show", "pinned", "--card", "--store", store.uri) == 0
    shown = capsys.readouterr().out
    assert snapshot.id in shown and "Known limits" in shown
    assert not re.search(r"^(---|license:|\|)|\*\*|##", shown, re.MULTILINE)  # neither the head nor Markdown


# texts of any content

LINE = st.text(st.characters(blacklist_categories=["C"]), max_size=40)


@given(LINE, LINE)
def test_any_printable_text_is_yaml(name: str, other: str) -> None:
    fields = {"title": name, "tags": [name, other], "configs": [{"config_name": other, "files": [{"path": name}]}]}
    text = yaml_of(fields)
    if name.isprintable() and other.isprintable():
        assert yaml.safe_load(text) == fields


@given(st.text(max_size=40))
def test_no_text_becomes_markup(text: str) -> None:
    parser = MarkdownIt("commonmark").enable("table")
    shown = " ".join(text.split())
    printable = "".join(one for one in shown if one.isprintable())
    tokens = parser.parseInline(f"x{inline(text)}x")[0].children or []
    assert "".join(token.content for token in tokens) == f"x{printable}x"
    assert {token.type for token in tokens} <= {"text", "text_special"}
    cells = [token for token in parser.parse("\n".join(table(("a", "b"), [(text, 1)]))) if token.type == "inline"]
    assert len(cells) == 4 and cells[3].content == "1"
    (block,) = (token for token in parser.parse("\n".join(fenced(text))) if token.type == "fence")
    assert block.content.rstrip("\n") == "".join(one for one in text if one.isprintable() or one in "\n\t").rstrip("\n")


@pytest.mark.parametrize(
    ("count", "category"), [(1, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (213_000, "100K<n<1M")]
)
def test_size_categories(count: int, category: str) -> None:
    assert size_of(count) == category


@pytest.mark.parametrize(
    "line",
    [
        "x  a",
        f"{'0' * 64} a",
        *(
            f"{'0' * 64}  {path}"
            for path in ("../a", "/a", "a//b", "a/../b", "C:a", "a\\b", "a\0b", "a\x1b[2J", "a.", "a /b")
        ),
        *(f"{'0' * 64}  {path}" for path in ("good", "GOOD", "good/a", "sha256sums", "SHA256SUMS/a", ".strata-push/a")),
    ],
)
def test_checksums_that_lead_elsewhere_are_refused(line: str) -> None:
    with pytest.raises(BadSums):
        parse_sums(f"{'1' * 64}  good\n{line}\n")


PIECES = st.sampled_from(["a", "A", "é", "e\u0301", "..", ".", "", "b.txt", "b.TXT", "SHA256SUMS", "c\\d", "C:", " "])
PATHS = st.lists(st.one_of(PIECES, st.text(max_size=4)), min_size=1, max_size=3).map("/".join)


@given(st.lists(PATHS, max_size=6))
def test_paths_are_files_of_their_own_in_the_folder(paths: list[str]) -> None:
    """Whatever a list of checksums names: it is refused, or each path is another file below the folder, everywhere."""
    text = "".join(f"{number:064x}  {path}\n" for number, path in enumerate(paths))
    try:
        found = parse_sums(text)
    except (BadSums, UnicodeEncodeError):
        return
    places = [PureWindowsPath("C:/folder", name) for name in found]  # which compares without case
    assert len(set(places)) == len(found)
    for place, name in zip(places, found, strict=True):
        assert place.is_relative_to("C:/folder") and not {"..", "."} & set(place.parts)
        inside = Path("/folder", name)
        assert Path(os.path.normpath(inside)) == inside and inside.is_relative_to("/folder")
        assert not any(other != place and other.is_relative_to(place) for other in places)


def test_an_about_is_checked_in_python_too() -> None:
    with pytest.raises(InvalidInput, match="--license"):
        About(license="all rights reserved")
