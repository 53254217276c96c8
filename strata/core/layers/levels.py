"""Levels: the texts of a row that training can take: layers, variants of the description, what reviewers left."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping

from strata.core.layers.spec import LayerSpec
from strata.core.layers.table import LAYERS
from strata.errors import InvalidInput


class LayerError(InvalidInput, ValueError):
    """No layer has this name; the message is one line and lists the layers."""


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
