"""Questions on documents: DocVQA, ChartQA, InfographicVQA, the sets of DUE, and VisualMRC."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from strata.data.sources.conversations import Conversation
from strata.data.sources.entries import EntryError, json_entries, list_of, text_of, texts_of
from strata.data.sources.public.files import Files
from strata.data.sources.public.questions import Options, Question, answers_of, image_named

Asked = Question | Conversation  # a conversation is one that is left out
CONTENTS = "documents_content.jsonl"  # beside DUE's document.jsonl: the tokens of each document, and those of each page
NO_PAGE = "its answer is found on no page of the document"
SEVERAL_PAGES = "its document has several pages, and the question is about all"
_WORD = re.compile(r"[^\W_]+(?:(?<=\d)[.,](?=\d)[^\W_]+)*")  # "5.00" is one word, and not that of "5"
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
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


def due_entries(files: Files) -> Iterator[Any]:
    """The documents of DUE, each with the "contents" of its pages if the files have them.

    Both files have the documents in one order (due-benchmark/baselines reads them in pairs). Raises EntryError if they
    do not.
    """
    if not files.contents:
        yield from files.entries("")
        return
    for uri, contents_uri in zip(files.paths, files.contents, strict=True):
        with files.open(uri) as documents, files.open(contents_uri) as contents:
            told = json_entries(contents)
            for document in json_entries(documents):
                content = next(told, None)
                names = [one.get("name") if isinstance(one, dict) else None for one in (document, content)]
                if not isinstance(content, dict) or names[0] != names[1]:
                    raise EntryError(f"{CONTENTS} has another document at the place of {str(names[0])[:80]}")
                yield {**document, "contents": content.get("contents")}


class _Asked(NamedTuple):
    """A question, its right answers, and what a page must have: of each group one text."""

    question: str
    answers: list[str]
    needed: list[list[str]]


def due(template: str, several: bool = False, searched: bool = True) -> Callable[[Any, Options], Iterator[Asked]]:
    """The reader of document.jsonl of DUE: {"name", "annotations": [{"id", "key", "values": [{"value", …}]}]}.

    template: the question for a key, with "{}" for it. several: the values of a key are one answer together, as in
    WikiTableQuestions; else each is a right one, with its "value_variants". searched: the answer to a question is to be
    found on one page; else only documents of one page are asked about, because a table is needed as a whole. The format
    is that of due-benchmark/du-schema; questions on "children" are worded as in due-benchmark/baselines.
    """

    def parse(entry: Any, options: Options) -> Iterator[Asked]:
        name = text_of(entry, "name").removesuffix(".pdf")
        image = image_named(options, "{}", name)
        pages = [] if options.pages == "first" else page_texts(entry.get("contents"))
        for annotation in list_of(entry, "annotations"):
            for number, asked in enumerate(_asked(annotation, template, several)):
                key = f"{name}/{annotation.get('id', '')}/{number}"
                page = 0 if options.pages == "first" else _page(annotation, asked.needed, pages, searched)
                if page is None:
                    yield Conversation(key, [], [], problem=NO_PAGE if searched else SEVERAL_PAGES, left_out=True)
                else:
                    yield Question(key, [f"{image}#page={page + 1}"], asked.question, asked.answers)

    return parse


def page_texts(contents: Any) -> list[str]:
    """The words of each page of a document, normalised, with spaces around them. Raises EntryError.

    contents: of documents_content.jsonl; the first reading of the pages in it is used.
    """
    for content in contents if isinstance(contents, list) else ():
        try:
            layer = content.get("tokens_layer") or content["common_format"]
            spans = layer["structures"]["pages"]["structure_value"]
            return [f" {_words(' '.join(map(str, layer['tokens'][start:end])))} " for start, end in spans]
        except (AttributeError, TypeError, KeyError, ValueError):
            continue
    raise EntryError('"contents" does not tell the tokens of its pages')


def _page(annotation: Any, needed: list[list[str]], pages: list[str], searched: bool) -> int | None:
    """The page, from 0, that an answer is on: the only one, that of its evidence, or the first that has its words."""
    if len(pages) == 1:
        return 0
    # evidence is {"pages": [N, …]}, or a list of {"page": N}; of several pages each has the answer
    evidence = annotation.get("evidence")
    told = evidence.get("pages") if isinstance(evidence, dict) else evidence
    for one in told if isinstance(told, list) else ():
        number = one.get("page") if isinstance(one, dict) else one
        if isinstance(number, int) and not isinstance(number, bool) and 0 <= number < len(pages):
            return number
    if not searched:
        return None
    groups = [[words for text in group if (words := _words(text))] for group in needed]
    for number, page in enumerate(pages):
        if all(any(f" {words} " in page for words in group) for group in groups):
            return number
    return None


def _words(text: str) -> str:
    """The words and numbers of a text, in lower case, without punctuation and the commas of thousands."""
    return " ".join(_WORD.findall(_THOUSANDS.sub("", text.casefold())))


def _asked(annotation: Any, template: str, several: bool) -> Iterator[_Asked]:
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
        asked = f"What are the {key} values for the {column} column?"
        yield _Asked(asked, [", ".join(found)], [[field] for field in found])
    if values and several:
        yield _Asked(template.format(key), [", ".join(variants[0] for variants in values)], values)
    elif values:
        answers = [variant for variants in values for variant in variants]
        yield _Asked(template.format(key), answers, [answers])


def tabfact(entry: Any, options: Options) -> Iterator[Asked]:
    """TabFact in DUE: the key is a statement on a table, the value "1" (entailed) or "0" (refuted)."""
    for found in due("{}", searched=False)(entry, options):
        if isinstance(found, Question):
            answer = found.answers[0]
            yield found._replace(answers=[YES_NO.get(answer, answer)])
        else:
            yield found


def visualmrc(entry: Any, options: Options) -> Iterator[Question]:
    """{"id", "image_filename", "qa_data": [{"question": {"text"}, "answer": {"text"}}, …], …} a line."""
    image = text_of(entry, "image_filename")
    for number, pair in enumerate(list_of(entry, "qa_data")):
        if not isinstance(pair, dict):
            raise EntryError('no object in "qa_data"')
        question, answer = (text_of(pair.get(name), "text") for name in ("question", "answer"))
        yield Question(f"{entry.get('id', image)}/{number}", [image], question, [answer])
