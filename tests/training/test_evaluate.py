"""A trained model answers held-out questions, and the answers are scored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.training.tiny.tiny_training import make_start, tiny_config
from training.config import ConfigError, QuestionsTable
from training.evaluation.held_out import Question, evaluate, load_questions, scores_of

ROWS: list[dict[str, Any]] = [
    {"image": "red.png", "question": "Which colour?", "answer": "red", "question_id": 7},
    {"image": "blue.png", "question": "What is it?", "answers": ["blue", "a square"]},
    {"image": "blue.png", "question": "Which?", "answers": [{"answer": "blue", "answer_id": 1}]},
]


def write_questions(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """A file of questions with its images."""
    for colour in ("red", "blue"):
        Image.new("RGB", (40, 30), colour).save(folder / f"{colour}.png")
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_model_answers_and_is_scored(tmp_path: Path) -> None:
    start = make_start(tmp_path)
    scores = ("exact_match", "cider")
    table = {
        "name": "colours",
        "file": write_questions(tmp_path, ROWS),
        "scores": scores,
        "new_tokens": 3,
        "batch_size": 2,
    }
    config = tiny_config(tmp_path / "out", start, evaluation={"questions": [table]})
    found = evaluate(config, start)
    assert found["colours"]["questions"] == 3 and set(found["colours"]) == {"questions", *scores}
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text()) == found
    lines = [json.loads(line) for line in (tmp_path / "out" / "answers-colours.jsonl").read_text().splitlines()]
    assert [line["question_id"] for line in lines] == ["7", "2", "3"]
    assert [line["answers"] for line in lines] == [["red"], ["blue", "a square"], ["blue"]]


def test_scores_are_means_over_the_questions() -> None:
    questions = [Question(str(n), Path("x"), "?", ("100", "exit")) for n in range(4)]
    table = QuestionsTable(name="n", file=Path("x"), scores=("exact_match", "relaxed_accuracy", "anls"))
    found = scores_of(table, questions, ["100", "104", "EXIT", "exut"])
    assert found == {"exact_match": 0.5, "relaxed_accuracy": 0.75, "anls": pytest.approx((1 + 2 / 3 + 1 + 0.75) / 4)}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (None, "No such file"),
        ("", "it has no questions"),
        ('{"image": "a.png", "question": "?"}', "line 1: not a question"),
        ("{", "line 1: not a question"),
        ("[]", "line 1: not a question"),
        ('{"image": "a.png", "question": "?", "answers": []}', "line 1: it has no answer"),
    ],
)
def test_a_file_that_is_not_of_questions_is_one_line(tmp_path: Path, text: str | None, line: str) -> None:
    path = tmp_path / "q.jsonl"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=line) as caught:
        load_questions(QuestionsTable(name="q", file=path))
    assert "\n" not in str(caught.value)
