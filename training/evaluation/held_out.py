"""Answer held-out questions with a trained model, and score the answers as the field does.

The questions are those of [[evaluation.questions]]. The configuration's output gets `evaluation.json` (the scores of
each set) and `answers-NAME.jsonl` (each question with its answer and references).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForImageTextToText, AutoProcessor

from strata import images
from strata.data import MAX_PIXELS
from strata.data.mixtures import QUESTION
from training.config import Config, ConfigError, QuestionsTable
from training.evaluation.scores import SCORES, cider
from training.inputs.collation import limit_images, shrunk
from training.inputs.examples import views_of


@dataclass(frozen=True)
class Question:
    """A question about an image file, with the answers that people gave."""

    key: str
    image: Path
    question: str
    answers: tuple[str, ...]


def load_questions(table: QuestionsTable) -> list[Question]:
    """Read a file of questions. Raises ConfigError, which names the line, if it is not as QuestionsTable says."""
    try:
        lines = table.file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise ConfigError(f"evaluation.questions: {table.file}: {reason}") from None
    folder = table.images or table.file.parent
    questions = [_question(table, folder, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not questions:
        raise ConfigError(f"evaluation.questions: {table.file}: it has no questions")
    return questions


def _question(table: QuestionsTable, folder: Path, number: int, line: str) -> Question:
    where = f"evaluation.questions: {table.file}, line {number}"
    try:
        row = json.loads(line)
        given = row["answers"] if "answers" in row else row["answer"]
        # one answer, a list of answers, or VQAv2's list of {"answer": …}
        several = given if isinstance(given, list) else [given]
        answers = tuple(str(one["answer"] if isinstance(one, dict) else one) for one in several)
        found = Question(str(row.get("question_id", number)), folder / row["image"], str(row["question"]), answers)
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{where}: not a question with image, question and answers ({error})") from None
    if not answers:
        raise ConfigError(f"{where}: it has no answer")
    return found


class Answerer:
    """A trained model that answers questions, each with the words that are most probable."""

    def __init__(self, folder: Path, config: Config) -> None:
        """Load a model, or the adapters of one, from the folder that a training wrote. Raises ConfigError.

        It sees images as in the training of the configuration: with its windows, and its limits of pixels.
        """
        try:
            self.processor: Any = AutoProcessor.from_pretrained(folder)
            self.model: Any = _load(folder)
        except (OSError, ValueError) as error:
            line = str(error).strip().partition("\n")[0]
            raise ConfigError(f"{folder} cannot be loaded: {line}") from None
        self.windows, self.max_pixels = config.windows, limit_images(self.processor, config)
        self.model.to("cuda" if torch.cuda.is_available() else "cpu").eval()

    def answer(self, questions: Sequence[Question], table: QuestionsTable) -> list[str]:
        """Answer questions in batches, in order. Raises ConfigError if an image cannot be read."""
        found: list[str] = []
        for start in range(0, len(questions), table.batch_size):
            batch = [self._messages(one, table.instruction) for one in questions[start : start + table.batch_size]]
            prompt = self.processor.apply_chat_template(
                batch,
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                processor_kwargs={"padding": True, "padding_side": "left"},
            ).to(self.model.device)
            with torch.inference_mode():
                tokens = self.model.generate(**prompt, max_new_tokens=table.new_tokens, do_sample=False)
            said = tokens[:, prompt["input_ids"].shape[1] :]
            found += [text.strip() for text in self.processor.batch_decode(said, skip_special_tokens=True)]
        return found

    def _messages(self, question: Question, instruction: str) -> list[dict[str, Any]]:
        try:
            image = images.decode(question.image.read_bytes(), MAX_PIXELS)
        except (OSError, images.ImageError) as error:
            raise ConfigError(f"{question.image}: {getattr(error, 'strerror', None) or error}") from None
        if self.max_pixels is not None:
            image = shrunk(image, self.max_pixels)
        views = [{"type": "image", "image": view} for view in views_of(image, self.windows)]
        text = instruction.replace(QUESTION, question.question)
        return [{"role": "user", "content": [*views, {"type": "text", "text": text}]}]


def _load(folder: Path) -> Any:
    dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    adapters = folder / "adapter_config.json"
    if not adapters.exists():
        return AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype)
    base = json.loads(adapters.read_text(encoding="utf-8"))["base_model_name_or_path"]
    return PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained(base, dtype=dtype), str(folder))


def scores_of(table: QuestionsTable, questions: Sequence[Question], answers: Sequence[str]) -> dict[str, float]:
    """The mean of each score over the questions; CIDEr of all together. Raises ScoreError."""
    found: dict[str, float] = {}
    for name in table.scores:
        if name == "cider":
            numbered = list(map(str, range(len(questions))))
            wanted = {key: one.answers for key, one in zip(numbered, questions, strict=True)}
            found[name] = cider(dict(zip(numbered, answers, strict=True)), wanted)
        else:
            pairs = zip(answers, questions, strict=True)
            found[name] = sum(SCORES[name](answer, one.answers) for answer, one in pairs) / len(questions)
    return found


def evaluate(config: Config, folder: Path | None = None) -> dict[str, dict[str, float]]:
    """Answer and score all sets of questions; write answers and scores. Raises ConfigError and ScoreError."""
    tables = config.evaluation.questions
    if not tables:
        raise ConfigError("evaluation.questions: the configuration names no questions")
    # read all questions first, so that a mistake is found before the model is loaded
    sets = [(table, load_questions(table)) for table in tables]
    answerer, scores = Answerer(folder or config.output / "model", config), {}
    for table, questions in sets:
        answers = answerer.answer(questions, table)
        config.output.mkdir(parents=True, exist_ok=True)
        path = config.output / f"answers-{table.name}.jsonl"
        path.write_text("".join(_lines(questions, answers)), encoding="utf-8")
        scores[table.name] = {"questions": len(questions), **scores_of(table, questions, answers)}
    (config.output / "evaluation.json").write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")
    return scores


def _lines(questions: Sequence[Question], answers: Sequence[str]) -> Iterator[str]:
    for one, answer in zip(questions, answers, strict=True):
        row = {"question_id": one.key, "question": one.question, "answer": answer, "answers": list(one.answers)}
        yield json.dumps(row, ensure_ascii=False) + "\n"
