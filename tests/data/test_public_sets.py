"""Public data sets in the files of their authors: each format, text only and several images, and what is malformed."""

from __future__ import annotations

import base64
import io
import json
import pickle
import re
import tomllib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from strata.cli import exits
from strata.data.exports.tables import TABLE_SCHEMA
from strata.data.mixture_files import Locations, MixtureFile, open_mixture
from strata.data.mixtures import MixtureError
from strata.data.reader import Sample, SampleReader
from strata.data.sources import pages
from strata.data.sources.conversations import Conversation
from strata.data.sources.entries import EntryError
from strata.data.sources.public import FORMATS
from strata.data.sources.public.documents import _words, pages_of
from strata.data.sources.public.files import Files
from strata.data.sources.public.questions import Options, Question, chosen
from strata.data.sources.public.source import public_source
from strata.data.sources.samples import RawSample, SampleError, TableSource
from strata.store.store import Store
from tests.checkout import CHECKOUT
from tests.cli.test_cli import code_of
from tests.data.public_sets import PDF, SETS, mix, put, put_contents
from tests.fakes import jpeg
from tests.pinned import pin, write_shards

MIXTURES = Path(__file__).resolve().parents[2] / "training" / "mixtures"
MONKEY = {source["name"]: source for source in tomllib.loads((MIXTURES / "monkey.toml").read_text("utf-8"))["sources"]}


def opened(folder: Path, *sources: dict[str, Any]) -> list[list[Sample]]:
    """The samples of each source, in the order of its file."""
    bare = [{name: value for name, value in source.items() if name not in ("count", "task")} for source in sources]
    file = MixtureFile.model_validate({"name": "test", "sources": bare})
    mixture = open_mixture(file, Locations(Store(f"{folder}/store"), str(folder), folder / "cache"))
    samples: list[list[Sample]] = [[] for _ in sources]
    names = [share.name for share in mixture.shares]
    for sample in SampleReader(mixture):
        samples[names.index(sample.task)].append(sample)
    return [sorted(found, key=lambda sample: sample.key) for found in samples]


def of_set(folder: Path, name: str, count: int = 4, **changes: Any) -> list[tuple[Any, ...]]:
    """The samples of a small data set: key, width of the image, question or instruction, and answer."""
    SETS[name](folder, count)
    source = {**MONKEY[name], "instruction": None, **changes}
    if FORMATS[source["format"]].captions:
        source["instruction"] = "Describe it."
    (samples,) = opened(folder, source)
    return [(s.key, s.image.width if s.images else 0, *[turn["content"] for turn in s.conversation]) for s in samples]


NORTH = "Which is farther north?\nA. West Virginia\nB. Louisiana\nC. Oklahoma"
LETTERS = "What is A in the diagram?\nA. ears\nB. nose\nC. mouth\nD. face"
EXPECTED: dict[str, tuple[int, tuple[str, int, str, str]]] = {  # the number of samples of 4, and the first one
    "COCO caption": (4, ("661", 109, "Describe it.", "A plate of food, 0.")),
    "TextCaps": (4, ("1", 113, "Describe it.", "A poster says game on.")),
    "VQAv2": (4, ("9000", 109, "vqav2 0?", "mesh")),
    "OKVQA": (4, ("9000", 109, "okvqa 0?", "mesh")),
    "GQA": (4, ("02930152", 110, "Is the sky dark?", "yes")),
    "ScienceQA": (3, ("1", 111, NORTH, "A")),
    "VizWiz": (4, ("VizWiz_train_00000000.jpg", 112, "What's this?", "basil")),
    "TextVQA": (4, ("0", 113, "what is the brand?", "nous les gosses")),
    "OCRVQA": (4, ("0761183272/0", 114, "Who wrote this book?", "Sandra Boynton")),
    "AI2D": (4, ("0.png-0", 115, "What is below?\nA. leaf\nB. root\nC. stem", "B")),
    "DocVQA": (4, ("338", 117, "what is the contact person name mentioned in letter?", "P. Carter")),
    "ChartQA": (4, ("41699051005347.png", 119, "How many food items are shown?", "14")),
    "InfoVQA": (4, ("65718", 118, "Which social platform has heavy female audience?", "pinterest")),
    "DeepForm": (4, ("DeepForm000/0/0", 200, "What is the value for the advertiser?", "BLOOMBERG")),
    "KLC": (4, ("KleisterCharity000/0/0", 120, "What is the value for the charity_name?", "Cancer Aid")),
    "WTQ": (4, ("WikiTableQuestions000/0/0", 121, "in which years did he win?", "2001, 2003")),
    "TabFact": (4, ("TabFact000/0/0", 122, "the wildcats won", "No")),
    "VisualMRC": (4, ("000000/0", 123, "What is shown?", "A web page is shown.")),
}


