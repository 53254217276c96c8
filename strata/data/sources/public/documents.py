"""Questions on documents: DocVQA, ChartQA, InfographicVQA, the sets of DUE, and VisualMRC."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from strata.data.sources.conversations import Conversation
from strata.data.sources.entries import EntryError, json_entries, list_of, text_of, texts_of
from strata.data.sources.public.files import Files, joined, objects
from strata.data.sources.public.questions import Asked, Options, Question, answers_of, image_named, parts

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


class Page(NamedTuple):
    """What is written on a page, and the same as `_words` has it, with spaces around."""

    text: str
    words: str


def due_entries(files: Files) -> Iterator[Any]:
    """The documents of DUE, each with its "pages", a list of Page, if the files have contents.

    Both files have the documents in one order as published; contents in another order wait in memory for theirs. Of a
    document whose contents cannot be understood "pages" is None; of one that has none it is absent.
    """
    if not files.contents:
        yield from files.entries("")
        return
    for uri, contents_uri in zip(files.paths, files.contents, strict=True):
        with files.open(uri) as documents, files.open(contents_uri) as contents:
            # only the words of the pages wait, not the places of all tokens
            told = ({"name": one.get("name"), "pages": pages_of(one.get("contents"))} for one in objects(contents))
            for content, document in joined("name", told, json_entries(documents)):
                yield {**document, **content} if isinstance(document, dict) else document


class _Asked(NamedTuple):
    """A question, and the groups of texts of which a page must have one each.

    together: the answer is one text of each group; else each text of the only group is a right answer.
    """

    question: str
    groups: list[list[str]]
    together: bool

    def answers(self, page: Page | None) -> list[str]:
        """The right answers; first that which is written on the page as it is, then one that only differs in form."""
        groups = (
            [sorted(group, key=lambda text: _distance(text, page)) for group in self.groups] if page else self.groups
        )
        return [", ".join(group[0] for group in groups)] if self.together else groups[0]


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
        pages = [] if options.pages == "first" else _pages(entry)

        def annotated(number: int, annotation: Any) -> Iterator[Asked]:
            identifier = annotation.get("id") if isinstance(annotation, dict) else None
            for question, asked in enumerate(_asked(annotation, template, several)):
                # other tools write annotations without an id: their number names them
                key = f"{name}/{number if identifier in (None, '') else identifier}/{question}"
                page = _page(annotation, asked.groups, pages, searched) if pages else 0
                if page is None:
                    yield Conversation(key, [], [], problem=NO_PAGE if searched else SEVERAL_PAGES, left_out=True)
                else:
                    answers = asked.answers(pages[page] if pages else None)
                    yield Question(key, [f"{image}#page={page + 1}"], asked.question, answers)

        yield from parts(name, "annotation", list_of(entry, "annotations"), annotated)

    return parse


def _pages(entry: Any) -> list[Page]:
    """The pages of a document that `due_entries` has joined with its contents. Raises EntryError if none are known."""
    if "pages" not in entry:
        raise EntryError(f"{CONTENTS} has no document of this name")
    if not entry["pages"]:
        raise EntryError(f"{CONTENTS} does not tell the tokens of its pages")
    found: list[Page] = entry["pages"]
    return found


def pages_of(contents: Any) -> list[Page] | None:
    """The pages of a document, by the first reading of them; None if none can be understood.

    contents: of documents_content.jsonl.
    """
    for content in contents if isinstance(contents, list) else ():
        try:
            layer = content.get("tokens_layer") or content["common_format"]
            spans = layer["structures"]["pages"]["structure_value"]
            texts = [" ".join(map(str, layer["tokens"][start:end])) for start, end in spans]
        except (AttributeError, TypeError, KeyError, ValueError):
            continue
        return [Page(text, f" {_words(text)} ") for text in texts]
    return None


def _page(annotation: Any, groups: list[list[str]], pages: list[Page], searched: bool) -> int | None:
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
    needed = [[words for text in group if (words := _words(text))] for group in groups]
    for number, page in enumerate(pages):
        if all(any(f" {words} " in page.words for words in group) for group in needed):
            return number
    return None


def _distance(text: str, page: Page) -> int:
    """How far a text is from what a page has: 0 written so, 1 only case or punctuation differ, 2 not on it."""
    words = _words(text)
    if not words or f" {words} " not in page.words:
        return 2
    return 0 if re.search(rf"(?<!\w){re.escape(text)}(?!\w)", page.text) else 1


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
        yield _Asked(asked, [[field] for field in found], together=True)
    if values and several:
        yield _Asked(template.format(key), values, together=True)
    elif values:
        yield _Asked(template.format(key), [[variant for variants in values for variant in variants]], together=False)


def tabfact(entry: Any, options: Options) -> Iterator[Asked]:
    """TabFact in DUE: the key is a statement on a table, the value "1" (entailed) or "0" (refuted)."""
    for found in due("{}", searched=False)(entry, options):
        if isinstance(found, Question):
            told = [YES_NO[answer] for answer in found.answers if answer in YES_NO]
            yield found._replace(answers=told or found.answers)
        else:
            yield found


def visualmrc(entry: Any, options: Options) -> Iterator[Asked]:
    """{"id", "image_filename", "qa_data": [{"question": {"text"}, "answer": {"text"}}, …], …} a line."""
    image = text_of(entry, "image_filename")
    name = str(entry.get("id", image))

    def asked(number: int, pair: Any) -> Iterator[Asked]:
        if not isinstance(pair, dict):
            raise EntryError("not an object")
        question, answer = (text_of(pair.get(field), "text") for field in ("question", "answer"))
        yield Question(f"{name}/{number}", [image], question, [answer])

    yield from parts(name, "question", list_of(entry, "qa_data"), asked)
