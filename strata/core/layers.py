"""Layers: the parts of an image's description. Each layer is declared once, by a field of `Layers` and its LayerSpec.

The Arrow schema of parts, the tree that `strata caption` prints, overlays, features, exports and the web page iterate
over the table LAYERS. A new layer therefore needs a model for its entries and a field here; the stage that computes it
is in `models/stages` and in the registry.

Boxes are absolute pixels (x1, y1, x2, y2) in the EXIF-upright image. Scores are probabilities in 0..1. Masks are COCO
run-length encodings.
"""

from __future__ import annotations

import dataclasses
import re
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field

from strata.errors import InvalidInput

# the whole description of an image in which a profile knows nothing; people read it, training does not
NOTHING_FOUND = "Nothing that this profile knows was found."

Box = tuple[float, float, float, float]
Probability = Annotated[float, Field(ge=0, le=1)]


class Frozen(BaseModel):
    """Base class of the models in a record: immutable, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Evidence(Frozen):
    """One observation with its scores.

    score: the stage's own confidence; match: the matcher's probability that the phrase is true of the crop (null if
    no matcher scored it); kept: whether the composer gets it; reason: why it was dropped ("low_match",
    "low_second_match", "low_score", "low_evidence", "contradicted", "duplicate"; "too_large", "too_short" and
    "no_letters" of text; the guard that rejected its phrase, as "captioner_loop"; the stage that failed on its crop, as
    "matcher_failed"), null when kept.
    """

    score: Probability | None = None
    match: Probability | None = None
    kept: bool = True
    reason: str | None = None


class Caption(Evidence):
    """The caption of the whole image."""

    text: str


class Region(Evidence):
    """A box and the phrase for what is in it."""

    box: Box
    phrase: str


class Mask(Frozen):
    """COCO compressed run-length encoding; size is (height, width) in pixels."""

    size: tuple[int, int]
    counts: str


class ObjectMask(Evidence):
    """A mask, its box, its area in pixels, and the phrase for what it covers; null if no captioner described it."""

    box: Box
    mask: Mask
    area: int
    phrase: str | None = None


class TextLine(Evidence):
    """A line of text that the OCR recognized."""

    box: Box
    text: str


class Tag(Evidence):
    """A word for the whole image, out of the tagger's list."""

    word: str


class Sentence(Frozen):
    """A sentence of the description; evidence names entries of layers: "caption", "regions/0", "text/1"."""

    text: str
    evidence: list[str]


class Description(Frozen):
    """The composer's text, whole and sentence by sentence."""

    text: str
    sentences: list[Sentence]


class LayerError(InvalidInput, ValueError):
    """No layer has this name; the message is one line and lists the layers."""


Form = Literal["text", "entry", "entries", "sentences"]
Drawing = Literal["none", "box", "mask", "quote", "strip"]


