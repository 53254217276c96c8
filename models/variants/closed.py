"""Closed evidence: the kinds of things that a profile's models would have found, if its pictures are all they know.

Only a profile with a domain (`Profile.domain`) has such kinds: every thing in its pictures is of a kind that its
detector knows, or of none that a question names. A detector of photographs misses too many things to know of none.
"""

from __future__ import annotations

import json

from models.evidence.domains import OUTSIDE
from models.weights.cache import locate
from strata.core import Profile, Record


def closed_kinds(profile: Profile) -> tuple[str, ...]:
    """The detector's labels, such as "a dog", for a profile with a domain; empty for all others.

    Raises WeightsMissing and OSError.
    """
    detector = profile.stages.get("detector")
    if profile.domain is None or detector is None:
        return ()
    labels = json.loads((locate(detector) / "config.json").read_text(encoding="utf-8"))["id2label"]
    return tuple(labels.values())


def is_within(record: Record) -> bool:
    """Whether a record's picture belongs to the domain of its profile."""
    return all(warning.type != OUTSIDE for warning in record.warnings)
