"""The field's scores of answers: VQA accuracy, ANLS, relaxed accuracy, CIDEr, exact match.

Each function takes one answer and its references, and returns a score from 0 to 1. CIDEr alone is a score of all
answers together, because it weighs words by how rare they are among the references.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence

from strata.errors import InvalidInput
from training.evaluation.vqa_answers import normalized

ANLS_THRESHOLD = 0.5  # Biten et al., "Scene Text Visual Question Answering", arXiv 1905.13648
RELAXED_SHARE = 0.05  # Masry et al., "ChartQA", arXiv 2203.10244, section 5.1
AGREEING = 3  # annotators that make an answer wholly right: Antol et al., "VQA", arXiv 1505.00468

Score = Callable[[str, Sequence[str]], float]


class ScoreError(InvalidInput, ValueError):
    """A score cannot be computed. The message is one line."""


def exact_match(answer: str, references: Sequence[str]) -> float:
    """1 if the answer equals a reference but for case and surrounding spaces, else 0."""
    return float(_plain(answer) in {_plain(reference) for reference in references})


def vqa_accuracy(answer: str, references: Sequence[str]) -> float:
    """VQA accuracy: the mean over leaving out each annotator of min(1, agreeing others / 3).

    The answer and the references are normalised as the official evaluation does (vqa_answers.py). With fewer than
    four references no answer can reach 1, as in the original; use exact_match for one reference.
    """
    mine, others = normalized(answer), [normalized(reference) for reference in references]
    agreeing = others.count(mine)
    # leaving out one of those who agree leaves one fewer
    scores = [min(1.0, (agreeing - (other == mine)) / AGREEING) for other in others]
    return sum(scores) / len(scores)


def anls(answer: str, references: Sequence[str]) -> float:
    """ANLS of one question: the greatest normalised Levenshtein similarity to a reference; below 0.5 it is 0.

    Similarity is 1 - distance / length of the longer text. The distance is that of the texts in lower case without
    outer and double spaces, and the lengths are those of the texts as they are: so do the DocVQA and ST-VQA evaluations
    of the Robust Reading Competition.
    """
    best = max(_similarity(answer, reference) for reference in references)
    return best if best >= ANLS_THRESHOLD else 0.0


def relaxed_accuracy(answer: str, references: Sequence[str]) -> float:
    """Relaxed accuracy: a number may differ by 5 % from a reference; other answers must be equal but for case.

    As in pix2struct's metrics.py: "12%" is the number 0.12, and a reference of 0 has to be matched as text.
    """
    return float(any(_relaxed(answer.strip(), reference.strip()) for reference in references))


def cider(answers: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> float:
    """CIDEr-D of all answers, from 0 to 10 (papers often show it times 100), by pycocoevalcap.

    Vedantam et al., arXiv 1411.5726. COCO's evaluation splits texts into words with a Java program; here words are
    runs of letters, digits and apostrophes in lower case, which differs in rare cases such as hyphens and "don't".
    Raises ScoreError if there are fewer than two questions: with one, no word is rarer than another.
    """
    from pycocoevalcap.cider.cider import Cider

    if len(answers) < 2:
        raise ScoreError("CIDEr needs at least two questions, because it weighs words by their rarity among them")
    # pycocoevalcap wants lists of texts whose words are separated by spaces
    given = {key: [_words(answer)] for key, answer in answers.items()}
    wanted = {key: [_words(reference) for reference in references[key]] for key in answers}
    score, _ = Cider().compute_score(wanted, given)
    return float(score)


SCORES: dict[str, Score] = {
    "exact_match": exact_match,
    "vqa_accuracy": vqa_accuracy,
    "anls": anls,
    "relaxed_accuracy": relaxed_accuracy,
}


def _plain(text: str) -> str:
    return text.strip().casefold()


def _spaced(text: str) -> str:
    return " ".join(text.lower().split())


def _words(text: str) -> str:
    return " ".join(re.findall(r"[\w']+", text.lower()))


def _similarity(one: str, other: str) -> float:
    longer = max(len(one), len(other))
    return 1 - distance(_spaced(one), _spaced(other)) / longer if longer else 1.0


def distance(one: str, other: str) -> int:
    """The Levenshtein distance of two texts: the fewest insertions, deletions and substitutions of characters."""
    row = list(range(len(other) + 1))
    for number, character in enumerate(one, 1):
        above, row[0] = row[0], number
        for index, compared in enumerate(other, 1):
            above, row[index] = row[index], min(row[index] + 1, row[index - 1] + 1, above + (character != compared))
    return row[-1]


def _relaxed(answer: str, reference: str) -> bool:
    given, wanted = _number(answer), _number(reference)
    if given is not None and wanted:
        return abs(given - wanted) / abs(wanted) <= RELAXED_SHARE
    return answer.lower() == reference.lower()


def _number(text: str) -> float | None:
    """The number that a text is, or None. Texts such as "nan" and "infinity" are no numbers here."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
