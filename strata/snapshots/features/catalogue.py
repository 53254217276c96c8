"""The catalogue of features: what each is, which columns of parts it needs, and what computes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from strata.core import LAYERS, THINGS, LayerSpec
from strata.snapshots.features.values import (
    MATCHED,
    best_of,
    column_of,
    count_of,
    evidence,
    failure,
    given_as,
    has_text,
    image,
    match,
    personal,
    text_of,
    thing,
    told,
    words,
)

Kind = Literal["number", "flag", "name"]
CLUSTER = "cluster"  # the feature that the selection computes from the embeddings of all rows


@dataclass(frozen=True)
class Feature:
    """A feature: its kind, its meaning for users, the columns of parts that it needs, and how it is computed.

    stage: of the group `features`, whose parts have the columns; None: the columns are those of `llm` parts. whole:
    whether it needs more than the row, and only the selection of a snapshot knows it. fractions: of a number, whether
    it may lie between whole ones.
    """

    kind: Kind
    meaning: str
    columns: tuple[str, ...]
    compute: Callable[[pa.Table], Any]
    stage: str | None = None
    whole: bool = False
    fractions: bool = False


def paths_of(layer: LayerSpec, *fields: str) -> tuple[str, ...]:
    """The paths of some fields of a layer's entries in the parts' Parquet schema."""
    inside = f"{layer.name}.list.element" if layer.many else layer.name
    return tuple(f"{inside}.{field}" for field in fields)


def _of_layer(layer: LayerSpec) -> dict[str, Feature]:
    """The features of a layer: the number of kept entries, and for layers without boxes the best entry's words."""
    counted = Feature("number", f"kept entries of the layer {layer.name}", paths_of(layer, "kept"), count_of(layer))
    features = {layer.feature: counted}
    if not layer.boxed:
        columns = paths_of(layer, "kept", "score", layer.words)
        features[layer.entry] = Feature(
            "name", f"the kept {layer.entry} with the highest score", columns, best_of(layer)
        )
    return features


def _text_path(layer: LayerSpec) -> str:
    """The path of a layer's texts in the parts' Parquet schema."""
    return paths_of(layer, layer.words)[0] if layer.many else f"{layer.name}.{layer.words}".rstrip(".")


def _text_feature(layer: LayerSpec) -> Feature:
    columns = paths_of(layer, "kept", layer.words) if layer.many else (_text_path(layer),)
    meaning = f"the words of the kept {layer.title}, one entry a line" if layer.many else f"the {layer.title}"
    return Feature("name", meaning, columns, text_of(layer))


# the texts of layers, by the names of their features; "text" and "tags" are other features
TEXTS = {
    **{"alt_text": "alt_text", "caption": "caption", "description": "description"},
    **{"phrases": "regions", "read": "text", "tag_words": "tags"},
}
EVIDENCE_PATH = "description.sentences.list.element.evidence.list.element"
MATCH_PATHS = tuple(column for layer in MATCHED for column in paths_of(layer, "kept", "match"))
_KEPT = tuple(column for layer in THINGS for column in paths_of(layer, "kept"))
_BOXES = tuple(column for layer in THINGS for column in paths_of(layer, "kept", layer.words, "box.list.element"))
FEATURES: dict[str, Feature] = {
    "objects": Feature("number", "things that are kept: regions and masks together", _KEPT, count_of(*THINGS)),
    **{name: feature for layer in LAYERS.values() if layer.many for name, feature in _of_layer(layer).items()},
    "text": Feature("flag", "whether a line of text is kept", paths_of(LAYERS["text"], "kept"), has_text),
    "words": Feature("number", "words of the description", ("description.text",), words),
    "thing": Feature("name", "the noun of the largest kept region or mask that has a phrase", _BOXES, thing),
    "evidence": Feature(
        "number", "share of sentences that rest on a layer, 0 to 1", (EVIDENCE_PATH,), evidence, fractions=True
    ),
    "told": Feature("number", "entries of layers that the description rests on", (EVIDENCE_PATH,), told),
    "match": Feature(
        "number", "mean of the matcher's probabilities of kept entries, 0 to 1", MATCH_PATHS, match, fractions=True
    ),
    "width": Feature("number", "pixels", ("width",), column_of("width")),
    "height": Feature("number", "pixels", ("height",), column_of("height")),
    **{name: _text_feature(LAYERS[layer]) for name, layer in TEXTS.items()},
    "review": Feature("name", "what people said in review: none, accepted, edited, rejected", (), given_as("review")),
    "source": Feature("name", "the job or data set of --from that has the row", (), given_as("source"), whole=True),
    CLUSTER: Feature("name", "the cluster of embeddings that the image is in", (), given_as(CLUSTER), whole=True),
    "status": Feature("name", "how the row ended: succeeded, filtered, failed", ("status",), column_of("status")),
    "failure": Feature("name", "why it ended so: the type of the error, or the rule; none", ("failure",), failure),
    "key": Feature("name", "the image's key", ("key",), column_of("key")),
    "uri": Feature("name", "the file that holds the image", ("image.uri",), column_of("image", "uri")),
    "personal": Feature(
        "number",
        "different e-mail addresses and numbers of phones, accounts and cards in all texts",
        (*map(_text_path, LAYERS.values()), "variants.list.element.text"),
        personal,
    ),
    "sharpness": Feature(
        "number",
        "variance of the Laplacian of the grey image",
        ("sharpness",),
        column_of("sharpness"),
        "sharpness",
        fractions=True,
    ),
    "nsfw": Feature(
        "number", "probability of pornography, 0 to 1", ("nsfw",), column_of("nsfw"), "nsfw", fractions=True
    ),
    "aesthetic": Feature(
        "number",
        "how much people like to look at it, about 1 to 10: LAION's predictor",
        ("aesthetic",),
        column_of("aesthetic"),
        "aesthetic",
        fractions=True,
    ),
    "faces": Feature("number", "faces that were found", ("faces",), column_of("faces"), "faces"),
    "image": Feature("name", "its SHA-256 where that is known, else its file, offset and size", ("image",), image),
}
