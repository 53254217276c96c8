"""The figures of one text that need no truth: they compare it with its own record."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from strata.core import LAYERS, Record
from strata.evaluation.figures import Counts
from strata.evaluation.texts import Text
from strata.evaluation.with_truth import letters

# the names of the kept entries that a sentence mentions, such as "regions/0": `models.evidence.support.support`
Support = Callable[[str, Record], list[str]]

RUN = 4  # words of a run: Welleck et al., "Neural Text Generation with Unlikelihood Training", 2019, arXiv 1908.04319
_WORD = re.compile(r"\w+(?:['’-]\w+)*")
_END = re.compile(r"[.!?…。！？]+[\"”')]*(?:\s+|$)")


def of_record(text: Text, record: Record, support: Support) -> Counts:
    """The figures of a text that follow from its record."""
    # of a layer's entries only how many of them there are would be told again
    if text.listed:
        return {}
    words = words_of(text.text)
    runs = [tuple(words[n : n + RUN]) for n in range(len(words) - RUN + 1)]
    counts: Counts = {
        "words": (len(words), 1),
        "sentences": (len(_sentences(text)), 1),
        "repetition": (len(runs) - len(set(runs)), len(runs)),
    }
    if text.sentences is not None:
        counts["sentences_with_evidence"] = (sum(bool(one.evidence) for one in text.sentences), len(text.sentences))
    if text.checked is not None:
        counts |= _claims(text)
    return counts | _coverage(text, record, support)


def words_of(text: str) -> list[str]:
    """The words of a text in lower case."""
    return [str(word) for word in _WORD.findall(text.lower())]


def _sentences(text: Text) -> Sequence[str]:
    if text.sentences is not None:
        return [one.text for one in text.sentences]
    return [piece for piece in _END.split(text.text) if piece.strip()]


def _claims(text: Text) -> Counts:
    claims = [claim for sentence in text.checked or () for claim in sentence.claims]
    judged = [claim for claim in claims if claim.supported is not None]
    return {
        "claims_supported": (sum(claim.supported is True for claim in judged), len(judged)),
        "claims_judged": (len(judged), len(claims)),
    }


def _coverage(text: Text, record: Record, support: Support) -> Counts:
    """Kept things that the text mentions, as `support` finds them, and kept lines of text that it quotes."""
    layers = [layer for layer in LAYERS.values() if layer.boxed]
    entries = {
        f"{layer.name}/{number}": layer.quoted
        for layer in layers
        for number, entry in enumerate(layer.entries(getattr(record, layer.name)))
        if entry.kept and letters(layer.words_of(entry))
    }
    # what a variant or the description says it rests on, else what its words mention
    if text.sentences is not None:
        mentioned = {name for one in text.sentences for name in one.evidence}
    else:
        mentioned = set(support(text.text, record)) if text.text else set()
    lines = [name for name, quoted in entries.items() if quoted]
    return {
        "coverage": (sum(name in mentioned for name in entries), len(entries)),
        "ocr_recalled": (sum(name in mentioned for name in lines), len(lines)),
    }
