"""What is measured: the table of metrics, what a process has counted, and traces.

Every process counts in memory (`COUNTERS`), and adds its counts to sums in Redis every few seconds. What belongs to a
chunk is added in the same step that finishes the chunk, so that it is counted once. `GET /metrics` shows the sums.
"""

from __future__ import annotations

from strata.telemetry.counters import COUNTERS, Counters, field_of
from strata.telemetry.families import FAMILIES, SUMMED, Family
from strata.telemetry.rows import rows_counted
from strata.telemetry.traces import begin_traces, carried, current_trace, end_traces, is_traced, span

__all__ = [
    "COUNTERS",
    "FAMILIES",
    "SUMMED",
    "Counters",
    "Family",
    "begin_traces",
    "carried",
    "current_trace",
    "end_traces",
    "field_of",
    "is_traced",
    "rows_counted",
    "span",
]
