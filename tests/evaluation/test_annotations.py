"""Truths from files in the forms of COCO, LVIS and Visual Genome."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from strata.core.records import Description, ImageReference, Record
from strata.errors import InvalidInput
from strata.evaluation.annotations import COCO_SYNONYMS, annotated_truths
from strata.evaluation.evaluation import Evaluation, finished, measure
from strata.evaluation.mentions import read


def record(key: str, text: str = "", uri: str = "/data/a.tar", size: tuple[int, int] = (64, 48)) -> Record:
    described = Description(text=text, sentences=[])
    image = ImageReference(uri=uri, size=1)
    return Record(key=key, image=image, width=size[0], height=size[1], description=described)


KINDS = ("person", "dog", "hot dog", "car", "train", "couch", "dining table")
COCO = {
    "images": [
        {"id": 5, "file_name": "COCO_val2014_000000000005.jpg", "width": 128, "height": 96},
        {"id": 6, "file_name": "000000000006.jpg", "width": 64, "height": 48},
    ],
    "annotations": [
        {"id": 1, "image_id": 5, "category_id": 1, "bbox": [0, 0, 20, 40], "iscrowd": 0},
        {"id": 2, "image_id": 5, "category_id": 2, "bbox": [64, 0, 20, 40], "iscrowd": 0},
        {"id": 3, "image_id": 5, "category_id": 2, "bbox": [100, 0, 20, 40], "iscrowd": 0},
        {"id": 4, "image_id": 6, "category_id": 1, "bbox": [0, 0, 9, 9], "iscrowd": 1},
    ],
    "categories": [{"id": number, "name": name} for number, name in enumerate(KINDS, 1)],
}


def written(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def told(found: Evaluation) -> dict[str, Any]:
    """The sums of the description's figures."""
    counts = found.texts["description"].counts
    return {name: (sum(numbers), sum(totals)) for name, (numbers, totals) in counts.items()}


def evaluated(path: Path, *records: Record) -> dict[str, Any]:
    truths = [annotated_truths(path, records)]
    return told(finished(measure(records, lambda *_: [], truths), 0, 100, source="a", kind="job", statuses={}))


def test_coco_is_judged_with_synonyms(tmp_path: Path) -> None:
    path = written(tmp_path / "instances.json", COCO)
    # the image was made half as large: its boxes are halved too
    text = (
        "A man is to the left of two puppies. A hot dog lies on a sofa beside the train track. One dog, three persons."
    )
    found = evaluated(path, record("folder/COCO_val2014_000000000005", text))
    assert found["objects_recalled"] == (2, 2)
    assert found["chair_i"] == (2, 6)  # the hot dog and the sofa; a train track is no train
    assert found["relations_right"] == (1, 1)
    assert found["counts_right"] == (1, 3)  # two puppies; there are two dogs and one person
    truth = annotated_truths(path, [record("x/000000000005")]).truths["x/000000000005"]
    assert truth.scaled(64, 48).things[0].box == (0, 0, 10, 20)


def test_images_are_found_by_name_or_id(tmp_path: Path) -> None:
    path = written(tmp_path / "instances.json", COCO)
    keys = ["COCO_val2014_000000000005", "val/000000000006", "7"]
    assert set(annotated_truths(path, [record(key) for key in keys]).truths) == set(keys[:2])
    assert set(annotated_truths(path, [record("000000000005"), record("000000006")]).truths) == {"000000000005"}
    # a shard of img2dataset has keys of its own; a file has its name
    file = record("a", uri="/data/000000000006.jpg")
    assert set(annotated_truths(path, [file]).truths) == {"a"}


def test_what_lvis_did_not_look_for_is_not_judged(tmp_path: Path) -> None:
    lvis = json.loads(json.dumps(COCO))
    lvis["categories"] += [{"id": 8, "name": "bow_(decorative_ribbons)", "synonyms": ["bow_tie", "ribbon"]}]
    lvis["images"][0] |= {"neg_category_ids": [4], "coco_url": "http://images.invalid/5.jpg"}
    found = evaluated(
        written(tmp_path / "lvis.json", lvis), record("COCO_val2014_000000000005", "A car, a ribbon, a dog.")
    )
    assert found["chair_i"] == (1, 2)  # the car is known to be absent; nobody looked for ribbons


OBJECTS = [
    {"object_id": 10, "x": 0, "y": 0, "w": 10, "h": 10, "names": ["street sign"], "attributes": ["Red", "metal"]},
    {"object_id": 11, "x": 30, "y": 0, "w": 10, "h": 10, "names": ["tree"]},
    {"object_id": 12, "x": 30, "y": 30, "w": 5, "h": 5, "names": [""]},
]


@pytest.mark.parametrize("form", ["graphs", "relationships"])
def test_visual_genome_has_attributes_and_relations(tmp_path: Path, form: str) -> None:
    if form == "graphs":
        relations = [{"predicate": "ON TOP OF", "subject_id": 10, "object_id": 11}]
        image = {"image_id": 2407890, "objects": OBJECTS, "relationships": relations, "width": 64, "height": 48}
    else:
        pair = {"predicate": "on", "subject": OBJECTS[0], "object": OBJECTS[1]}
        image = {"image_id": 2407890, "relationships": [pair, {**pair, "predicate": "of"}]}
    path = written(tmp_path / "graph.json", [image, {"image_id": 1, "objects": OBJECTS}])
    found = evaluated(
        path, record("2407890", "A blue street sign is on a tree. Trees are to the left of the blue street sign.")
    )
    assert found["objects_recalled"] == (1, 2)  # the sign is told in another colour
    assert found["attributes_right"] == (0, 1)
    assert found["relations_recalled"] == (1, 1)
    assert found["relations_right"] == (0, 1)
    assert "counts_right" not in found  # Visual Genome annotates some things several times


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("no JSON", "neither COCO's instances nor"),
        ('{"images": [', "cannot be read as annotations"),
        ('{"images": [], "annotations": [], "categories": []}', "no categories; captions are for --references"),
        (json.dumps({**COCO, "images": [{"id": 5}]}), "annotates none of the images"),
        (json.dumps({**COCO, "images": [{"id": 5, "file_name": "a.jpg"}]}), "cannot be read as annotations"),
        (json.dumps([{"image_id": 9, "objects": OBJECTS}]), "annotates none of the images"),
        ("[1, 2]", "cannot be read as annotations"),
    ],
)
def test_bad_files_are_one_line(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InvalidInput, match=words) as error:
        annotated_truths(path, [record("a")])
    assert "\n" not in str(error.value)


def test_no_synonym_means_two_kinds(tmp_path: Path) -> None:
    words = [word for synonyms in COCO_SYNONYMS.values() for word in synonyms]
    assert len(words) == len(set(words)) and not set(words) & set(COCO_SYNONYMS)
    categories = [{"id": number, "name": name} for number, name in enumerate(COCO_SYNONYMS)]
    path = written(tmp_path / "instances.json", {**COCO, "categories": categories})
    vocabulary = annotated_truths(path, [record("000000000006")]).vocabulary
    for name, synonyms in COCO_SYNONYMS.items():
        for word in (name, *synonyms):
            assert [one.name for one in read(f"There is a {word} here.", vocabulary).mentions] == [name], word
