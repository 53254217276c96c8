"""The composer's texts of a record: its description, and its variants of other lengths, each a draft.

A text in another language than the composer's prompt is written in that of the prompt, verified, and then translated by
the composer: the verifier reads English, and each sentence keeps its evidence.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from models.items import ComposeRequest, Failure, Rejection
from models.sentences import sentences_of
from models.verifier.drafts import Draft
from models.writers import ComposerStage, write
from strata.core import NOTHING_FOUND, Record, TextSettings, Variant
from strata.core.parameters import RECORD_FIELDS, filled

COMPOSED = ("short", "medium", "long")
WARNING = "variant_rejected"  # the type of the warning of a record that lacks a variant
FIELD_WARNING = "prompt_field"  # that of a record whose sample lacks a field of the job's prompt
MOST_TRANSLATED = 4000  # bytes of a text that is translated; they bound the cost


def prompted(request: ComposeRequest, template: str | None) -> ComposeRequest:
    """The request with the job's own prompt, filled with the sample's fields; a warning names those that it lacks."""
    if template is None or request.prompt:
        return request
    record = request.record
    own = {name: getattr(record, name) for name in RECORD_FIELDS}
    text, missing = filled(template, {**request.metadata, **own})
    if missing:
        record = record.warned(FIELD_WARNING, f"the prompt names {', '.join(missing)}, which the sample does not have")
    return replace(request, record=record, prompt=text)


def requests_of(request: ComposeRequest, texts: TextSettings) -> list[ComposeRequest]:
    """The request for the description, and one for each variant that the composer writes."""
    lengths = [name for name in texts.variants or () if name in COMPOSED]
    return [request, *(replace(request, length=name) for name in lengths)]


def translation(request: ComposeRequest, text: str, language: str) -> ComposeRequest:
    """The request to translate a text, of which at most MOST_TRANSLATED bytes are taken, in whole sentences."""
    while len(text.encode()) > MOST_TRANSLATED:
        sentences = sentences_of(text)
        cut = text.encode()[:MOST_TRANSLATED].decode(errors="ignore")
        text = " ".join(sentences[:-1]) if len(sentences) > 1 else cut
    return replace(request, image=None, errors=(), prompt="", original=text, language=language)


def translate(composer: ComposerStage, drafts: Sequence[Draft], language: str) -> None:
    """Translate what remains of drafts, in one call. A draft whose translation is rejected twice has failed."""
    open_ones = [draft for draft in drafts if isinstance(draft.text, str) and draft.left not in ("", NOTHING_FOUND)]
    if not open_ones:
        return
    started = time.perf_counter()
    texts = write(composer, [translation(draft.request, draft.left, language) for draft in open_ones])
    share = (time.perf_counter() - started) / len(open_ones)
    usage = iter(composer.usage)
    for draft, text in zip(open_ones, texts, strict=True):
        draft.add_costs(composer.name, share, next(usage, None))
        if isinstance(text, Failure):
            draft.text = text
        else:
            draft.translated = text


def finished(drafts: Sequence[Draft], language: str) -> Record:
    """The record of a description's draft and those of its variants, with the costs of all.

    A variant that the guards rejected twice is left out, with a warning; any other failure is one of the row.
    """
    first, *others = drafts
    for other in others:
        first.add_costs_of(other)
    record = first.finished()
    failures = (one.text for one in others if isinstance(one.text, Failure))
    failure = next((one for one in failures if not isinstance(one, Rejection)), None)
    if failure is not None and record.failure is None:
        return failure.row_of(record)
    if not others or record.failure is not None:
        return record
    rejected = [f"{one.request.length}: {one.text.detail}" for one in others if isinstance(one.text, Rejection)]
    record = record.warned(WARNING, "; ".join(rejected)[:300]) if rejected else record
    variants = [_variant(one, language) for one in others if not isinstance(one.text, Failure)]
    return record.model_copy(update={"variants": variants})


def _variant(draft: Draft, language: str) -> Variant:
    told = draft.described()
    return Variant(
        name=draft.request.length,
        language=language,
        text=told.text,
        sentences=told.sentences,
        verification=draft.verification,
    )
