"""Questions on documents: DocVQA, ChartQA, InfographicVQA, the sets of DUE, and VisualMRC."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from typing import Any

from strata.data.sources.entries import EntryError, list_of, text_of, texts_of
from strata.data.sources.public.questions import Options, Question, answers_of, image_named

YES_NO = {"1": "Yes", "0": "No"}  # how DUE writes whether a statement of TabFact is entailed


def docvqa(entry: Any, options: Options) -> Iterator[Question]:
    """{"data": [{"questionId", "question", "image": "documents/NAME.png", "answers": [variants], …}]}."""
    image = text_of(entry, "image")
    if options.image_name:
        image = image_named(options, "", posixpath.splitext(posixpath.basename(image))[0])
    yield Question(text_of(entry, "questionId"), [image], text_of(entry, "question"), answers_of(entry))


def infovqa(entry: Any, options: Options) -> Iterator[Question]:
    """{"data": [{"questionId", "question", "image_local_name", "answers": [variants], …}]}."""
    image = text_of(entry, "image_local_name")
    yield Question(text_of(entry, "questionId"), [image], text_of(entry, "question"), answers_of(entry))


def chartqa(entry: Any, options: Options) -> Iterator[Question]:
    """[{"imgname", "query", "label"}]: the same for questions of humans and augmented ones."""
    image = text_of(entry, "imgname")
    yield Question(image, [image], text_of(entry, "query"), [text_of(entry, "label")])


def due(template: str, several: bool = False) -> Callable[[Any, Options], Iterator[Question]]:
    """The reader of document.jsonl of DUE: {"name", "annotations": [{"id", "key", "values": [{"value", …}]}]}.

    template: the question for a key, with "{}" for it. several: the values of a key are one answer together, as in
    WikiTableQuestions; else each is a right one, with its "value_variants". The format is that of
    due-benchmark/du-schema; questions on "children" are worded as in due-benchmark/baselines.
    """

    def parse(entry: Any, options: Options) -> Iterator[Question]:
        name = text_of(entry, "name").removesuffix(".pdf")
        image = image_named(options, "{}", name)
        for annotation in list_of(entry, "annotations"):
            for number, (question, answers) in enumerate(_asked(annotation, template, several)):
                yield Question(f"{name}/{annotation.get('id', '')}/{number}", [image], question, answers)

    return parse


def _asked(annotation: Any, template: str, several: bool) -> Iterator[tuple[str, list[str]]]:
    key = text_of(annotation, "key")
    values: list[list[str]] = []
    columns: dict[str, list[str]] = {}
    for value in list_of(annotation, "values"):
        # a value with children is a row of a table: each child is the field of a column
        children = list_of(value, "children") if isinstance(value, dict) and value.get("children") else []
        for child in children:
            fields = [text_of(field, "value") for field in list_of(child, "values")]
            columns.setdefault(text_of(child, "key"), []).extend(fields)
        if not children:
            first = text_of(value, "value")
            variants = texts_of(value, "value_variants") if value.get("value_variants") else []
            values.append([first, *variants])
    for column, found in columns.items():
        yield f"What are the {key} values for the {column} column?", [", ".join(found)]
    if values and several:
        yield template.format(key), [", ".join(variants[0] for variants in values)]
    elif values:
        yield template.format(key), [variant for variants in values for variant in variants]


def tabfact(entry: Any, options: Options) -> Iterator[Question]:
    """TabFact in DUE: the key is a statement on a table, the value "1" (entailed) or "0" (refuted)."""
    for question in due("{}")(entry, options):
        yield question._replace(answers=[YES_NO.get(question.answers[0], question.answers[0])])


def visualmrc(entry: Any, options: Options) -> Iterator[Question]:
    """{"id", "image_filename", "qa_data": [{"question": {"text"}, "answer": {"text"}}, …], …} a line."""
    image = text_of(entry, "image_filename")
    for number, pair in enumerate(list_of(entry, "qa_data")):
        if not isinstance(pair, dict):
            raise EntryError('no object in "qa_data"')
        question, answer = (text_of(pair.get(name), "text") for name in ("question", "answer"))
        yield Question(f"{entry.get('id', image)}/{number}", [image], question, [answer])