@pytest.mark.parametrize("name", SETS)
def test_each_data_set_of_the_paper_as_it_is_published(tmp_path: Path, name: str) -> None:
    found = of_set(tmp_path, name)
    assert (len(found), found[0]) == EXPECTED[name]


def test_which_answers(tmp_path: Path) -> None:
    assert {row[3] for row in of_set(tmp_path, "OKVQA", answers="first")} == {"net"}
    rows = of_set(tmp_path, "OKVQA", 1, answers="all")
    assert [(row[0], row[3]) for row in rows] == [("9000", "net"), ("9000/1", "mesh"), ("9000/2", "web")]
    assert {row[3] for row in of_set(tmp_path, "VQAv2", answers="all")} == {"net", "mesh", "web"}
    assert {row[3] for row in of_set(tmp_path, "DocVQA", answers="all")} == {"P. Carter", "p. carter"}
    assert chosen(["b", "a", " a", "b"], "majority") == ["b"]
    with pytest.raises(EntryError, match=r"^no answer$"):
        chosen([" "], "majority")


def test_options_of_the_formats(tmp_path: Path) -> None:
    # splits: problem 4 of ScienceQA is of `val`, a book of OCR-VQA too
    assert len(of_set(tmp_path, "ScienceQA", split="train")) == 3
    assert {row[1] for row in of_set(tmp_path, "OCRVQA", split="train")} == {114}
    # the text of a choice; a question with a hint and without an image
    assert len(of_set(tmp_path, "ScienceQA", split=None)) == 4
    rows = of_set(tmp_path, "ScienceQA", choice="text")
    assert rows[1] == ("2", 0, f"Context: A map.\n{NORTH}", "West Virginia")
    assert of_set(tmp_path, "AI2D")[1] == ("0.png-1", 116, LETTERS, "D")
    # photographs that show too little are left out on demand
    assert len(of_set(tmp_path, "VizWiz", answerable=True)) == 2
    # COCO images under the names of 2017, and the pages of DocVQA in one folder, as newer releases have them
    put(tmp_path / "coco/train2017/000000000009.jpg", jpeg(130))
    named: dict[str, Any] = {"image_name": "{:012d}.jpg", "images": "coco/train2017"}
    assert {row[1] for name in ("VQAv2", "COCO caption") for row in of_set(tmp_path, name, **named)} == {130}
    put(tmp_path / "docvqa/spdocvqa_images/xnbl0037_1.png", jpeg(131))
    rows = of_set(tmp_path, "DocVQA", image_name="{}.png", images="docvqa/spdocvqa_images")
    assert {row[1] for row in rows} == {131}


def test_questions_and_annotations_in_another_order(tmp_path: Path) -> None:
    SETS["VQAv2"](tmp_path, 4)
    path = tmp_path / MONKEY["VQAv2"]["questions"]
    told = json.loads(path.read_text())
    put(path, {**told, "questions": told["questions"][::-1]})
    (samples,) = opened(tmp_path, MONKEY["VQAv2"])
    assert [s.key for s in samples] == ["9000", "9001", "9002", "9003"]
    assert [s.conversation[0]["content"].split("?")[0] for s in samples] == [f"vqav2 {n}" for n in range(4)]
    # an annotation whose question is missing is one bad entry
    put(path, {**told, "questions": told["questions"][1:]})
    assert source_of(tmp_path, "VQAv2").problems() == (1, 'entry 1 (id 9000): no text "question"')


def source_of(folder: Path, name: str) -> TableSource:
    """The source of a small data set whose files are there."""
    return opened_source(folder, MONKEY[name])


def opened_source(folder: Path, setting: dict[str, Any]) -> TableSource:
    """The source of a mixture file whose files are there."""
    file = MixtureFile.model_validate({"name": "test", "sources": [setting]})
    source = Locations(Store(f"{folder}/store"), str(folder), folder / "cache").open(file.sources[0])
    assert isinstance(source, TableSource)
    return source


def test_rows_of_a_table_in_due() -> None:
    cells = [{"key": "channel", "values": [{"value": name}]} for name in ("KDVR", "KWGN")]
    annotation = {"id": "1", "key": "spots", "values": [{"children": [cell]} for cell in cells]}
    found = list(FORMATS["due"].parse({"name": "a.pdf", "annotations": [annotation]}, Options(pages="first")))
    asked = "What are the spots values for the channel column?"
    assert found == [("a/1/0", ["a#page=1"], asked, ["KDVR, KWGN"])]


# pages


def due_source(folder: Path, name: str, pages_of: list[str], values: list[str], **changes: Any) -> TableSource:
    """A set of one document with some pages, and an annotation for each value."""
    annotations = [{"id": str(n), "key": f"k{n}", "values": [{"value": value}]} for n, value in enumerate(values)]
    put(folder / "due/document.jsonl", [{"name": "doc", "annotations": annotations}])
    put_contents(folder / "due", {"doc": pages_of})
    for number in range(len(pages_of)):
        put(folder / f"due/pdfs/doc/{number}.png", jpeg(200 + number))
    source = {"name": "due", "format": name, "file": "due/document.jsonl", "images": "due/pdfs", **changes}
    return opened_source(folder, source)