@dataclass(frozen=True)
class LayerSpec:
    """How a layer is computed, displayed, drawn and exported.

    title: its heading. entry: the noun for one entry. words: the field of an entry that contains its words; "" for a
    layer that is a text itself. quoted: whether the words can be read in the picture; they are then shown in quotes.
    separator: the text between the entries' words when they are joined. instruction: the user's turn of a conversation
    whose answer is the joined text; where: that of one whose answer has the entries' boxes too. stage: the stage that
    computes the layer; None: it comes with the image.
    whole_image: whether that stage maps a whole image to a list of the layer's entries, or of objects with the fields
    of an entry; `models.pipeline` then runs it without code for this layer. matched: whether the matcher scores its
    entries. drawing: "box" and "mask" with the words as a label, "quote" for a line of text at its position, "strip"
    for a text below the picture. feature: the name of the feature that counts the kept entries; "": the layer's name.

    name, model (of an entry, or str) and many (whether it is a list) follow from the field of `Layers`. variant: of a
    level that is another text of the description's evidence (VARIANT_LEVELS), its name in the column `variants`.
    """

    title: str
    entry: str
    instruction: str
    where: str = ""
    words: str = ""
    stage: str | None = None
    quoted: bool = False
    separator: str = "; "
    whole_image: bool = False
    matched: bool = False
    drawing: Drawing = "none"
    feature: str = ""
    name: str = ""
    model: type[Any] = str
    many: bool = False
    variant: str = ""

    @property
    def column(self) -> str:
        """The column of a part that holds it."""
        return "variants" if self.variant else self.name

    @property
    def asks_itself(self) -> bool:
        """Whether its text is questions with answers, which need no instruction."""
        return self.variant == "questions"

    def value_of(self, row: Mapping[str, Any]) -> Any:
        """Its value in a part's row; None if it is null, or if the row has no such variant."""
        if not self.variant:
            return row[self.name]
        return next((one for one in row[self.column] or () if one["name"] == self.variant), None)

    def turns_of(self, row: Mapping[str, Any]) -> list[str]:
        """Questions and answers in turn, of a level that has some; else none."""
        value = self.value_of(row) if self.variant else None
        return [text for turn in (value or {}).get("turns") or () for text in (turn["question"], turn["answer"])]

    @property
    def form(self) -> Form:
        """A text, one entry with scores, a list of such entries, or a text with its sentences."""
        if not self.scored:
            return "sentences" if self.words else "text"
        return "entries" if self.many else "entry"

    @property
    def scored(self) -> bool:
        """Whether its entries have the fields of Evidence."""
        return issubclass(self.model, Evidence)

    @property
    def boxed(self) -> bool:
        """Whether its entries have a box."""
        return self.scored and "box" in self.model.model_fields

    @property
    def names_things(self) -> bool:
        """Whether its entries name what is inside their box; a line of OCR text does not."""
        return self.boxed and not self.quoted

    def entries(self, value: Any) -> list[Any]:
        """The entries of the layer's value in a record or a row; none of a layer that is null or has no entries."""
        if value is None or not self.scored:
            return []
        return list(value) if self.many else [value]

    def words_of(self, entry: Any) -> str:
        """The words of an entry: a model, or a row as `to_pylist` gives it; "" where it has none."""
        words = entry[self.words] if isinstance(entry, Mapping) else getattr(entry, self.words)
        return str(words or "")

    def display_text(self, entry: Any) -> str:
        """The words of an entry for display: in quotes if they can be read in the picture."""
        words = self.words_of(entry)
        return f"“{words}”" if self.quoted else words

    def text_of(self, row: Mapping[str, Any]) -> str | None:
        """The layer of a part's row as one text for training; None if it has no text.

        For a layer with entries: the words of the kept ones, in order, joined by the separator. A description that says
        NOTHING_FOUND is no text: it is not what a model should learn of the image.
        """
        value = self.value_of(row)
        if value is None:
            return None
        # the text itself, the text beside its sentences, or the joined words of the entries
        if self.form == "text":
            text = str(value)
        elif self.form == "sentences":
            text = self.words_of(value)
        else:
            text = self.separator.join(filter(None, map(self.words_of, kept(self.entries(value)))))
        return None if text == NOTHING_FOUND else text.strip() or None


class Layers(BaseModel):
    """The layers of a record, in order: null where not computed, an empty list where nothing was found."""

    alt_text: Annotated[
        str | None,
        LayerSpec(
            title="alt text",
            entry="alt text",
            instruction="Write an alt text for this image.",
        ),
    ] = None
    caption: Annotated[
        Caption | None,
        LayerSpec(
            title="caption",
            entry="caption",
            instruction="Describe this image in one sentence.",
            words="text",
            stage="captioner",
            matched=True,
            drawing="strip",
        ),
    ] = None
    regions: Annotated[
        list[Region] | None,
        LayerSpec(
            title="regions",
            entry="region",
            instruction="Name what is in this image.",
            where="Name what is in this image, and where.",
            words="phrase",
            stage="detector",
            whole_image=True,
            matched=True,
            drawing="box",
        ),
    ] = None
    objects: Annotated[
        list[ObjectMask] | None,
        LayerSpec(
            title="objects",
            entry="object",
            instruction="Name the objects in this image.",
            where="Name the objects in this image, and where they are.",
            words="phrase",
            stage="segmenter",
            matched=True,
            drawing="mask",
            feature="masks",
        ),
    ] = None
    text: Annotated[
        list[TextLine] | None,
        LayerSpec(
            title="text",
            entry="line",
            instruction="Write the text that can be read in this image.",
            where="Write the text that can be read in this image, line by line, and where it is.",
            words="text",
            stage="ocr",
            whole_image=True,
            quoted=True,
            separator="\n",
            drawing="quote",
            feature="lines",
        ),
    ] = None
    tags: Annotated[
        list[Tag] | None,
        LayerSpec(
            title="tags",
            entry="tag",
            instruction="List words for what is in this image.",
            words="word",
            stage="tagger",
            whole_image=True,
            separator=", ",
        ),
    ] = None
    description: Annotated[
        Description | None,
        LayerSpec(
            title="description",
            entry="sentence",
            instruction="Describe this image in detail.",
            words="text",
            stage="composer",
            drawing="strip",
        ),
    ] = None


