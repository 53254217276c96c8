"""What is counted of the rows of a chunk when it is finished."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from strata.core import STAGES_OF, Record
from strata.telemetry.counters import field_of


def rows_counted(group: str, records: Iterable[Record], reused: int) -> dict[str, float]:
    """The counts by field of the computed rows of a group. reused: how many others were copied."""
    sums: Counter[str] = Counter({field_of("strata_chunks_finished", group): 1})
    if reused:
        sums[field_of("strata_rows_reused", group)] += reused
    outcomes: Counter[tuple[str, str]] = Counter()
    for record in records:
        outcomes[record.status.value, record.failure.error_type if record.failure else ""] += 1
        _add_usage(sums, group, record)
        _add_verification(sums, group, record)
    for outcome, number in outcomes.items():
        sums[field_of("strata_rows", group, *outcome)] += number
    return dict(sums)


def _add_usage(sums: Counter[str], group: str, record: Record) -> None:
    # a row of `llm` has the usage of `vision` too
    for stage, usage in record.usage.items():
        if stage in STAGES_OF[group]:
            sums[field_of("strata_tokens", stage, "input")] += usage.prompt_tokens
            sums[field_of("strata_tokens", stage, "output")] += usage.completion_tokens
            sums[field_of("strata_model_requests", stage)] += usage.requests


def _add_verification(sums: Counter[str], group: str, record: Record) -> None:
    if group != "llm":
        return
    found = [record.verification, *(variant.verification for variant in record.variants or ())]
    for sentence in (sentence for one in found if one is not None for sentence in one.sentences):
        sums[field_of("strata_verifier_sentences")] += 1
        if sentence.reason is not None:
            sums[field_of("strata_verifier_cuts", sentence.reason)] += 1