def test_a_question_shows_the_page_with_its_answer(tmp_path: Path) -> None:
    """Else the answer is not in the image, which teaches to invent."""
    pages_of = ["Annual report of Cancer-Aid", "Income: 1,234 pounds", "Signed 2 May Smithson"]
    values = ["Cancer_Aid", "1234", "smith", "May"]
    source = due_source(tmp_path, "klc", pages_of, values)
    raws = source.read(range(len(source)))
    assert [(raw.turns[1], *widths(raw)) for raw in raws] == [("Cancer_Aid", 200), ("1234", 201), ("May", 202)]
    assert source.table.left_out == {"its answer is found on no page of the document": 1}
    assert source.problems() == (0, "")
    # the first page is shown only to those who ask for it
    first = due_source(tmp_path, "klc", pages_of, values, pages="first")
    assert [widths(raw) for raw in first.read(range(4))] == [[200]] * 4 and first.table.left_out == {}
    assert pickle.loads(pickle.dumps(source)).table.left_out == source.table.left_out


def test_what_is_left_out_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    due_source(tmp_path, "klc", ["one", "two"], ["Two", "three"])
    path = tmp_path / "mixture.toml"
    path.write_text(
        'name = "test"\n[[sources]]\nname = "due"\nformat = "klc"\nfile = "due/document.jsonl"\nimages = "due/pdfs"\n'
    )
    where = ["--store", f"{tmp_path}/store", "--data", str(tmp_path), "--cache", str(tmp_path / "cache")]
    assert code_of("mixture", "check", str(path), *where, "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)["sources"]
    assert (found["supply"], found["note"]) == (1, "1 left out: its answer is found on no page of the document")


@pytest.mark.parametrize(
    ("answer", "page"), [("5", "total 5 for Smith"), ("5.00", "total 5.00."), ("smith", "by Smith, 5.00")]
)
def test_a_number_is_not_found_in_a_part_of_another(answer: str, page: str) -> None:
    assert f" {_words(answer)} " in f" {_words(page)} "
    assert f" {_words('5')} " not in f" {_words('total $5.00, 1,005, 5.5')} "


def test_a_table_on_several_pages_is_left_out(tmp_path: Path) -> None:
    assert len(due_source(tmp_path, "wtq", ["one page"], ["7"])) == 1
    with pytest.raises(MixtureError, match="its document has several pages, and the question is about all"):
        due_source(tmp_path, "tabfact", ["one", "two"], ["1"])


@pytest.mark.parametrize("evidence", [{"pages": [1, 0]}, [{"page": 1}], {"pages": [7, 1]}])
def test_the_page_of_the_evidence_is_shown(evidence: Any) -> None:
    annotation = {"id": "1", "key": "k", "values": [{"value": "x"}], "evidence": evidence}
    layer = {"tokens": ["x", "y"], "structures": {"pages": {"structure_value": [[0, 1], [1, 2]]}}}
    entry = {"name": "a", "annotations": [annotation], "pages": pages_of([{"tool_name": "t", "tokens_layer": layer}])}
    (found,) = FORMATS["deepform"].parse(entry, Options())
    assert list(found.images) == ["a#page=2"]


def test_each_annotation_is_an_entry_by_itself(tmp_path: Path) -> None:
    """One without `values` does not take the good questions of its document with it; without ids numbers name them."""
    due_source(tmp_path, "klc", ["Smith 5"], ["Smith"])
    good = [{"key": f"k{value}", "values": [{"value": value}]} for value in ("Smith", "5")]
    annotations = [good[0], {"key": "bad"}, "text", {"id": "", **good[1]}, {"id": 0, **good[1]}]
    put(tmp_path / "due/document.jsonl", [{"name": "doc", "annotations": annotations}])
    source = {"name": "due", "format": "klc", "file": "due/document.jsonl", "images": "due/pdfs"}
    table = opened_source(tmp_path, source)
    assert [raw.key for raw in table.read([0, 3, 4])] == ["doc/0/0", "doc/3/0", "doc/0/0"]
    assert table.problems() == (2, 'entry 1 (id doc): annotation 2: no list "values"')


def test_parts_of_an_entry_are_bad_by_themselves() -> None:
    """The same rule for the lists of questions of other sets."""
    page = {"id": "p", "image_filename": "a.png", "qa_data": [{}, {"question": {"text": "q"}, "answer": {"text": "a"}}]}
    book = "b", {"split": 1, "imageURL": "u/x.jpg", "questions": ["q", "r"], "answers": [None, "s"]}
    choice = {"answerTexts": ["x", "y"], "correctAnswer": 1, "questionId": "2"}
    diagram = {"imageName": "0.png", "questions": {"q": {**choice, "correctAnswer": 7}, "r": choice}}
    for name, entry in (("visualmrc", page), ("ocrvqa", book), ("ai2d", diagram)):
        bad, good = FORMATS[name].parse(entry, Options())
        assert isinstance(bad, Conversation) and bad.problem.startswith("question 1: ") and isinstance(good, Question)


def test_contents_in_another_order_and_without_a_document(tmp_path: Path) -> None:
    SETS["KLC"](tmp_path, 4)
    contents = tmp_path / "due/KleisterCharity/train/documents_content.jsonl"
    lines = contents.read_text().splitlines(keepends=True)
    contents.write_text("".join([lines[3], '{"name": ["no"]}\n', lines[2], lines[0]]))
    source = source_of(tmp_path, "KLC")
    keys = [f"KleisterCharity00{n}/{n}/0" for n in (0, 2, 3)]
    assert [raw.key for raw in source.read([0, 2, 3])] == keys
    reason = "entry 2 (id KleisterCharity001): documents_content.jsonl has no document of this name"
    assert source.problems() == (1, reason)
    # tokens that tell no pages
    contents.write_text("".join([lines[0], '{"name": "KleisterCharity001", "contents": [{"tokens_layer": {}}]}\n']))
    count, first = source_of(tmp_path, "KLC").problems()
    assert (count, first) == (
        3,
        reason.replace("has no document of this name", "does not tell the tokens of its pages"),
    )


@pytest.mark.parametrize(
    ("variants", "written", "answer"),
    [
        (["10348.00", "10,348"], "Total 10,348", "10,348"),
        (["10348", "10,348"], "Total $10,348.", "10,348"),
        (["SMITH", "Smith"], "by Smith", "Smith"),
        (["10348", "7"], "Total 10,348", "10348"),
        (["1234.5", "absent"], "neither", "1234.5"),
        (["5", "total"], "total 5.00", "total"),
    ],
)
def test_the_answer_is_the_variant_that_the_page_shows(
    tmp_path: Path, variants: list[str], written: str, answer: str
) -> None:
    due_source(tmp_path, "klc", [written], ["x"])
    values = [{"value": variants[0], "value_variants": variants}]
    for name, told in (("klc", answer), ("wtq", f"{answer}, neither")):
        annotation = {"id": "1", "key": "k", "values": values + [{"value": "neither"}] * (name == "wtq")}
        put(tmp_path / "due/document.jsonl", [{"name": "doc", "annotations": [annotation]}])
        source = {"name": "due", "format": name, "file": "due/document.jsonl", "images": "due/pdfs"}
        assert opened_source(tmp_path, source).read([0])[0].turns[1] == told


def test_pages_need_the_contents_of_the_documents(tmp_path: Path) -> None:
    SETS["KLC"](tmp_path, 2)
    contents = tmp_path / "due/KleisterCharity/train/documents_content.jsonl"
    contents.unlink()
    with pytest.raises(MixtureError, match=f'no such file: {contents}, which tells .*; pages = "first" does without'):
        source_of(tmp_path, "KLC")


@pytest.mark.parametrize(
    ("files", "page"),
    [
        (("d_0.png", "d_1.png"), "d_1.png"),
        (("d_1.jpg", "d_2.jpg"), "d_2.jpg"),
        (("d.png",), "d.pdf#page=2"),
        (("d/10.png", "d/9.png"), "d/10.png"),
    ],
)
def test_the_second_page_in_each_layout(tmp_path: Path, files: tuple[str, ...], page: str) -> None:
    for file in files:
        put(tmp_path / file, b"")
    assert pages.PageFinder(str(tmp_path)).page("d#page=2") == page


def test_pages_that_are_rendered_later_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SETS["DeepForm"](tmp_path, 1)
    source = source_of(tmp_path, "DeepForm")
    (raw,) = source.read([0])
    assert Image.open(io.BytesIO(*raw.images)).size == (200, 400) and source.missing().lines == []
    # without the library the command that renders is told
    monkeypatch.setitem(__import__("sys").modules, "pypdfium2", None)
    with pytest.raises(SampleError, match=r"DeepForm000.pdf#page=1, .*pip install 'strata\[pdf\]'.*pdftoppm -r 200"):
        source.read([0])
    put(tmp_path / "due/DeepForm/pdfs/DeepForm000.png", jpeg(140))
    (raw,) = source_of(tmp_path, "DeepForm").read([0])
    assert Image.open(io.BytesIO(*raw.images)).width == 140


@pytest.mark.parametrize(("data", "reason"), [(b"<html>", "not a PDF file"), (b"", "not a PDF file")])
def test_a_file_that_is_no_document_is_one_line(tmp_path: Path, data: bytes, reason: str) -> None:
    SETS["DeepForm"](tmp_path, 1)
    put(tmp_path / "due/DeepForm/pdfs/DeepForm000.pdf", data)
    with pytest.raises(SampleError, match=rf"DeepForm000.pdf#page=1, image .*: {reason}") as error:
        source_of(tmp_path, "DeepForm").read([0])
    assert "\n" not in str(error.value)


def test_a_page_that_is_not_there() -> None:
    with pytest.raises(pages.PageError, match=r"^no page 2 of 1$"):
        pages.render_page(PDF, 2)


# conversations: text only, several images, system turns


def test_text_only_several_images_and_system_turns(tmp_path: Path) -> None:
    (samples,) = opened(tmp_path, mix(tmp_path))
    assert [[image.width for image in s.images] for s in samples] == [[150], [], [150, 151], [150, 151], [], []]
    texts = [[turn["content"] for turn in s.conversation] for s in samples]
    assert texts[0] == ["What?", "A bus.", "And?", "No."] and texts[1] == texts[5] == ["Hi.", "Hello."]
    assert texts[2][0] == "<image>\nand <image>: same?" and texts[3][0] == "<image><image>\nSame?"
    assert [turn["role"] for turn in samples[4].conversation] == ["system", "user", "assistant"]
    with pytest.raises(ValueError, match="unpack"):
        _ = samples[2].image


def test_messages(tmp_path: Path) -> None:
    put(tmp_path / "images/a.jpg", jpeg(150))
    put(tmp_path / "images/b.jpg", jpeg(151))

    def said(content: Any) -> list[dict[str, Any]]:
        return [{"role": "user", "content": content}, {"role": "assistant", "content": "No."}]

    parts = [{"type": "image"}, {"type": "text", "text": "Same as "}, {"type": "image"}, {"type": "text", "text": "?"}]
    urls = [{"type": "image_url", "image_url": {"url": "b.jpg"}}, {"type": "text", "text": "What?"}]
    lines = [
        {"id": "1", "messages": said("<image>What?"), "images": ["a.jpg"]},
        {"id": "2", "messages": said(parts), "images": [{"path": "a.jpg", "bytes": None}, "b.jpg"]},
        {"id": "3", "messages": said(urls)},
        {"id": "4", "messages": [{"role": "system", "content": "Short."}, *said("Hi.")]},
        {"id": "5", "messages": said("<|image|>What?"), "image": ["b.jpg"], "task_name": "qa_sft"},
        {"id": "6", "messages": said([{"type": "video"}])},
    ]
    put(tmp_path / "train.jsonl", lines)
    source = public_source("messages", Files((f"{tmp_path}/train.jsonl",)), f"{tmp_path}/images", Options(), tmp_path)
    assert source.problems() == (
        1,
        "entry 6 (id 6): a part of the type 'video'; text, image and image_url can be read",
    )
    raws = source.read(range(5))
    assert [len(raw.images) for raw in raws] == [1, 2, 1, 0, 1]
    assert [raw.turns[0] for raw in raws] == ["What?", "<image>Same as <image>?", "What?", "Hi.", "What?"]
    assert raws[3].system == "Short."


def test_qwen_vls_questions_and_ureaders_turns(tmp_path: Path) -> None:
    put(tmp_path / "images/a.jpg", jpeg(150))
    asked = "What is the brand? Answer:"
    put(tmp_path / "train.jsonl", [{"image": "a.jpg", "question": asked, "question_id": 7, "answer": "nokia"}])
    files = Files((f"{tmp_path}/train.jsonl",))
    (raw,) = public_source("qwen-vqa", files, f"{tmp_path}/images", Options(), tmp_path).read([0])
    assert (raw.key, raw.turns, len(raw.images)) == ("7", [asked, "nokia"], 1)
    turns = [("user", "<image>"), ("user", "What?"), ("assistant", "A bus.")]
    entry = {"image": ["a.jpg"], "conversations": [{"from": role, "value": value} for role, value in turns]}
    put(tmp_path / "ureader.jsonl", [{**entry, "task_type": "qa_sft"}])
    files = Files((f"{tmp_path}/ureader.jsonl",))
    (raw,) = public_source("llava", files, f"{tmp_path}/images", Options(), tmp_path).read([0])
    assert raw.turns == ["What?", "A bus."]


# what is malformed

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=2),
    max_leaves=4,
)


