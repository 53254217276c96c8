"""What is exchanged: a described record with its judgments, and what came back of it."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from strata.core import THINGS, Record, kept
from strata.errors import InvalidInput, fault_line
from strata.judgments.judgment import Judgment, Opinion, Subject, sentences_of


class ForeignFile(InvalidInput):
    """A file of another program cannot be read. The message says what is wrong, in one line."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {' '.join(reason.split())[:300]}")


class Described(NamedTuple):
    """A record that is exchanged. image: its path or URL; judgments: those of it that count."""

    job: str
    subject: Subject
    record: Record
    image: str
    judgments: Sequence[Judgment] = ()

    @property
    def place(self) -> dict[str, str]:
        """The names by which the record is found again."""
        return {"job": self.job, **self.subject._asdict()}

    @property
    def things(self) -> Iterator[tuple[str, float | None, tuple[float, float, float, float]]]:
        """What is kept of regions and objects: the phrase, the match (else the score), and the box in pixels."""
        for layer in THINGS:
            for entry in kept(layer.entries(getattr(self.record, layer.name))):
                if words := layer.words_of(entry):
                    yield words, entry.match if entry.match is not None else entry.score, entry.box


@dataclass(frozen=True)
class Imported:
    """What a person said of a record in another program.

    sentences: the description as it was left, sentence by sentence, if it was changed; origin: what makes it one
    judgment, so that reading the same file twice gives the same id. unchanged: it is a judgment of Strata's that the
    other program has shown, and that nobody changed there.
    """

    job: str
    subject: Subject
    reviewer: str
    verdict: str | None
    reason: str | None
    sentences: tuple[str, ...] | None
    origin: str
    unchanged: bool = False


def left_by(record: Record, judgment: Judgment) -> list[str]:
    """The sentences of a record's description as a judgment leaves them."""
    judged = {sentence.index: sentence for sentence in judgment.sentences}
    left = []
    for index, text in enumerate(sentences_of(record.description)):
        verdict = judged.get(index)
        if verdict is None or verdict.verdict == "accepted":
            left.append(text)
        elif verdict.edited is not None:
            left.append(verdict.edited)
    return left


def opinion_of(found: Imported, texts: Sequence[str]) -> Opinion:
    """The opinion on a record whose description has these sentences. Raises InvalidInput."""
    judged = _compared(texts, found.sentences) if found.sentences is not None else []
    verdict = found.verdict or ("edited" if judged else "accepted")
    if verdict == "accepted" and judged:
        verdict = "edited"
    if verdict == "edited" and all(one["verdict"] == "rejected" for one in judged) and len(judged) == len(texts):
        verdict = "rejected"
    name = hashlib.blake2b(json.dumps([found.origin, found.job, found.subject]).encode(), digest_size=16).hexdigest()
    values: dict[str, Any] = {"id": f"import-{name}", "reviewer": found.reviewer, "verdict": verdict}
    values["sentences"] = judged if verdict in ("edited", "rejected") else ()
    if verdict == "rejected":
        values["reason"] = found.reason
    try:
        return Opinion.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InvalidInput(f"{found.subject.key}: {where} {fault_line(first)}".replace(":  ", ": ")) from error


def _compared(texts: Sequence[str], left: Sequence[str]) -> list[dict[str, Any]]:
    """The verdicts on sentences that turn a description into what is left of it.

    A sentence that was added belongs to the one before it; at the beginning, to the first one.
    """
    old = [" ".join(text.split()) for text in texts]
    if not old:
        return []
    new = [line for line in (" ".join(text.split()) for text in left) if line]
    # what stands in the place of each sentence: several sentences, or none
    places: list[list[str]] = [[] for _ in old]
    first: list[str] = []
    for _, start, end, begin, last in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        fresh = new[begin:last]
        for index in range(start, end):
            places[index] += [fresh.pop(0)] if fresh else []
        (places[end - 1] if end else first).extend(fresh)
    places[0] = [*first, *places[0]]
    return [_verdict_on(index, left) for index, left in enumerate(places) if left != [old[index]]]


def _verdict_on(index: int, left: Sequence[str]) -> dict[str, Any]:
    if not left:
        return {"index": index, "verdict": "rejected"}
    return {"index": index, "verdict": "edited", "edited": " ".join(left)}
