"""Layers: the parts of an image's description. Each layer is declared once, by a field of `Layers` and its LayerSpec.

The Arrow schema of parts, the tree that `strata caption` prints, overlays, features, exports and the web page iterate
over the table LAYERS. A new layer therefore needs a model for its entries (`entries.py`) and a field (`table.py`); the
stage that computes it is in `models/stages` and in the registry. `levels.py` adds the texts that only training reads;
`features.py` has the columns of the group `features`, which are no layers.

Boxes are absolute pixels (x1, y1, x2, y2) in the EXIF-upright image. Scores are probabilities in 0..1. Masks are COCO
run-length encodings.
"""

from __future__ import annotations

from strata.core.layers.entries import (
    Box,
    Caption,
    Description,
    Evidence,
    Frozen,
    Mask,
    ObjectMask,
    Probability,
    Region,
    Sentence,
    Tag,
    TextLine,
    head_of,
    kept,
)
from strata.core.layers.levels import REVIEWED, VARIANT_LEVELS, LayerError, layer_named
from strata.core.layers.spec import NOTHING_FOUND, Drawing, Form, LayerSpec
from strata.core.layers.table import LAYERS, THINGS, Layers, inner_type

__all__ = [
    "LAYERS",
    "NOTHING_FOUND",
    "REVIEWED",
    "THINGS",
    "VARIANT_LEVELS",
    "Box",
    "Caption",
    "Description",
    "Drawing",
    "Evidence",
    "Form",
    "Frozen",
    "LayerError",
    "LayerSpec",
    "Layers",
    "Mask",
    "ObjectMask",
    "Probability",
    "Region",
    "Sentence",
    "Tag",
    "TextLine",
    "head_of",
    "inner_type",
    "kept",
    "layer_named",
]
