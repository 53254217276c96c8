"""The stages of the group `features`: for each the columns that it makes of an image, in parts of its own.

Such a stage belongs to no layer and to no text. So it is no part of the chain index, vision, llm: its fingerprint has
only its own settings, and a profile that gets one more has the same fingerprints as before in all groups.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

FEATURES = "features"  # the group
VERSION = 1  # hashed into fingerprints. Raise it when columns of all stages change their meaning
# the columns of each stage, by the columns' names; all are null in a row whose image has none
FEATURE_COLUMNS: Mapping[str, pa.Schema] = {
    # SHA-256 of the pixels; PDQ hashes of the picture and its mirror image; PDQ's quality, 0 to 100; 32 × 32 pixels
    "hash": pa.schema(
        [
            ("pixels", pa.binary(32)),
            ("pdq", pa.binary(32)),
            ("mirrored", pa.binary(32)),
            ("quality", pa.int32()),
            ("thumbnail", pa.binary(1536)),
        ]
    ),
    "sharpness": pa.schema([("sharpness", pa.float32())]),
    # the probability of pornography, 0 to 1
    "nsfw": pa.schema([("nsfw", pa.float32())]),
    # the number of faces; of each x1, y1, x2, y2 as shares of the upright image's width and height, one after the other
    "faces": pa.schema([("faces", pa.int32()), ("face_boxes", pa.list_(pa.float32()))]),
    # vectors of length 1
    "embedding": pa.schema([("embedding", pa.list_(pa.float16()))]),
    "text_embedding": pa.schema([("text_embedding", pa.list_(pa.float16()))]),
    # how much people like to look at the picture, about 1 to 10
    "aesthetic": pa.schema([("aesthetic", pa.float32())]),
}
FEATURE_STAGES = tuple(FEATURE_COLUMNS)
READS_TEXTS = frozenset({"text_embedding"})  # stages whose input is the record of the group `llm`, not the image
# stages whose input is the image's `embedding`. Their settings name its model, so that their way need not hold its way
READS_EMBEDDING = frozenset({"aesthetic"})


def part_schema(stage: str) -> pa.Schema:
    """The schema of a stage's parts: the key, the columns, and for an image without values the reason."""
    return pa.schema([pa.field("key", pa.string()), *FEATURE_COLUMNS[stage], pa.field("failure", pa.string())])


def way_of(stage: str, settings: Mapping[str, Any]) -> str:
    """How a stage computes, as 16 hexadecimal digits: equal for all profiles that have it with these settings.

    settings: what `StageSettings.deciding` gives, with the version of the back end's code.
    """
    return _digest({"schema": VERSION, "group": FEATURES, "stage": stage, "settings": settings})


def feature_fingerprint(way: str, chunk_size: int, before: str = "") -> str:
    """The fingerprint of the parts that a stage computes in this way. They have the rows of chunks of this size.

    before: the fingerprint of the `llm` parts, for a stage that reads texts.
    """
    return _digest({"way": way, "chunk_size": chunk_size, "before": before})


def _digest(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
