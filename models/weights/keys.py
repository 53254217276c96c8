"""A checkpoint's weights compared with those of the model that it is loaded into, by name and shape.

transformers initialises at random what a checkpoint lacks, ignores what the model has no place for, and only logs both:
a model with one random layer runs, and writes nonsense.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from models.base import WeightsMissing

TOLD = 3  # keys of each kind that a message names
# buffers that older versions of transformers and torch saved, and that models compute themselves
_COMPUTED = re.compile(r"(^|\.)(position_ids|inv_freq|num_batches_tracked|masked_bias)$")

# SAM 2 has one matrix under two names: transformers 4 saved the second alone, and version 5 does not know it (the
# published checkpoints have both)
_TIED = {"prompt_encoder.shared_embedding.positional_embedding": "shared_image_embedding.positional_embedding"}


def load_completely(model_class: Any, folder: Path, **arguments: Any) -> Any:
    """`model_class.from_pretrained(folder, **arguments)`, from local files alone. Raises WeightsMissing for a bad fit.

    Accepted are missing weights that are tied to others, the keys that the class itself says may be missing or left
    over (`_keys_to_ignore_on_load_missing` and `_keys_to_ignore_on_load_unexpected`, which transformers applies to what
    it reports), and left-over buffers that models compute themselves. All else is refused: with a weight that is left
    over, the checkpoint has a layer, a bias or an adapter that the configuration does not tell of.
    """
    model, report = model_class.from_pretrained(
        folder, local_files_only=True, ignore_mismatched_sizes=True, output_loading_info=True, **arguments
    )
    _tie(model, report["missing_keys"])
    if fault := _fault(report):
        name = type(model).__name__
        raise WeightsMissing(f"the weights in {folder} do not fit {name}: {fault}; check them, or the profile's model")
    return model


def _tie(model: Any, missing: set[str]) -> None:
    """Fill missing weights of _TIED from those that they equal, and take them out of the set."""
    for key in missing & _TIED.keys():
        if _TIED[key] not in missing:
            model.get_buffer(key).copy_(model.get_buffer(_TIED[key]))
            missing.remove(key)


def _fault(report: Mapping[str, Collection[Any]]) -> str:
    """What does not fit, in a few words, or "". report: transformers' loading info."""
    unexpected = [key for key in report["unexpected_keys"] if not _COMPUTED.search(key)]
    shapes = [f"{key} {_shape(own)} for {_shape(expected)}" for key, own, expected in report["mismatched_keys"]]
    kinds = {"missing": report["missing_keys"], "unexpected": unexpected, "of another shape": shapes}
    faults = [f"{len(keys)} {kind} ({_some(keys)})" for kind, keys in kinds.items() if keys]
    return ", ".join([*faults, *report["error_msgs"]])


def _shape(shape: Collection[int]) -> str:
    return "×".join(map(str, shape)) or "1"


def _some(keys: Collection[str]) -> str:
    first = ", ".join(sorted(keys)[:TOLD])
    return f"{first} …" if len(keys) > TOLD else first
