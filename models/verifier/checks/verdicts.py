"""What a check says of a claim."""

from __future__ import annotations

from dataclasses import dataclass, replace

from strata.core import CutReason


@dataclass(frozen=True)
class Verdict:
    """Whether a claim is supported (None: nothing can judge), why not, and the entries that say so."""

    supported: bool | None
    reason: CutReason | None = None
    evidence: tuple[str, ...] = ()
    score: float | None = None


UNKNOWN = Verdict(None)


def denied(verdict: Verdict, reason: CutReason) -> Verdict:
    """The verdict on what a sentence denies; the reason is for what is so."""
    if verdict.supported is None:
        return UNKNOWN
    return replace(verdict, supported=not verdict.supported, reason=reason if verdict.supported else None)
