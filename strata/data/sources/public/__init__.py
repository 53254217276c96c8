"""Readers of public data sets in the files that their authors publish: FORMATS has each with its name in mixture files.

A format is a function that turns one entry of a file into questions (or into a conversation). `source.py` streams the
entries into a table of samples; `files.py` opens the files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from strata.data.sources.conversations import MARKUP, Conversation, llava, messages, qwen_vqa
from strata.data.sources.entries import MEMBERS
from strata.data.sources.public import documents, photographs, scene_text
from strata.data.sources.public.files import Files, folder_entries
from strata.data.sources.public.questions import Answers, Asked, Options


@dataclass(frozen=True)
class Format:
    """How the files of a data set are read.

    title: its name in prose. entries: yields the raw entries of the files. parse: what one of them gives; it raises
    EntryError. answers: the rule for several answers that is the default; None if there is only one. options: the
    settings of a mixture's source that it takes. captions: its answers have no questions. pages: its images are the
    pages of documents. beside: without `images`, its images lie beside its file. markup: control tokens that its
    answers keep.
    """

    title: str
    entries: Callable[[Files], Iterator[Any]]
    parse: Callable[[Any, Options], Iterable[Asked]]
    answers: Answers | None = None
    options: frozenset[str] = frozenset()
    captions: bool = False
    pages: bool = False
    beside: bool = False
    markup: tuple[str, ...] = ()


def _place(place: str) -> Callable[[Files], Iterator[Any]]:
    return lambda files: files.entries(place)


def _single(parse: Callable[[Any], Conversation]) -> Callable[[Any, Options], Iterable[Conversation]]:
    return lambda entry, options: [parse(entry)]


def _due(title: str, template: str, several: bool = False) -> Format:
    answers: Answers | None = None if several else "first"
    parse = documents.due(template, several, searched=not several)
    return Format(title, documents.due_entries, parse, answers, DUE, pages=True)


NAMED = frozenset({"image_name"})
DUE = NAMED | {"pages"}
SPLIT = frozenset({"split"})
CHOICE = frozenset({"choice"})

FORMATS: dict[str, Format] = {
    "vqav2": Format("VQAv2", photographs.vqa_entries, photographs.vqa, "majority", NAMED | {"questions"}),
    "okvqa": Format("OK-VQA", photographs.vqa_entries, photographs.vqa, "majority", NAMED | {"questions"}),
    "gqa": Format("GQA", _place(MEMBERS), photographs.gqa, options=NAMED),
    "coco-captions": Format(
        "COCO captions", photographs.caption_entries, photographs.coco_caption, options=NAMED, captions=True
    ),
    "vizwiz": Format("VizWiz", _place(""), photographs.vizwiz, "majority", frozenset({"answerable"})),
    "scienceqa": Format("ScienceQA", _place(MEMBERS), photographs.scienceqa, options=SPLIT | CHOICE),
    "textcaps": Format("TextCaps", _place("data"), scene_text.textcaps, options=NAMED, captions=True),
    "textvqa": Format("TextVQA", _place("data"), scene_text.textvqa, "majority", NAMED),
    "ocrvqa": Format("OCR-VQA", _place(MEMBERS), scene_text.ocrvqa, options=NAMED | SPLIT),
    "ai2d": Format("AI2D", folder_entries, scene_text.ai2d, options=CHOICE | {"exclude"}),
    "docvqa": Format("DocVQA", _place("data"), documents.docvqa, "first", NAMED),
    "infovqa": Format("InfographicVQA", _place("data"), documents.infovqa, "first"),
    "chartqa": Format("ChartQA", _place(""), documents.chartqa),
    "deepform": _due("DeepForm", "What is the value for the {}?"),
    "klc": _due("Kleister Charity", "What is the value for the {}?"),
    "wtq": _due("WikiTableQuestions", "{}", several=True),
    "tabfact": Format("TabFact", documents.due_entries, documents.tabfact, None, DUE, pages=True),
    "due": _due("another set of DUE", "{}"),
    "visualmrc": Format("VisualMRC", _place(""), documents.visualmrc),
    "llava": Format("LLaVA, Qwen-VL, Monkey", Files.conversations, _single(llava), beside=True, markup=MARKUP),
    "messages": Format(
        "messages (OpenAI, TRL, LLaMA-Factory, ms-swift)",
        Files.conversations,
        _single(messages),
        beside=True,
        markup=MARKUP,
    ),
    "qwen-vqa": Format("Qwen-VL's files of questions", _place(""), _single(qwen_vqa), markup=MARKUP),
}