def raw_entries(folder: Path, name: str) -> list[Any]:
    """The raw entries of a small data set."""
    SETS[name](folder, 2)
    source = MONKEY[name]
    several = [source["file"]] if isinstance(source["file"], str) else source["file"]
    questions = (f"{folder}/{source['questions']}",) if "questions" in source else ()
    files = Files(tuple(f"{folder}/{file}" for file in several), questions)
    return list(FORMATS[source["format"]].entries(files))


@pytest.mark.parametrize("name", SETS)
def test_any_other_value_in_any_field_is_a_named_fault(tmp_path: Path, name: str) -> None:
    form, entry = FORMATS[MONKEY[name]["format"]], raw_entries(tmp_path, name)[0]

    def changed(value: Any, other: Any, draw: Callable[[int], int]) -> Any:
        """The value with another one in one place of it."""
        places = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
        if not places or draw(3) == 0:
            return other
        place = list(places)[draw(len(places))]
        copy = value.copy()
        copy[place] = changed(value[place], other, draw)
        return copy

    @settings(max_examples=40, deadline=None)
    @given(st.data(), JSON)
    def check(data: st.DataObject, other: Any) -> None:
        body = entry[1] if isinstance(entry, tuple) else entry
        new = changed(body, other, lambda limit: data.draw(st.integers(0, limit - 1)))
        if isinstance(new, dict):
            try:
                for question in form.parse((entry[0], new) if isinstance(entry, tuple) else new, Options()):
                    assert all(isinstance(answer, str) for answer in getattr(question, "answers", []))
            except EntryError as error:
                assert "\n" not in str(error)

    check()


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("GQA", "[]", "the file is not a JSON object"),
        ("GQA", '{"1": 5}', r"entry 1 \(id 1\): not an object"),
        ("GQA", '{"1": {"question": "?", "imageId": "2"}}', r'entry 1 \(id 1\): no text "answer"'),
        ("DocVQA", '{"data": [', "entry 1 is not JSON: parse error: premature EOF"),
        ("DocVQA", '{"questions": []}', "no entry of the format docvqa"),
        ("TextVQA", '{"data": [{"question_id": 7, "question": "?", "image_id": "a"}]}', r'\(id 7\): no list "answers"'),
        ("ChartQA", "<html>", "entry 1 is not JSON"),
        ("ScienceQA", '{"4": {"split": "train", "question": "?", "choices": ["a"], "answer": 1}}', "choice 1 of 1"),
        ("VizWiz", '[{"image": "a.jpg", "question": "?", "answers": [{}]}]', 'entry 1: no text "answer"'),
    ],
)
def test_files_that_are_something_else_are_one_line(tmp_path: Path, name: str, text: str, reason: str) -> None:
    SETS[name](tmp_path, 2)
    source = {**MONKEY[name], "file": "other.json"}
    (tmp_path / "other.json").write_text(text)
    with pytest.raises(MixtureError, match=rf"^{name}: {tmp_path}/other.json: .*{reason}") as error:
        opened(tmp_path, source)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"format": "vqa"}, "no format 'vqa'; there are vqav2, okvqa"),
        ({"images": None}, "a format needs `file` and `images`"),
        ({"split": "train"}, "the format vqav2 has no split"),
        ({"answers": "best"}, "Input should be 'majority', 'first' or 'all'"),
        ({"layer": "caption"}, "layer is a setting of snapshot, not of format"),
    ],
)
def test_settings_that_do_not_fit_are_one_line(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        MixtureFile.model_validate({"name": "test", "sources": [{**MONKEY["VQAv2"], **changes}]})


def test_two_files_of_answers_need_two_of_questions(tmp_path: Path) -> None:
    SETS["VQAv2"](tmp_path, 2)
    both = [MONKEY["VQAv2"]["file"]] * 2
    with pytest.raises(MixtureError, match="2 files of annotations need as many of questions"):
        opened(tmp_path, {**MONKEY["VQAv2"], "file": both})
    (samples,) = opened(tmp_path, {**MONKEY["VQAv2"], "file": both, "questions": [MONKEY["VQAv2"]["questions"]] * 2})
    assert len(samples) == 4


# the paper's mixtures

THOUSANDTHS = {  # published samples, divided by a thousand
    "COCO caption": 414,
    "TextCaps": 110,
    "VQAv2": 444,
    "OKVQA": 9,
    "GQA": 943,
    "ScienceQA": 12,
    "VizWiz": 20,
    "TextVQA": 35,
    "OCRVQA": 800,
    "AI2D": 12,
    "DocVQA": 39,
    "ChartQA": 28,
    "InfoVQA": 24,
    "DeepForm": 3,
    "KLC": 13,
    "WTQ": 14,
    "TabFact": 92,
    "VisualMRC": 20,
}


@pytest.fixture(scope="module")
def thousandths(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Path]:
    """A store with the snapshot `cc3m`, and the folder of all other sets."""
    folder = tmp_path_factory.mktemp("thousandths")
    store = Store(str(folder / "store"))
    pin(store, write_shards(folder / "shards", 1, 427), "cc3m")
    for known, count in THOUSANDTHS.items():
        SETS[known](folder / "data", 16 if known == "ScienceQA" else count)  # a quarter of it is `val`
    return store, folder / "data"


@pytest.mark.parametrize(("name", "rows"), [("monkey", 213), ("monkey-ablation", 427)])
def test_the_papers_mixture_in_small(
    thousandths: tuple[Store, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, rows: int
) -> None:
    store, data = thousandths
    small = data / f"{name}.toml"
    small.write_text((MIXTURES / f"{name}.toml").read_text(encoding="utf-8").replace("_000\n", "\n"))
    where = ["--store", store.uri, "--cache", str(tmp_path / "cache")]
    assert code_of("mixture", "check", str(small), *where, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    sources = {source["name"]: source for source in told["sources"]}
    assert [source["problem"] for source in sources.values()] == [None] * 19
    assert {known: sources[known]["supply"] for known in THOUSANDTHS} == THOUSANDTHS
    assert sources["detailed caption"]["supply"] == 427 and sources["detailed caption"]["count"] == rows
    # the paper repeats the small sets
    assert sources["DocVQA"]["count"] == 118 and sources["DocVQA"]["repeats"] == pytest.approx(118 / 39)
    assert sources["AI2D"]["repeats"] == 2 and sources["VQAv2"]["repeats"] is None
    thousands = {"image caption": rows + 191, "general VQA": 306, "scene text VQA": 308, "document VQA": 423}
    whole = 1441 - 213 + rows
    assert told["tasks"] == pytest.approx({task: count / whole for task, count in thousands.items()})
    mixture = open_mixture(MixtureFile.load(small), Locations(store, str(data), tmp_path / "cache"))
    assert Counter(sample.task for sample in SampleReader(mixture)) == thousands


def test_what_is_missing_is_told_with_where_it_is(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    SETS["GQA"](tmp_path, 2)
    where = ["--store", store.uri, "--data", str(tmp_path), "--cache", str(tmp_path / "cache")]
    assert code_of("mixture", "check", str(MIXTURES / "monkey.toml"), *where) == exits.MIXTURE_INCOMPLETE
    out, err = capsys.readouterr()
    assert err == "18 of 19 sources have problems\n"
    lines = out.splitlines()
    assert lines[1].split()[:6] == ["detailed", "caption", "image", "caption", "213,000", "14.8%"]
    assert "no snapshot 'cc3m'; there are: none" in lines[1]
    assert "each sample 75,000 times" in next(line for line in lines if line.startswith("GQA"))
    assert [line.split()[-1] for line in lines[-4:]] == ["29.4%", "28.0%", "21.4%", "21.2%"]
    assert code_of("mixture", "check", str(MIXTURES / "monkey.toml"), *where, "--json") == exits.MIXTURE_INCOMPLETE
    problems = {source["name"]: source["problem"] for source in json.loads(capsys.readouterr().out)["sources"]}
    for known in set(SETS) - {"GQA"}:
        assert problems[known].startswith(f"no such file: {tmp_path}/")
        assert problems[known].endswith(f"; the data is from {MONKEY[known]['origin']}")


def test_the_page_on_the_mixture_has_all_of_it() -> None:
    page = (CHECKOUT / "docs" / "mixture.md").read_text(encoding="utf-8")
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in page.splitlines() if line.startswith("| ")}
    for name, source in MONKEY.items():
        assert rows[name].endswith(f"| {source['count']:,} |")
        files = [file for key in ("file", "questions", "exclude") for file in several(source.get(key))]
        assert all(file in rows[name] for file in files)
    formats = {name for cell in rows if cell.startswith("`") for name in re.findall(r"`([\w-]+)`", cell)}
    assert set(FORMATS) <= formats


def several(value: str | list[str] | None) -> list[str]:
    """A file or a list of files as a list."""
    return [value] if isinstance(value, str) else value or []


def test_a_table_of_our_own_exports_is_read(tmp_path: Path) -> None:
    rows = [
        {"key": f"k{n}", "image": {"bytes": jpeg(160 + n), "path": f"k{n}.jpg"}, "text": f"A cat {n}."} for n in (0, 1)
    ]
    pq.write_table(pa.Table.from_pylist(rows, TABLE_SCHEMA), tmp_path / "00000.parquet")
    (samples,) = opened(tmp_path, {"name": "ours", "webdataset": "00000.parquet", "instruction": "Describe it."})
    assert [(s.image.width, s.conversation[1]["content"]) for s in samples] == [(160, "A cat 0."), (161, "A cat 1.")]


# images inside the entries


def said(content: Any) -> list[dict[str, Any]]:
    """A question and its answer."""
    return [{"role": "user", "content": content}, {"role": "assistant", "content": "No."}]


def messages_of(folder: Path, path: str) -> TableSource:
    """The source of a file or folder of `messages`, with its images beside it."""
    return public_source("messages", Files((f"{folder}/{path}",)), str(folder), Options(), folder / "cache")


def test_images_in_json_entries_are_decoded(tmp_path: Path) -> None:
    """As OpenAI's format has them: `data:` URLs in the parts, or in `images`."""
    urls = [f"data:image/jpeg;base64,{base64.b64encode(jpeg(150 + n)).decode()}" for n in (0, 1)]
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    put(tmp_path / "c.jpg", jpeg(152))
    lines = [
        {"messages": said([parts[0], {"type": "text", "text": "What?"}])},
        {"messages": said([*parts, {"type": "text", "text": "Same?"}])},
        {"messages": said("<image>What?"), "images": [urls[1]]},
        {"messages": said("<image><image>What?"), "images": ["c.jpg", urls[0]]},
        {"messages": said("<image>What?"), "images": ["data:image/jpeg;base64,*"]},
    ]
    put(tmp_path / "train.jsonl", lines)
    source = messages_of(tmp_path, "train.jsonl")
    assert [widths(raw) for raw in source.read(range(4))] == [[150], [150, 151], [151], [152, 150]]
    bad = "entry 5: its image is in the entry itself (data:), but its base64 is damaged"
    assert source.problems() == (1, bad) and source.missing().lines == []
    # the second opening reads the table and the images that were kept
    assert messages_of(tmp_path, "train.jsonl").read([3]) == source.read([3])
    assert not list((tmp_path / "cache").glob("*.tmp"))


def widths(raw: RawSample) -> list[int]:
    """The widths of a sample's images."""
    return [Image.open(io.BytesIO(image)).width for image in raw.images]


def test_a_folder_of_parquet_with_messages(tmp_path: Path) -> None:
    """As `datasets` writes them for TRL: images as bytes or as paths, several, contents in parts, a bad text."""
    put(tmp_path / "b.jpg", jpeg(151))
    inside, beside = {"bytes": jpeg(150), "path": "a.jpg"}, {"bytes": None, "path": "b.jpg"}
    image, text = {"type": "image", "text": None}, {"type": "text", "text": "What?"}
    of_texts = [
        {"id": "one", "messages": said("What?"), "images": [inside]},
        {"id": "two", "messages": said("What?"), "images": [inside, beside]},
        {"id": "text", "messages": said("Hi."), "images": []},
    ]
    parts = [{"id": "parts", "messages": [{**turn, "content": [image, text]} for turn in said("")], "images": [beside]}]
    folder = tmp_path / "many"
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(of_texts), folder / "0.parquet")
    pq.write_table(pa.Table.from_pylist(parts), folder / "1.parquet")
    put(folder / "_skipped.jsonl", [{"key": "x"}])
    source = messages_of(tmp_path, "many")
    raws = source.read(range(4))
    assert [raw.key for raw in raws] == ["one", "two", "text", "parts"]
    assert [widths(raw) for raw in raws] == [[150], [150, 151], [], [151]]
    assert raws[1].turns == ["<image><image>\nWhat?", "No."] and raws[3].turns == ["What?", "What?"]
    # a changed file is read anew
    pq.write_table(pa.Table.from_pylist(of_texts[:1]), folder / "0.parquet")
    assert len(messages_of(tmp_path, "many")) == 2


def test_a_text_that_is_not_utf8_is_one_bad_row(tmp_path: Path) -> None:
    texts = pa.array([b"What?", b"\xff\xfe"]).cast(pa.binary())
    broken = pa.Array.from_buffers(pa.string(), 2, texts.buffers())
    turns = pa.StructArray.from_arrays([pa.array(["user", "user"]), broken], ["role", "content"])
    pq.write_table(pa.table({"messages": pa.ListArray.from_arrays([0, 1, 2], turns)}), tmp_path / "0.parquet")
    with pytest.raises(SampleError, match=r"0.parquet: entry 1: the last question has no answer$"):
        messages_of(tmp_path, "0.parquet")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"PAR1", "not a Parquet file, or a damaged one"),
        (b"x" * 100 + b"\xff\xff\xff\x00PAR1", "not a Parquet file, or a damaged one"),
        (None, 'no column "messages" or "conversations"; there are a'),
    ],
)
def test_a_parquet_file_that_has_no_conversations_is_one_line(tmp_path: Path, data: bytes | None, reason: str) -> None:
    path = tmp_path / "0.parquet"
    pq.write_table(pa.table({"a": [1]}), path)
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(SampleError, match=f"^{path}: {reason}$"):
        messages_of(tmp_path, "0.parquet")


def test_questions_and_answers_of_any_parquet(tmp_path: Path) -> None:
    """Columns as sets on the hub have them, without the note of `datasets` that a column has images."""
    rows = [{"image": {"bytes": jpeg(160 + n), "path": None}, "q": f"{n}?", "a": f"{n}."} for n in (0, 1)]
    (tmp_path / "set").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "set/0.parquet")
    (samples,) = opened(tmp_path, {"name": "qa", "dataset": "set", "text": "a", "question": "q"})
    found = [(s.image.width, *(turn["content"] for turn in s.conversation)) for s in samples]
    assert found == [(160, "0?", "0."), (161, "1?", "1.")]
