"""CAPTURE's comparison of scene graphs, files of references, and the parsers of graphs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from models.evaluation.graphs import alike, by_rules, parser_of
from strata.errors import InvalidInput
from strata.evaluation.references import SceneGraph, against_references, read_references, references_of, told_by
from tests.cli.test_cli import code_of
from tests.evaluation.conftest import samples
from tests.evaluation.test_annotations import record
from tests.evaluation.test_evaluate import evaluated


def test_rules_find_things_attributes_and_relations() -> None:
    graph = by_rules('A red car is to the left of two dogs. The dogs are brown. There is no cat. A sign says "CAT".')
    assert {"car", "dog", "sign"} <= graph.objects and "cat" not in graph.objects
    assert graph.attributes == {("car", "red"), ("dog", "brown")}
    assert [(a, b) for a, _, b in graph.relations] == [("car", "dog")]
    assert by_rules("") == SceneGraph()


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("dog", "dogs", 1.0),
        ("sofa", "couch", 1.0),
        ("dog", "animal", 0.5),
        ("animal", "dog", 0.5),
        ("dog", "car", 0.0),
        ("crimson", "red", 1.0),
        ("red", "blue", 0.0),
    ],
)
def test_words_are_alike_by_wordnet(one: str, other: str, expected: float) -> None:
    assert alike(one, other) == expected


def test_capture_is_counted_by_hand() -> None:
    wanted = SceneGraph(frozenset({"dog", "car"}), frozenset({("car", "red")}), frozenset({("dog", "near", "car")}))
    told = SceneGraph(frozenset({"animal", "car", "hat"}), frozenset({("car", "red"), ("hat", "blue")}))
    found: dict[str, Any] = dict(against_references(told, wanted, alike))
    assert found["reference_objects_recalled"] == (1.5, 2)
    assert found["reference_objects_precise"] == (1.5, 3)
    assert found["reference_attributes_recalled"] == (1, 1)
    assert found["reference_attributes_precise"] == (1, 2)
    assert found["reference_relations_recalled"] == (0, 1)
    # F1 of objects 2 * 0.5 * 0.75 / 1.25 = 0.6, of attributes 2/3, of relations 0
    assert found["capture"] == (pytest.approx((5 * 0.6 + 5 * 2 / 3) / 12), 1)


def test_a_text_equals_itself_and_nothing_has_no_score() -> None:
    graph = by_rules("A red car is above a dog.")
    assert against_references(graph, graph, alike)["capture"] == (1, 1)
    assert "capture" not in against_references(graph, SceneGraph(), alike)
    assert against_references(SceneGraph(), graph, alike)["capture"] == (0, 1)
    merged = told_by({"a": ["A dog.", "A red cat."]}, by_rules)["a"]
    assert merged.objects == {"dog", "cat"}


@pytest.mark.parametrize("field", ["references", "captions"])
def test_references_are_lines_or_cocos_captions(tmp_path: Path, field: str) -> None:
    path = tmp_path / "references.jsonl"
    rows = [{"file_name": "x/000000000005.jpg", field: ["A dog.", "One dog."]}, {"key": "b", "text": "A cat."}]
    path.write_text("\n\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert references_of(path, read_references(path), [record("000000000005"), record("b")]) == {
        "000000000005": ["A dog.", "One dog."],
        "b": ["A cat."],
    }
    images = [{"id": 5, "file_name": "COCO_val2014_000000000005.jpg"}]
    captions = [{"image_id": 5, "id": 1, "caption": "A dog."}, {"image_id": 5, "id": 2, "caption": "Dogs."}]
    path.write_text(json.dumps({"images": images, "annotations": captions}), encoding="utf-8")
    assert references_of(path, read_references(path), [record("000000000005")]) == {"000000000005": ["A dog.", "Dogs."]}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("no JSON", "cannot be read as references"),
        ('{"key": "a"}', "line 1 needs one of"),
        ("[1]", "cannot be read as references"),
        ('{"key": "z", "text": "A dog."}', "references of none of the images"),
        ("", "it has no references"),
    ],
)
def test_bad_files_are_one_line(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "references.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InvalidInput, match=words) as error:
        references_of(path, read_references(path), [record("a")])
    assert "\n" not in str(error.value)


def test_factual_scene_graph_is_used_where_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InvalidInput, match="no folder"):
        parser_of(tmp_path / "absent")
    monkeypatch.setitem(sys.modules, "factual_scene_graph.parser.scene_graph_parser", None)
    with pytest.raises(InvalidInput, match="pip install FactualSceneGraph"):
        parser_of(tmp_path)

    def parse(texts: list[str], **options: Any) -> list[dict[str, Any]]:
        assert options["return_text"] is False
        if texts == ["Break."]:
            raise AttributeError("no such thing\nin this version")
        assert texts == ["A red car near a dog.", "Nothing."]
        print("100%|", file=sys.stderr)
        entities = [{"head": "Car", "quantity": "", "attributes": {"red"}}, {"head": "dog", "attributes": set()}]
        nothing: dict[str, Any] = {"entities": [{"head": "", "attributes": set()}], "relations": []}
        return [{"entities": entities, "relations": [{"subject": 0, "relation": "near", "object": 1}]}, nothing]

    # the package with its documented interface; its weights are not in the repository
    module = ModuleType("factual_scene_graph.parser.scene_graph_parser")
    module.SceneGraphParser = lambda folder, **options: SimpleNamespace(parse=parse)  # type: ignore[attr-defined]
    for name in ("factual_scene_graph", "factual_scene_graph.parser"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "factual_scene_graph.parser.scene_graph_parser", module)
    read = parser_of(tmp_path)
    assert read("A red car near a dog. Nothing.") == SceneGraph(
        frozenset({"car", "dog"}), frozenset({("car", "red")}), frozenset({("car", "near", "dog")})
    )
    assert read(" ") == SceneGraph() and capsys.readouterr().err == ""
    with pytest.raises(InvalidInput) as error:
        read("Break.")
    assert "AttributeError: no such thing in this version" in str(error.value)

    def missing(folder: str, **options: Any) -> None:
        raise RuntimeError("no file named\nmodel.safetensors")

    module.SceneGraphParser = missing  # type: ignore[attr-defined]
    with pytest.raises(InvalidInput, match=r"RuntimeError: no file named model\.safetensors"):
        parser_of(tmp_path)


def test_bad_references_are_refused_before_the_records_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "references.jsonl"
    bad.write_text('{"key": "a"}', encoding="utf-8")
    for options in ((str(bad),), (str(tmp_path / "none"),), (str(bad), "--graphs", str(tmp_path))):
        # the source is asked for only after that
        assert code_of("evaluate", "no-such-job", "--references", *options, "--store", str(tmp_path / "store")) == 2
        assert "references" in capsys.readouterr().err
    bad.write_text('{"key": "a", "text": "A dog."}', encoding="utf-8")
    empty = tmp_path / "weights"
    empty.mkdir()
    weights = ("--references", str(bad), "--graphs", str(empty), "--store", str(tmp_path / "store"))
    assert code_of("evaluate", "no-such-job", *weights) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("strata: --graphs")


@pytest.mark.usefixtures("scene_store")
def test_the_command_compares_all_texts(tmp_path: Path) -> None:
    path = tmp_path / "references.jsonl"
    lines = [json.dumps({"key": meta["key"], "text": meta["scene"]["caption"]}) for _, meta in samples()]
    path.write_text("\n".join(lines), encoding="utf-8")
    found = evaluated(tmp_path / "a.json", "demo", "--references", str(path), "--images", "20")
    assert found.texts["caption"].figures["capture"].value == pytest.approx(1)
    assert (found.texts["alt_text"].figures["capture"].value or 0) < 0.2
    assert (found.texts["description"].figures["reference_objects_recalled"].value or 0) > 0.95
    assert code_of("evaluate", "demo", "--graphs", str(tmp_path)) == 2  # of no use without references
