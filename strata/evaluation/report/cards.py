"""One record on a report's page: its picture with boxes, its sentences with their evidence, its layers."""

from __future__ import annotations

from collections.abc import Iterator

from strata.core import LAYERS, CheckedSentence, Evidence, LayerSpec, Record, Variant
from strata.evaluation.report.content import kinds_of
from strata.evaluation.report.markup import Markup, joined, tag
from strata.evaluation.truth import Truth

# the reasons of the verifier in words
REASONS = {
    "unsupported_object": "nothing supports a thing",
    "wrong_attribute": "an attribute is wrong",
    "wrong_count": "a number is wrong",
    "wrong_relation": "a relation is wrong",
    "unread_text": "quoted text was not read",
    "low_match": "the matcher disagrees",
    "contradicts": "contradicts an entry",
}
# what a sentence rests on, that which tells most of it first
FOLDED = 400  # characters of an alt text, above which it is folded
_KINDS = ("regions", "objects", "text", "tags", "caption", "alt_text")
SHOWN_ENTRIES = 60  # of a layer


def card(record: Record, score: float, picture: str | None, truth: Truth | None) -> Markup:
    """The card of one record. score: 0..1; picture: a data URI; truth: None if it is not known."""
    size = f"{record.width}×{record.height}" if record.width and record.height else ""
    head = tag("h3", tag("span", record.key), " ", tag("small", f"score {score:.2f} {size}"))
    return tag("article", head, told(record, picture, truth), class_="card")


def told(record: Record, picture: str | None, truth: Truth | None = None) -> Markup:
    """The picture of a record with its boxes, and beside it what the record says, with the evidence."""
    return tag("div", _picture(record, picture), tag("div", *_texts(record, truth), class_="told"), class_="two")


def _picture(record: Record, picture: str | None) -> Markup:
    """The picture with the boxes of kept entries; where it cannot be read, the boxes alone."""
    if not record.width or not record.height:
        return tag("p", "no size is known", class_="faint")
    size = {"width": record.width, "height": record.height}
    parts = [Markup(f'<image href="{picture}" width="{record.width}" height="{record.height}"/>')] if picture else []
    if not picture:
        parts.append(tag("rect", **size, class_="missing"))
    stroke = max(record.width, record.height) / 220
    for layer in LAYERS.values():
        for number, entry in enumerate(layer.entries(getattr(record, layer.name)) if layer.boxed else ()):
            if entry.kept:
                left, top, right, bottom = entry.box
                title = tag("title", f"{layer.name}/{number}: {layer.display_text(entry)}")
                sides = {"x": f"{left:.1f}", "y": f"{top:.1f}"}
                sides |= {"width": f"{max(0, right - left):.1f}", "height": f"{max(0, bottom - top):.1f}"}
                parts.append(tag("rect", title, class_=f"box {layer.name}", stroke_width=f"{stroke:.2f}", **sides))
    view = f"0 0 {record.width} {record.height}"
    label = f"{record.key}{'' if picture else ' (the image cannot be read now)'}"
    note = () if picture else (tag("figcaption", "the image cannot be read now", class_="faint"),)
    return tag("figure", tag("svg", *parts, viewBox=view, role="img", aria_label=label), *note)


def _texts(record: Record, truth: Truth | None) -> Iterator[Markup]:
    yield tag("p", *_sentences(record), class_="description")
    if record.caption is not None:
        state = "" if record.caption.kept else f" (dropped: {record.caption.reason or 'no reason given'})"
        yield tag("p", tag("b", "caption "), record.caption.text, tag("small", f" {_scores(record.caption)}{state}"))
    if record.alt_text:
        yield _folded("alt text ", record.alt_text)
    if truth is not None:
        told = [*(_thing(thing) for thing in truth.things), *(f"“{line}”" for line in truth.texts)]
        yield tag("p", tag("b", "truth "), ", ".join(told) or "nothing")
    for variant in record.variants or ():
        yield _variant(variant)
    for layer in LAYERS.values():
        entries = layer.entries(getattr(record, layer.name))
        if layer.many and entries:
            yield _layer(layer, entries)
    for warning in record.warnings:
        yield tag("p", tag("b", "warning "), warning.detail, class_="faint")


