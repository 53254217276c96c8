"""The texts of a record that an evaluation measures: its layers, its variants, and what it is compared with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from strata.core import LAYERS, Box, CheckedSentence, Record, Sentence, kept
from strata.core.layers import NOTHING_FOUND, LayerSpec

COMPOSED, UNCHECKED = "composed", "unchecked"
# why the matcher, or the comparison of layers, has dropped an entry: a composer without them would have told it
_DROPPED_BY_CHECKS = ("low_match", "low_second_match", "low_evidence", "contradicted")


class Text(NamedTuple):
    """One text of a record. name: of its layer, "composed", "unchecked", or "variant NAME".

    listed: whether it is a layer's kept entries, of which `entries` has the words and boxes where the layer is `boxed`.
    quoted: whether these are words that can be read in the image: they are `lines` then, and no text. sentences: with
    their evidence; checked: what the verifier found of them; None: it was not asked.
    """

    name: str
    text: str
    entries: tuple[tuple[str, Box], ...] = ()
    lines: tuple[str, ...] = ()
    listed: bool = False
    boxed: bool = False
    quoted: bool = False
    sentences: tuple[Sentence, ...] | None = None
    checked: tuple[CheckedSentence, ...] | None = None


def texts_of(record: Record) -> Iterator[Text]:
    """All texts of a record: its layers, the composition before the verifier and before all checks, its variants."""
    for layer in LAYERS.values():
        value = getattr(record, layer.name)
        if value is not None:
            yield _of_layer(layer, value, record)
    yield from _composed(record)
    for variant in record.variants or ():
        language = "" if variant.language.startswith("en") else f" {variant.language}"
        checked = tuple(variant.verification.sentences) if variant.verification else None
        yield Text(
            f"variant {variant.name}{language}",
            variant.text,
            sentences=tuple(variant.sentences) or None,
            checked=checked and _remaining(checked),
        )


def _of_layer(layer: LayerSpec, value: Any, record: Record) -> Text:
    """The text of a layer: of one with entries the words of those that are kept, a sentence each."""
    if layer.form == "text":
        return Text(layer.name, str(value))
    if layer.form == "sentences":
        text = "" if value.text == NOTHING_FOUND else value.text
        checked = tuple(record.verification.sentences) if record.verification else None
        return Text(
            layer.name, text, sentences=tuple(value.sentences) if text else (), checked=checked and _remaining(checked)
        )
    entries = [entry for entry in kept(layer.entries(value)) if layer.words_of(entry)]
    if layer.quoted:
        return Text(layer.name, "", lines=tuple(map(layer.words_of, entries)), listed=True, quoted=True)
    placed = tuple((layer.words_of(entry), entry.box) for entry in entries) if layer.boxed else ()
    text = _as_sentences(map(layer.words_of, entries))
    return Text(layer.name, text, placed, listed=layer.many, boxed=layer.boxed)


def _as_sentences(phrases: Iterator[str]) -> str:
    return " ".join(phrase if phrase.endswith((".", "!", "?")) else f"{phrase}." for phrase in phrases)


def _composed(record: Record) -> Iterator[Text]:
    """The text as it was composed, and with a sentence for each thing that only the checks of the layers dropped.

    The second one is what a composer tells without a matcher and without a verifier: an estimate, since the composer
    would have put the dropped things into sentences of its own.
    """
    if record.description is None:
        return
    found = record.verification
    text = found.text if found else record.description.text
    text = "" if text == NOTHING_FOUND else text
    if found:
        yield Text(COMPOSED, text, checked=tuple(found.sentences))
    dropped = dict.fromkeys(_dropped(record))
    told = [f"There is {phrase}." for phrase in dropped if phrase.lower() not in text.lower()]
    yield Text(UNCHECKED, " ".join([text, *told]).strip())


def _dropped(record: Record) -> Iterator[str]:
    for layer in LAYERS.values():
        if layer.names_things:
            for entry in layer.entries(getattr(record, layer.name)):
                if not entry.kept and entry.reason in _DROPPED_BY_CHECKS and layer.words_of(entry):
                    yield layer.words_of(entry).strip().rstrip(".")


def _remaining(sentences: tuple[CheckedSentence, ...]) -> tuple[CheckedSentence, ...]:
    """The sentences that remain after the verifier; of one that was cut back, the claims that it did not reject."""
    found = []
    for one in sentences:
        if one.kept is not None:
            whole = one.kept == one.text
            claims = [claim for claim in one.claims if whole or claim.supported is not False]
            found.append(one.model_copy(update={"text": one.kept, "claims": claims}))
    return tuple(found)
