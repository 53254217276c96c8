"""Questions and captions on text in images: TextCaps, TextVQA, OCR-VQA, and the diagrams of AI2D."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import Any

from strata.data.sources.entries import EntryError, list_of, text_of, texts_of
from strata.data.sources.public.questions import (
    Asked,
    Options,
    Question,
    answers_of,
    image_named,
    number_of,
    parts,
    with_choices,
)

OCRVQA_SPLITS = {1: "train", 2: "val", 3: "test"}


def textcaps(entry: Any, options: Options) -> Iterator[Question]:
    """{"data": [{"image_id", "caption_id", "caption_str", "reference_strs", …}]}: an entry for each caption."""
    image = image_named(options, "{}.jpg", text_of(entry, "image_id"))
    yield Question(text_of(entry, "caption_id"), [image], "", [text_of(entry, "caption_str")])


def textvqa(entry: Any, options: Options) -> Iterator[Question]:
    """{"data": [{"question_id", "question", "image_id", "answers": [ten texts], …}]}."""
    image = image_named(options, "{}.jpg", text_of(entry, "image_id"))
    yield Question(text_of(entry, "question_id"), [image], text_of(entry, "question"), answers_of(entry))


def ocrvqa(entry: Any, options: Options) -> Iterator[Asked]:
    """{ID: {"imageURL", "questions": […], "answers": […], "split": 1, 2 or 3}}.

    An image's file is named as the authors' script names it: by the id, with the extension of the URL.
    """
    name, entry = entry
    split = OCRVQA_SPLITS.get(number_of(entry, "split"), "")
    if options.split and split not in options.split:
        return
    questions, answers = list_of(entry, "questions"), list_of(entry, "answers")
    if len(questions) != len(answers):
        raise EntryError(f"{len(questions)} questions, but {len(answers)} answers")
    extension = "" if options.image_name else posixpath.splitext(text_of(entry, "imageURL"))[1]
    image = image_named(options, f"{{}}{extension}", name)

    def asked(number: int, pair: tuple[Any, Any]) -> Iterator[Asked]:
        question, answer = (
            text_of({field: text}, field) for field, text in zip(("question", "answer"), pair, strict=True)
        )
        yield Question(f"{name}/{number}", [image], question, [answer])

    yield from parts(name, "question", zip(questions, answers, strict=True), asked)


def ai2d(entry: Any, options: Options) -> Iterator[Asked]:
    """questions/NAME.json: {"imageName", "questions": {TEXT: {"answerTexts", "correctAnswer": index, "abcLabel"}}}.

    A question with "abcLabel" is about letters that stand in place of the diagram's labels: its image is that of
    the same name in `abc_images`, beside the folder of images. A choice "{}" is none.
    """
    image, questions = text_of(entry, "imageName"), entry.get("questions")
    if not isinstance(questions, dict):
        raise EntryError('no object "questions"')

    def asked(number: int, member: tuple[str, Any]) -> Iterator[Asked]:
        text, asked = member
        texts = texts_of(asked, "answerTexts")
        right = number_of(asked, "correctAnswer")
        # the right choice's number without the empty choices before it
        right -= sum(choice == "{}" for choice in texts[: max(right, 0)])
        choices = [choice for choice in texts if choice != "{}"]
        question, answer = with_choices(text, choices, right, options)
        path = f"../abc_images/{image}" if asked.get("abcLabel") else image
        yield Question(text_of(asked, "questionId"), [path], question, [answer])

    yield from parts(image, "question", questions.items(), asked)
