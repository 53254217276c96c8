"""Records and judgments to Label Studio and FiftyOne and back, against written schemas of their formats."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strata.core import Record
from strata.core.layers import Description, Sentence
from strata.errors import InvalidInput
from strata.judgments import Subject, sentences_of, stored
from strata.judgments.exchange import Described, ForeignFile, Imported, fiftyone, label_studio, opinion_of
from tests.described import FINGERPRINT, described
from tests.judged import JOB, START, judgment

# of "Import pre-annotated data into Label Studio" and "Label Studio JSON format of annotated tasks"
RESULT = {
    "type": "object",
    "required": ["from_name", "to_name", "type", "value"],
    "properties": {
        "type": {"enum": ["rectanglelabels", "textarea", "choices"]},
        "to_name": {"const": "image"},
        "original_width": {"type": "integer", "minimum": 1},
        "score": {"type": "number"},
        "value": {
            "oneOf": [
                {
                    "required": ["x", "y", "width", "height", "rotation", "rectanglelabels"],
                    "properties": {
                        **{side: {"type": "number", "minimum": 0, "maximum": 100} for side in ("x", "y")},
                        **{side: {"type": "number", "minimum": 0, "maximum": 100} for side in ("width", "height")},
                        "rectanglelabels": {"type": "array", "items": {"type": "string"}, "minItems": 1},
                    },
                },
                {"required": ["text"], "properties": {"text": {"type": "array", "items": {"type": "string"}}}},
                {"required": ["choices"], "properties": {"choices": {"type": "array", "minItems": 1}}},
            ]
        },
    },
}
TASKS = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["data", "predictions", "annotations"],
        "properties": {
            "data": {"type": "object", "required": ["image"], "properties": {"image": {"type": "string"}}},
            "predictions": {
                "type": "array",
                "items": {
                    "required": ["result", "model_version"],
                    "properties": {"result": {"type": "array", "items": RESULT}},
                },
            },
            "annotations": {
                "type": "array",
                "items": {"required": ["result"], "properties": {"result": {"type": "array", "items": RESULT}}},
            },
        },
    },
}
# of fiftyone.Dataset.from_dict, Sample.from_dict and Detection
DATA_SET = {
    "type": "object",
    "required": ["name", "media_type", "samples"],
    "properties": {
        "media_type": {"const": "image"},
        "samples": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["filepath", "tags", "things"],
                "properties": {
                    "filepath": {"type": "string"},
                    "tags": {"type": "array", "items": {"type": "string"}},
                    "things": {
                        "required": ["_cls", "detections"],
                        "properties": {
                            "_cls": {"const": "Detections"},
                            "detections": {
                                "type": "array",
                                "items": {
                                    "required": ["_cls", "label", "bounding_box"],
                                    "properties": {
                                        "_cls": {"const": "Detection"},
                                        "label": {"type": "string"},
                                        "confidence": {"type": "number"},
                                        "bounding_box": {
                                            "type": "array",
                                            "minItems": 4,
                                            "maxItems": 4,
                                            "items": {"type": "number", "minimum": 0, "maximum": 1},
                                        },
                                    },
                                },
                            },
                        },
                    },
                },
            },
        },
    },
}
EDIT: dict[str, Any] = {
    "sentences": (
        {"index": 0, "verdict": "edited", "edited": "Three & <four>."},
        {"index": 1, "verdict": "rejected"},
    ),
    "text": "Three & <four>.",
}


def records() -> list[Described]:
    edited = judgment("1", 0, "edited", key="a", **EDIT)
    accepted = judgment("2", 0, key="b")
    rejected = judgment("3", 0, "rejected", key="c", reason="wrong_count")
    return [
        Described(JOB, Subject(FINGERPRINT, "a" * 16, key), described(key, ["cat"]), f"images/{key}.jpg", said)
        for key, said in (("a", [edited]), ("b", [accepted]), ("c", [rejected]), ("d", []))
    ]


def said_of(record: Record, found: Imported) -> tuple[str, str | None, list[tuple[int, str, str | None]]]:
    opinion = opinion_of(found, sentences_of(record.description))
    return opinion.verdict, opinion.reason, [(one.index, one.verdict, one.edited) for one in opinion.sentences]


def test_label_studio_there_and_back(tmp_path: Path) -> None:
    given = records()
    tasks = label_studio.tasks(given)
    jsonschema.validate(tasks, TASKS)
    # every name of a result stands in the interface, which is XML
    interface = ElementTree.fromstring(label_studio.interface(given))
    names = {one.get("name") for one in interface}
    results = [
        one
        for task in tasks
        for kind in ("predictions", "annotations")
        for each in task[kind]
        for one in each["result"]
    ]
    assert {one["from_name"] for one in results} <= names
    assert {label.get("value") for label in interface.iter("Label")} == {"a red cat"}
    path = tmp_path / "export.json"
    path.write_text(json.dumps(tasks))
    found = label_studio.read(path)
    assert [(one.subject.key, one.reviewer) for one in found] == [("a", "Ada"), ("b", "Ada"), ("c", "Ada")]
    assert [said_of(given[n].record, one) for n, one in enumerate(found)] == [
        ("edited", None, [(0, "edited", "Three & <four>."), (1, "rejected", None)]),
        ("accepted", None, []),
        ("rejected", "wrong_count", []),
    ]
    # Label Studio refuses an annotation of somebody whom it does not know
    assert all("completed_by" not in each for task in tasks for each in task["annotations"])
    assert all(one.unchanged for one in found)
    # the same file gives the same ids, another annotation another one
    ids = [opinion_of(one, ["One.", "Two."]).id for one in found]
    assert ids == [opinion_of(one, ["One.", "Two."]).id for one in label_studio.read(path)]
    assert len(set(ids)) == 3


def test_label_studio_s_own_export(tmp_path: Path) -> None:
    """As the program writes it: numbers for people, a text for a single entry, cancelled and empty annotations."""
    (task,) = label_studio.tasks(records()[3:])
    text = {"from_name": "description", "to_name": "image", "type": "textarea", "value": {"text": "One."}}
    task["annotations"] = [
        {"id": 7, "completed_by": 3, "result": [text], "was_cancelled": False, "updated_at": "2026-11-29"},
        {"id": 8, "completed_by": 3, "result": [text], "was_cancelled": True},
        {"id": 9, "completed_by": {"id": 4}, "result": []},
    ]
    path = tmp_path / "export.json"
    path.write_text(json.dumps([task]), encoding="utf-8-sig")
    (found,) = label_studio.read(path)
    assert found.reviewer == "label-studio-3"
    assert said_of(records()[3].record, found) == ("edited", None, [(1, "rejected", None)])


def test_what_label_studio_has_shown_and_nobody_has_changed_is_no_new_judgment(tmp_path: Path) -> None:
    """As the program writes what it has imported: with an id and a user of its own, and our number as `import_id`."""
    exported = label_studio.tasks(records())
    for number, task in enumerate(exported):
        for annotation in task["annotations"]:
            annotation |= {"import_id": annotation["id"], "id": number + 1, "completed_by": 1, "updated_at": "x"}
    mine = {"id": 9, "import_id": None, "completed_by": 1, "result": exported[1]["annotations"][0]["result"]}
    exported[1]["annotations"].append(mine)
    path = tmp_path / "export.json"
    path.write_text(json.dumps(exported))
    found = label_studio.read(path)
    # the same verdict of another person is one
    assert [(one.subject.key, one.unchanged) for one in found] == [("a", True), ("b", True), ("b", False), ("c", True)]
    assert found[2].reviewer == "label-studio-1"
    exported[2]["annotations"][0]["result"][0]["value"]["choices"] = ["accepted"]
    path.write_text(json.dumps(exported))
    (changed,) = [one for one in label_studio.read(path) if one.subject.key == "c"]
    assert (changed.unchanged, changed.verdict, changed.reviewer) == (False, "accepted", "label-studio-1")


def test_fiftyone_there_and_back(tmp_path: Path) -> None:
    given = records()
    data = fiftyone.data_set(given, "x")
    jsonschema.validate(data, DATA_SET)
    # `Dataset.from_dict` (1.22) adds samples without expanding the schema: all fields but its own must be declared
    for sample in data["samples"]:
        assert set(data["sample_fields"]) == set(sample) - {"filepath", "tags"}
    assert [sample["tags"] for sample in data["samples"]] == [["edited"], ["accepted"], ["rejected"], []]
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps(data))
    unchanged = fiftyone.read(path, "Bob")
    assert [(one.subject.key, one.unchanged) for one in unchanged] == [("a", True), ("b", True), ("c", True)]
    assert said_of(given[0].record, unchanged[0])[2] == [(0, "edited", "Three & <four>."), (1, "rejected", None)]
    # as a person leaves it there
    data["samples"][0]["description"] = "One.\nThree."
    data["samples"][3]["tags"] = ["rejected", "mine"]
    path.write_text(json.dumps(data))
    found = fiftyone.read(path, "Bob")
    assert [one.subject.key for one in found if not one.unchanged] == ["a", "d"]
    assert [said_of(given[n].record, one)[::2] for n, one in enumerate(found)] == [
        ("edited", [(1, "edited", "Three.")]),
        ("accepted", []),
        ("rejected", []),
        ("rejected", []),
    ]


@pytest.mark.parametrize(
    "content",
    ["", "{", "{}", "[1]", '[{"data": {}}]', "[" * 100_000, '{"samples": [1]}', '{"samples": {"a": 1}}', "\x00"],
)
def test_other_files_are_refused_in_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    for read in (label_studio.read, lambda path: fiftyone.read(path, "Ada")):
        with pytest.raises(ForeignFile) as raised:
            read(path)
        assert "\n" not in str(raised.value) and str(path) in str(raised.value)


LINES = st.lists(st.sampled_from(["One.", "Two.", "Three.", "Four."]), max_size=5)


@settings(max_examples=300, deadline=None)
@given(LINES.filter(bool), LINES)
def test_what_was_left_of_a_description_is_its_text(old: list[str], new: list[str]) -> None:
    """Whatever was changed, added or left out: the text of the judgment is what the person left."""
    sentences = [Sentence(text=text, evidence=[]) for text in old]
    description = Description(text=" ".join(old), sentences=sentences)
    subject = Subject(FINGERPRINT, "a" * 16, "a")
    found = Imported(JOB, subject, "Ada", None, None, tuple(new), "x")
    opinion = opinion_of(found, old)
    made = stored(opinion, subject, JOB, START, description)
    if not new:
        assert made.verdict == "rejected"
    else:
        assert (made.text or description.text) == " ".join(new)
        assert (made.verdict == "accepted") == (old == new)


def test_what_cannot_be_is_refused() -> None:
    found = Imported(JOB, Subject(FINGERPRINT, "a" * 16, "a"), "Ada", "edited", None, ("One.",), "x")
    with pytest.raises(InvalidInput, match="edited"):
        opinion_of(found, ["One."])
    with pytest.raises(InvalidInput):
        opinion_of(dataclasses.replace(found, verdict="maybe"), ["One."])
