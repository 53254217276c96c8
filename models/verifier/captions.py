"""Captions: what regions, objects and text contradict is cut from a caption, in the same way as from a description."""

from __future__ import annotations

from models.verifier.entities import facts_of
from models.verifier.verifying import Reading, remaining
from strata.core import Record


def without_false_claims(record: Record) -> Record:
    """The record with what remains of its caption; a caption of which nothing remains is dropped as "contradicted".

    What no other layer can judge, such as the background, stays.
    """
    caption = record.caption
    if caption is None or not caption.kept:
        return record
    # the caption is no evidence for itself
    facts = facts_of(record.model_copy(update={"caption": None}))
    left = remaining(Reading(facts).read(caption.text))
    changes = {"text": left} if left else {"kept": False, "reason": "contradicted"}
    return record.model_copy(update={"caption": caption.model_copy(update=changes)})
