"""The samples of a public data set, as a table of samples and images."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from strata.data.sources.conversations import Conversation, named
from strata.data.sources.entries import EntryError
from strata.data.sources.files import conversation_rows, entry_rules, images_beside
from strata.data.sources.pages import PageFinder
from strata.data.sources.public import FORMATS, Format
from strata.data.sources.public.documents import CONTENTS
from strata.data.sources.public.files import Files
from strata.data.sources.public.questions import Asked, Options
from strata.data.sources.samples import ImageFiles, SampleError, TableSource
from strata.data.sources.tables import default_cache, kept_table
from strata.errors import plain_line

IDS = ("id", "question_id", "questionId", "caption_id", "imageName", "name")  # fields that name an entry in messages


def public_source(
    format_name: str, files: Files, images: str, options: Options, cache: Path | None = None
) -> TableSource:
    """The samples of a data set's files. images: the folder or bucket that its image paths are relative to.

    The table is read once and kept in `cache`. Raises SampleError if a file is missing or not of the format.
    """
    form = FORMATS[format_name]
    uri = files.paths[0]
    try:
        # the content of the files and the options name the samples
        finder = PageFinder(images) if form.pages else None
        name = f"public/{format_name}/{files.digest()}/{hashlib.sha256(repr(options).encode()).hexdigest()[:16]}"
        # the table also has the places of the images: pages that were rendered later shall be found
        pages = hashlib.sha256(repr(sorted(finder.names)).encode()).hexdigest() if finder else ""
        rows = _conversations(form, files, options, finder)
        key, folder = f"{name}/{images}/{pages}", cache or default_cache()
        inside, empty = images_beside(folder, key), f"no entry of the format {format_name}"
        table = kept_table(folder, key, lambda: conversation_rows(rows, images, inside, empty))
    except FileNotFoundError as error:
        name = str(error.filename or uri)
        hint = ', which tells on which pages answers are; pages = "first" does without' * name.endswith(CONTENTS)
        raise SampleError(f"no such file: {name}{hint}") from None
    except IsADirectoryError as error:
        raise SampleError(f"{error.filename or uri}: it is a folder, not a file") from None
    except (EntryError, ImportError) as error:
        raise SampleError(f"{uri}: {error}") from None
    except OSError as error:
        raise SampleError(plain_line(error) if error.filename else f"{uri}: {plain_line(error)}") from None
    return TableSource(name, table, ImageFiles(rules=entry_rules(images)), markup=form.markup, uri=uri)


def _conversations(form: Format, files: Files, options: Options, finder: PageFinder | None) -> Iterator[Conversation]:
    for number, entry in enumerate(form.entries(files), 1):
        try:
            for sample in _samples(form, entry, options):
                if sample.problem and not sample.left_out:
                    sample = sample._replace(problem=f"{_name(entry, number)}: {sample.problem}")
                pages = [finder.page(str(image)) for image in sample.images] if finder else sample.images
                yield sample._replace(images=pages, id=sample.id or str(number))
        except EntryError as error:
            yield Conversation(str(number), [], [], problem=f"{_name(entry, number)}: {error}")


def _samples(form: Format, entry: Any, options: Options) -> Iterator[Conversation]:
    # the members of an object are pairs of name and entry
    if not isinstance(entry[1] if isinstance(entry, tuple) else entry, dict):
        raise EntryError("not an object")
    found: Iterable[Asked] = form.parse(entry, options)
    for one in found:
        if isinstance(one, Conversation):
            yield one
        else:
            for number, turns in enumerate(one.turns(options.answers if form.answers else "first")):
                yield Conversation(f"{one.id}/{number}" if number else one.id, one.images, turns)


def _name(entry: Any, number: int) -> str:
    if isinstance(entry, tuple):
        return named({"id": entry[0]}, number)
    names = (entry.get(name) for name in IDS) if isinstance(entry, dict) else iter(())
    return named({"id": next((name for name in names if isinstance(name, str | int)), None)}, number)
