"""Rules: conditions by which a profile rejects images before any model runs. Their rows become `filtered`.

A rule consists of a field of `Rules`, which is the limit in the profile's table `[rules]`, and an entry of RULES with
the comparison. The rules are applied twice: to the row of the shard's index, and again when the image's size is known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from strata.core.records import Record


class Rules(BaseModel):
    """The limits of a profile; null: the rule does not apply.

    smallest_side: pixels that the shorter side must have at least. largest_aspect: the longer side over the shorter,
    at most. longest_alt_text: characters of the alt text, at most; the index keeps 4096 of them, so a larger limit
    would never apply.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    smallest_side: int | None = Field(default=None, ge=1, le=1_000_000)
    largest_aspect: float | None = Field(default=None, ge=1, le=1_000_000)
    longest_alt_text: int | None = Field(default=None, ge=0, le=4096)

    def applied(self, record: Record) -> Record:
        """The record; as a filtered row if a rule rejects one of the values known so far. The first rule in RULES wins.

        The row's note has the rule's name, the image's value and the limit.
        """
        for name, rule in RULES.items():
            # None: the rule is not set, or the value is not known yet
            limit = getattr(self, name)
            value = None if limit is None else rule.value_of(record)
            if value is not None and rule.rejects(value, limit):
                return record.filtered(name, f"{rule.what}: {value:.10g}, {rule.bound}: {limit:.10g}")
        return record

    def deciding(self) -> dict[str, Any]:
        """The rules that are set. Fingerprints have only these, so that a rule added later changes no fingerprint."""
        return self.model_dump(exclude_none=True)


@dataclass(frozen=True)
class Rule:
    """One rule.

    value_of: the value that is compared, None while it is not known. rejects: whether a value violates a limit. what,
    bound: the names of the value and of the limit in messages.
    """

    value_of: Callable[[Record], float | None]
    rejects: Callable[[float, float], bool]
    what: str
    bound: str


def _shorter_side(record: Record) -> float | None:
    return min(record.width, record.height) if record.width and record.height else None


def _aspect(record: Record) -> float | None:
    if not record.width or not record.height:
        return None
    return max(record.width, record.height) / min(record.width, record.height)


def _alt_text_length(record: Record) -> float | None:
    return None if record.alt_text is None else len(record.alt_text)


RULES: dict[str, Rule] = {
    "longest_alt_text": Rule(_alt_text_length, lambda n, most: n > most, "characters of the alt text", "at most"),
    "smallest_side": Rule(_shorter_side, lambda n, least: n < least, "pixels of the shorter side", "at least"),
    "largest_aspect": Rule(_aspect, lambda n, most: n > most, "longer side over shorter side", "at most"),
}
