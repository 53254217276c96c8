"""Questions and captions on photographs: VQAv2, OK-VQA, GQA, COCO captions, VizWiz, and ScienceQA."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ijson

from strata.data.sources.entries import EntryError, json_entries, text_of, texts_of
from strata.data.sources.public.files import Files, joined, objects
from strata.data.sources.public.questions import (
    Options,
    Question,
    answers_of,
    image_named,
    number_of,
    with_choices,
)


def vqa_entries(files: Files) -> Iterator[Any]:
    """The annotations of VQAv2 and OK-VQA, each with its question and the file's "data_subtype".

    Both files have the same order as published; entries in another order wait in memory for their other half.
    """
    if len(files.questions) != len(files.paths):
        raise EntryError(f"{len(files.paths)} files of annotations need as many of questions, in `questions`")
    for questions, answers in zip(files.questions, files.paths, strict=True):
        with files.open(answers) as file:
            subtype = next(ijson.items(file, "data_subtype"), "")
        with files.open(questions) as asked, files.open(answers) as answered:
            told = objects(asked, "questions")
            for question, annotation in joined("question_id", told, json_entries(answered, "annotations")):
                whole = annotation if isinstance(annotation, dict) else {}
                yield {**whole, "question": question.get("question"), "data_subtype": subtype}


def vqa(entry: Any, options: Options) -> Iterator[Question]:
    """{"question_id", "image_id", "question"} and {"question_id", "image_id", "answers": [{"answer"}, …]}.

    The published "multiple_choice_answer" is the majority of the ten answers.
    """
    name = f"COCO_{entry.get('data_subtype') or 'train2014'}_{{:012d}}.jpg"
    image = image_named(options, name, number_of(entry, "image_id"))
    answers = answers_of(entry)
    if options.answers == "majority" and isinstance(entry.get("multiple_choice_answer"), str):
        answers = [entry["multiple_choice_answer"]]
    yield Question(text_of(entry, "question_id"), [image], text_of(entry, "question"), answers)


def gqa(entry: Any, options: Options) -> Iterator[Question]:
    """{ID: {"imageId", "question", "answer", "fullAnswer", …}}: the short answer."""
    name, entry = entry
    image = image_named(options, "{}.jpg", text_of(entry, "imageId"))
    yield Question(name, [image], text_of(entry, "question"), [text_of(entry, "answer")])


def caption_entries(files: Files) -> Iterator[Any]:
    """The annotations of COCO captions, each with its image's "file_name". The images' names are kept in memory."""
    for path in files.paths:
        with files.open(path) as file:
            images = (image for image in json_entries(file, "images") if isinstance(image, dict))
            names = {image.get("id"): image.get("file_name") for image in images}
        with files.open(path) as file:
            for entry in json_entries(file, "annotations"):
                whole = entry if isinstance(entry, dict) else {}
                yield {**whole, "file_name": names.get(whole.get("image_id"))}


def coco_caption(entry: Any, options: Options) -> Iterator[Question]:
    """{"id", "image_id", "caption"}, and the image's "file_name" from the list "images"."""
    image = text_of(entry, "file_name") if not options.image_name else ""
    image = image or image_named(options, "", number_of(entry, "image_id"))
    yield Question(text_of(entry, "id"), [image], "", [text_of(entry, "caption")])


def vizwiz(entry: Any, options: Options) -> Iterator[Question]:
    """{"image", "question", "answers": [{"answer", "answer_confidence"}, …], "answerable": 0 or 1}."""
    if not options.answerable or entry.get("answerable") != 0:
        image = text_of(entry, "image")
        yield Question(image, [image], text_of(entry, "question"), answers_of(entry))


def scienceqa(entry: Any, options: Options) -> Iterator[Question]:
    """{ID: {"question", "choices", "answer": index, "hint", "image": name or null, "split"}}; also text only."""
    name, entry = entry
    split = text_of(entry, "split")
    if options.split and split not in options.split:
        return
    asked, choices = text_of(entry, "question"), texts_of(entry, "choices")
    question, answer = with_choices(asked, choices, number_of(entry, "answer"), options)
    hint = str(entry.get("hint") or "").strip()
    images = [f"{split}/{name}/{entry['image']}"] if entry.get("image") else []
    yield Question(name, images, f"Context: {hint}\n{question}" if hint else question, [answer])
