"""Label Studio: tasks with predictions and annotations, and the labelling interface that shows them.

The formats are those of its documentation: "Import pre-annotated data into Label Studio" and "Export annotations"
(JSON). A description is a text area with one entry for each sentence; the verdict and its reason are choices.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args
from xml.sax.saxutils import quoteattr

from strata.judgments.exchange.described import Described, ForeignFile, Imported, left_by
from strata.judgments.judgment import Judgment, Reason, Subject, sentences_of

_VERDICTS = ("accepted", "rejected", "edited")
_PLACE = ("job", "fingerprint", "identity", "key")


def interface(described: Sequence[Described]) -> str:
    """The labelling interface of a project for these tasks, as XML."""
    labels = sorted({words for one in described for words, _, _ in one.things}) or ["thing"]
    choices = "".join(f'    <Choice value="{verdict}"/>\n' for verdict in _VERDICTS)
    reasons = "".join(f'    <Choice value="{reason}"/>\n' for reason in get_args(Reason))
    return (
        "<View>\n"
        '  <Image name="image" value="$image" zoom="true"/>\n'
        '  <RectangleLabels name="things" toName="image">\n'
        + "".join(f"    <Label value={quoteattr(label)}/>\n" for label in labels)
        + "  </RectangleLabels>\n"
        '  <TextArea name="description" toName="image" editable="true" maxSubmissions="200" rows="2"/>\n'
        f'  <Choices name="verdict" toName="image" choice="single" required="true">\n{choices}  </Choices>\n'
        f'  <Choices name="reason" toName="image" choice="single">\n{reasons}  </Choices>\n'
        "</View>\n"
    )


def tasks(described: Iterable[Described]) -> list[dict[str, Any]]:
    """The tasks of records, for an import into Label Studio.

    The program refuses annotations of people who are not its own, and gives those without a name to whoever imports
    them. So a task's data say who said what, by the number that the program keeps as `import_id`.
    """
    return [
        {
            "data": {"image": one.image, "strata": {**one.place, "said": [_told(one, each) for each in one.judgments]}},
            "predictions": [{"model_version": one.subject.fingerprint, "result": [*_boxes(one), _text(one)]}],
            "annotations": [
                {
                    "id": _number(judgment),
                    "result": _said(one, judgment),
                    "was_cancelled": False,
                    "ground_truth": False,
                }
                for judgment in one.judgments
            ],
        }
        for one in described
    ]


def _number(judgment: Judgment) -> int:
    """A number for a judgment: larger than those of the program's own annotations, and exact in JavaScript."""
    digest = hashlib.blake2b(judgment.id.encode(), digest_size=6).digest()
    return 2**40 | int.from_bytes(digest, "big")


def _told(one: Described, judgment: Judgment) -> dict[str, Any]:
    told = {"id": _number(judgment), "reviewer": judgment.reviewer, "verdict": judgment.verdict}
    return {**told, "reason": judgment.reason, "sentences": left_by(one.record, judgment)}


def _boxes(one: Described) -> Iterator[dict[str, Any]]:
    """The boxes of things, in percent of the picture."""
    width, height = one.record.width or 0, one.record.height or 0
    for number, (words, score, (x1, y1, x2, y2)) in enumerate(one.things if width and height else ()):
        value = {
            **{"x": 100 * x1 / width, "y": 100 * y1 / height, "rotation": 0},
            **{"width": 100 * (x2 - x1) / width, "height": 100 * (y2 - y1) / height, "rectanglelabels": [words]},
        }
        size = {"original_width": width, "original_height": height, "image_rotation": 0}
        named = {"id": f"thing{number}", "from_name": "things", "to_name": "image", "type": "rectanglelabels"}
        yield {**named, **size, "value": value, **({} if score is None else {"score": score})}


def _text(one: Described, sentences: Sequence[str] | None = None) -> dict[str, Any]:
    texts = sentences_of(one.record.description) if sentences is None else list(sentences)
    named = {"id": "description", "from_name": "description", "to_name": "image", "type": "textarea"}
    return {**named, "value": {"text": texts}}


def _said(one: Described, judgment: Judgment) -> list[dict[str, Any]]:
    """The result of a judgment: its choices, and the sentences as it left them."""
    result = [_choice("verdict", judgment.verdict), _text(one, left_by(one.record, judgment))]
    return [*result, _choice("reason", judgment.reason)] if judgment.reason else result


def _choice(name: str, choice: str) -> dict[str, Any]:
    return {"id": name, "from_name": name, "to_name": "image", "type": "choices", "value": {"choices": [choice]}}


def read(path: Path) -> list[Imported]:
    """What people said in an export of Label Studio (JSON). Raises ForeignFile and OSError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        if not isinstance(content, list):
            raise ValueError("it is no list of tasks: export the project as JSON")
        return [found for number, task in enumerate(content) for found in _annotations(number, task)]
    except (ValueError, RecursionError) as error:
        raise ForeignFile(path, str(error)) from error


def _annotations(number: int, task: Any) -> Iterator[Imported]:
    try:
        place = task["data"]["strata"]
        job, subject = str(place["job"]), Subject(*(str(place[name]) for name in _PLACE[1:]))
        shown = {one["id"]: one for one in place.get("said", ())}
        for annotation in task.get("annotations") or ():
            if not annotation.get("was_cancelled") and annotation["result"]:
                number = annotation.get("import_id") or annotation.get("id")
                yield _imported(job, subject, annotation, shown.get(number, {}))
    except (TypeError, KeyError, AttributeError, IndexError) as error:
        reason = f"{type(error).__name__} {error}"
        raise ValueError(f"task {number} is not one of `strata review export`: {reason}") from None


def _imported(job: str, subject: Subject, annotation: dict[str, Any], shown: dict[str, Any]) -> Imported:
    """What an annotation says. shown: the judgment that it was, if it is one of Strata's."""
    by = annotation.get("completed_by")
    name = by.get("email") or by.get("id") if isinstance(by, dict) else by
    name = shown.get("reviewer") if name is None else name
    values = {one["from_name"]: one["value"] for one in annotation["result"]}
    choice = {kind: (values.get(kind) or {}).get("choices") or [None] for kind in ("verdict", "reason")}
    texts = (values.get("description") or {}).get("text")
    texts = [texts] if isinstance(texts, str) else texts
    said = {"verdict": choice["verdict"][0], "reason": choice["reason"][0]}
    sentences = tuple(map(str, texts)) if texts is not None else None
    origin = json.dumps([annotation.get("id"), annotation.get("updated_at"), str(name), said, sentences])
    reviewer = name if isinstance(name, str) else f"label-studio-{name}"
    unchanged = bool(shown) and {**said, "sentences": list(sentences or ())} == {
        key: shown[key] for key in ("verdict", "reason", "sentences")
    }
    return Imported(job, subject, reviewer, said["verdict"], said["reason"], sentences, origin, unchanged)