def _folded(name: str, text: str) -> Markup:
    """A text with its name; a long one behind its beginning."""
    if len(text) <= FOLDED:
        return tag("p", tag("b", name), text)
    start = tag("summary", tag("b", name), f"{text[:FOLDED]} … ({len(text):,} characters)")
    return tag("details", start, tag("p", text))


def _thing(thing: object) -> str:
    name, attributes = thing.name, thing.attributes  # type: ignore[attr-defined]
    return " ".join([*sorted(attributes), name])


def _sentences(record: Record) -> Iterator[Markup]:
    """The sentences that remain, coloured by their evidence, and among them those that were cut, with the reason."""
    if record.description is None:
        yield tag("span", "no description", class_="faint")
        return
    remaining = list(record.description.sentences)
    for checked in record.verification.sentences if record.verification else ():
        if checked.reason is None or checked.kept is not None:
            # a sentence that remains: whole or cut back
            if remaining:
                one = remaining.pop(0)
                yield _sentence(one.text, one.evidence)
                yield Markup(" ")
            if checked.reason is None:
                continue
        yield _cut(checked)
        yield Markup(" ")
    for one in remaining:
        yield _sentence(one.text, one.evidence)
        yield Markup(" ")
    origin = record.verification.origin if record.verification else "composed"
    if origin != "composed":
        yield tag("small", f"({origin.replace('_', ' ')})")


def _sentence(words: str, evidence: list[str]) -> Markup:
    kinds = sorted(kinds_of(evidence), key=lambda kind: _KINDS.index(kind) if kind in _KINDS else len(_KINDS))
    note = tag("small", ", ".join(evidence) or "no evidence", class_="chip")
    return tag("span", words, " ", note, class_=f"sentence {kinds[0] if kinds else 'none'}")


def _cut(checked: CheckedSentence) -> Markup:
    reason = REASONS.get(checked.reason or "", checked.reason or "")
    whole = checked.kept is None
    return tag(
        "span",
        tag("del", checked.text),
        " ",
        tag("small", f"{'cut' if whole else 'cut back'}: {reason}", class_="chip"),
        class_="sentence cut",
    )


def _variant(variant: Variant) -> Markup:
    language = "" if variant.language == "en" else f" ({variant.language})"
    return tag("details", tag("summary", f"variant {variant.name}{language}"), tag("p", variant.text, class_="lines"))


def _layer(layer: LayerSpec, entries: list[Evidence]) -> Markup:
    """The entries of a layer, those that were kept first; the number is the one that sentences name."""
    kept = sum(entry.kept for entry in entries)
    ordered = sorted(enumerate(entries), key=lambda pair: not pair[1].kept)
    rows = [_entry(layer, number, entry) for number, entry in ordered[:SHOWN_ENTRIES]]
    if len(entries) > SHOWN_ENTRIES:
        rows.append(tag("li", f"and {len(entries) - SHOWN_ENTRIES:,} more", class_="faint"))
    head = tag("summary", f"{layer.title}: {kept} kept, {len(entries) - kept} dropped")
    return tag("details", head, tag("ul", joined(rows)))


def _entry(layer: LayerSpec, number: int, entry: Evidence) -> Markup:
    words = layer.display_text(entry) or "without a phrase"
    reason = "" if entry.kept else f" dropped: {entry.reason or 'no reason given'}"
    inner = words if entry.kept else tag("del", words)
    return tag("li", f"{layer.name}/{number} ", inner, tag("small", f" {_scores(entry)}{reason}"), class_=layer.name)


def _scores(entry: Evidence) -> str:
    found = (("match", entry.match), ("score", entry.score))
    return " ".join(f"{name} {value:.2f}" for name, value in found if value is not None)
