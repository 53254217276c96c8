"""FiftyOne: a data set as JSON, which `fiftyone.Dataset.from_json` loads and `Dataset.write_json` writes.

Each sample has the kept things as detections (relative boxes), the description, and the verdicts as tags. What counts
when it is read: the tags `accepted`, `rejected` and `edited`, and the field `description`, which may be edited. The
fields `strata_verdict` and `strata_description` tell what they were, so that what nobody has changed is not stored as a
judgment of whoever reads it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from strata.judgments.exchange.described import Described, ForeignFile, Imported, left_by
from strata.judgments.history import reviews
from strata.judgments.judgment import Subject, sentences_of

_TAGS = ("rejected", "edited", "accepted")  # the first one that a sample has counts
_PLACE = ("job", "fingerprint", "identity", "key")
_FIELDS = "fiftyone.core.fields"
_TEXT = f"{_FIELDS}.StringField"
# the types of the fields that FiftyOne's own samples do not have: without them it refuses the samples
_TYPES = {
    "things": f"{_FIELDS}.EmbeddedDocumentField(fiftyone.core.labels.Detections)",
    "description": _TEXT,
    "reviewers": f"{_FIELDS}.ListField({_TEXT})",
    **dict.fromkeys((f"strata_{name}" for name in ("verdict", "description", *_PLACE)), _TEXT),
}


def data_set(described: Sequence[Described], name: str) -> dict[str, Any]:
    """A data set of records; the images' paths are relative to the folder `rel_dir` of `from_json`."""
    samples = [_sample(one) for one in described]
    about = {"name": name, "media_type": "image", "num_samples": len(samples), "info": {"strata": 1}}
    return {**about, "sample_fields": dict(_TYPES), "samples": samples}


def _sample(one: Described) -> dict[str, Any]:
    width, height = one.record.width or 0, one.record.height or 0
    detections = [
        {
            "_cls": "Detection",
            "label": words,
            "bounding_box": [x1 / width, y1 / height, (x2 - x1) / width, (y2 - y1) / height],
            **({} if score is None else {"confidence": score}),
        }
        for words, score, (x1, y1, x2, y2) in (one.things if width and height else ())
    ]
    review = reviews(one.judgments).get(one.subject, "none")
    edits = [left_by(one.record, judgment) for judgment in one.judgments if judgment.verdict == review == "edited"]
    description = "\n".join(edits[-1] if edits else sentences_of(one.record.description))
    return {
        "filepath": one.image,
        "tags": [] if review == "none" else [review],
        "things": {"_cls": "Detections", "detections": detections},
        "description": description,
        "reviewers": sorted({judgment.reviewer for judgment in one.judgments}),
        "strata_verdict": review,
        "strata_description": description,
        **{f"strata_{name}": value for name, value in one.place.items()},
    }


def read(path: Path, reviewer: str) -> list[Imported]:
    """What a reviewer said in a data set of `Dataset.write_json`. Raises ForeignFile and OSError.

    A sample without one of the tags says nothing.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        samples = content["samples"]
        found = [_imported(sample, reviewer) for sample in samples]
    except (ValueError, RecursionError) as error:
        raise ForeignFile(path, str(error)) from error
    except (TypeError, KeyError, AttributeError) as error:
        reason = f"it is no data set of `strata review export`: {type(error).__name__} {error}"
        raise ForeignFile(path, reason) from error
    return [one for one in found if one is not None]


def _imported(sample: dict[str, Any], reviewer: str) -> Imported | None:
    verdict = next((tag for tag in _TAGS if tag in sample["tags"]), None)
    if verdict is None:
        return None
    job, *subject = (str(sample[f"strata_{name}"]) for name in _PLACE)
    text = sample.get("description")
    lines = tuple(text.splitlines()) if isinstance(text, str) else None
    origin = json.dumps([reviewer, verdict, lines])
    unchanged = (verdict, text) == (sample.get("strata_verdict"), sample.get("strata_description"))
    return Imported(job, Subject(*subject), reviewer, verdict, None, lines, origin, unchanged)
