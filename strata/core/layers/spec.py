"""The spec of a layer: how it is computed, displayed, drawn and exported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from strata.core.layers.entries import Evidence, kept

# the whole description of an image in which a profile knows nothing; people read it, training does not
NOTHING_FOUND = "Nothing that this profile knows was found."

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
