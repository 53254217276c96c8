"""Data cards: what they say of snapshots and exports, their head, and the commands in them."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import datasets
import pytest
import yaml
from huggingface_hub import DatasetCard
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from strata.cli import exits
from strata.core.layers import LAYERS
from strata.data.exports import FORMATS, Form, Request
from strata.errors import InvalidInput
from strata.judgments import Judgments
from strata.publishing import About, BadSums, card_of, export, facts_of
from strata.publishing.checksums import SUMS, parse_sums
from strata.publishing.papers.heads import size_of, yaml_of
from strata.publishing.papers.markdown import fenced, inline, table
from strata.snapshots import Selection, Snapshot, Snapshots
from strata.store import Store
from tests.cli.test_cli import code_of
from tests.described import described, write_part
from tests.judged import judgment
from tests.publishing.conftest import FINGERPRINT, keep_demo_profile

LOADED = ["llava", "llama-factory", "ms-swift", "messages", "webdataset", "parquet"]  # by `datasets` alone


def test_a_card_says_what_is_known(store: Store, snapshot: Snapshot, tmp_path: Path) -> None:
    about = About("Cars", "cc-by-4.0", ("en", "de"), "Ada", "https://example.org/cars")
    export(store, snapshot, Request("parquet", LAYERS["regions"]), tmp_path / "out", about)
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    head = DatasetCard(text).data.to_dict()
    assert (head["license"], head["language"], head["pretty_name"]) == ("cc-by-4.0", ["en", "de"], "Cars")
    assert (head["size_categories"], head["task_categories"]) == (["n<1K"], ["object-detection", "image-to-text"])
    assert head["configs"][0]["data_files"] == [{"split": "train", "path": "data/*.parquet"}]
    assert "# Cars\n" in text and snapshot.id in text
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
    assert "Nobody reviewed it" in text and "cc-by-4.0, as its owner has named it" in text


def test_what_nobody_knows_is_unknown(store: Store, tmp_path: Path) -> None:
    write = write_part(store, [described(key) for key in "ab"])
    card = card_of(facts_of(store, Snapshots(store).create("bare", [write], Selection()), About()))
    head = DatasetCard(card).data.to_dict()
    assert head["license"] == "unknown" and "language" not in head and "configs" not in head
    assert "their models are unknown" in card and "No verifier has read" in card
    assert "unknown: its owner has named none" in card and "does not name its sources" in card


def test_the_language_is_that_of_the_descriptions(store: Store, snapshot: Snapshot, tmp_path: Path) -> None:
    for layer, languages in (("description", ["en"]), ("alt_text", None)):
        export(store, snapshot, Request("llava", LAYERS[layer]), tmp_path / layer)
        text = (tmp_path / layer / "README.md").read_text(encoding="utf-8")
        assert DatasetCard(text).data.to_dict().get("language") == languages


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
def test_checksums_of_every_format(store: Store, snapshot: Snapshot, tmp_path: Path, form: Form) -> None:
    out = tmp_path / "out"
    export(store, snapshot, Request(form, LAYERS["description"]), out)
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", SUMS], cwd=out, check=True)
    listed = parse_sums((out / SUMS).read_text())
    there = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert there == {*listed, SUMS} and {"README.md", "croissant.json", "composition.png", "_provenance.json"} <= there
    if form in LOADED:
        # by the head of the card alone
        loaded = datasets.load_dataset(str(out), split="train", cache_dir=str(tmp_path / "cache"))
        assert loaded.num_rows == 8
        assert "image" not in loaded.features or form == "llava" or isinstance(loaded.features["image"], datasets.Image)


COMMANDS: list[list[str]] = [
    [],
    ["--select", "balanced", "--count", "12", "--seed", "7"],
    ["--select", "balanced", "--count", "8", "--by", "words:20,40", "--by", "thing:car", "--target", "thing=car:0.5"],
    ["--select", "balanced", "--count", "8", "--target", "objects=0:0.25", "--accept-shortfall"],
    ["--select", "best", "--share", "0.3"],
    ["--where", 'objects >= 1 and key != "it\'s"', "--cap", "9", "--unique", "--same", "listed"],
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


def test_a_licence_may_be_an_address(store: Store, snapshot: Snapshot) -> None:
    head = DatasetCard(card_of(facts_of(store, snapshot, About(license="https://example.org/terms")))).data.to_dict()
    assert (head["license"], head["license_link"]) == ("other", "https://example.org/terms")


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


@pytest.mark.parametrize("line", ["x  a", "0" * 64 + "  ../a", "0" * 64 + "  /a", "0" * 64 + "  a//b", "0" * 64 + " a"])
def test_checksums_that_lead_elsewhere_are_refused(line: str) -> None:
    with pytest.raises(BadSums):
        parse_sums(f"{'1' * 64}  good\n{line}\n")


def test_an_about_is_checked_in_python_too() -> None:
    with pytest.raises(InvalidInput, match="--license"):
        About(license="all rights reserved")