def inner_type(annotation: Any) -> Any:
    """The type of an annotation without `Annotated` and without None."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType):
        (annotation,) = (kind for kind in get_args(annotation) if kind is not types.NoneType)
        return inner_type(annotation)
    return annotation


def _specs(model: type[BaseModel]) -> dict[str, LayerSpec]:
    specs: dict[str, LayerSpec] = {}
    for name, field in model.model_fields.items():
        # each field must have exactly one LayerSpec; otherwise the unpacking fails at import
        (spec,) = (item for item in field.metadata if isinstance(item, LayerSpec))
        # name, model and many are derived from the field, so that they cannot contradict it
        kind = inner_type(field.annotation)
        many = get_origin(kind) is list
        entry = inner_type(get_args(kind)[0]) if many else kind
        specs[name] = dataclasses.replace(spec, name=name, model=entry, many=many, feature=spec.feature or name)
    return specs


LAYERS: Mapping[str, LayerSpec] = types.MappingProxyType(_specs(Layers))
THINGS = tuple(spec for spec in LAYERS.values() if spec.names_things)


# what people left of the description in review: no layer of a record, but a text of a snapshot's rows
REVIEWED = LayerSpec(
    name="reviewed",
    title="reviewed description",
    entry="reviewed description",
    instruction=LAYERS["description"].instruction,
)


_ASKED = {
    "short": "Describe this image in one short sentence.",
    "medium": "Describe this image in two or three sentences.",
    "long": "Describe this image in detail, with all that can be seen and where it is.",
    "tags": "List the things in this image, with commas between them.",
    "json": "Write what is in this image as JSON, with the boxes of all things in pixels.",
    "questions": "Ask questions about this image, and answer each.",
}
VARIANT_LEVELS: Mapping[str, LayerSpec] = types.MappingProxyType(
    {
        f"description.{name}": dataclasses.replace(
            LAYERS["description"],
            name=f"description.{name}",
            title=name,
            instruction=asked,
            variant=name,
            drawing="none",
        )
        for name, asked in _ASKED.items()
    }
)
"""The variants of a description as levels for training: no layers of a record, but each has an own text of it."""


def layer_named(name: str) -> LayerSpec:
    """The layer or variant of a name ("caption", "description.short"), or REVIEWED. Raises LayerError."""
    if name == REVIEWED.name:
        return REVIEWED
    known = {**LAYERS, **VARIANT_LEVELS}
    if name not in known:
        raise LayerError(f"no layer {name!r}; there are {', '.join(known)}")
    return known[name]


def kept(entries: Iterable[Any] | None) -> list[Any]:
    """The entries of a layer that are kept; models, or rows as `to_pylist` gives them."""
    return [entry for entry in entries or () if (entry["kept"] if isinstance(entry, Mapping) else entry.kept)]


# words that begin the modifier after a noun; the head noun is before the first of them
_FIRST = re.compile(r"\b(?:with|of|on|in|at|that|wearing)\b")
_WORD = re.compile(r"[^\W\d_]+")


def head_of(phrase: str) -> str:
    """The head noun of a phrase, in lower case: "a red car on a road" -> "car".

    Takes the last word before the first preposition or relative pronoun.
    """
    words: list[str] = _WORD.findall(_FIRST.split(phrase, maxsplit=1)[0].lower())
    return words[-1] if words else phrase.lower()
