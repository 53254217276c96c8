"""How many of the rows of a search have which figures and labels: histograms, and the commonest labels."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import pyarrow as pa

from strata.core import Facets, FacetValue
from strata.search.extraction import LABELS, STATUSES, WORD
from strata.search.pages import Search
from strata.search.postings import counts_of_bitmaps

MOST_VALUES = 30  # of one facet, the commonest first
LENGTHS = (0, 1, 10, 20, 30, 40, 60, 80, 120, 200)  # least words of the bars of the histogram
SCORE_BARS = 10  # of equal width, from 0 to 1

_BAR = " + ".join(f"(r.words >= {least})::integer" for least in LENGTHS[1:])
# not `least`, which passes over null
_SCORE = (
    f"case when r.score < 1 then floor(r.score * {SCORE_BARS})::integer else r.score::integer * {SCORE_BARS - 1} end"
)


def facets(search: Search) -> Facets:
    """The facets of a search. A row counts for each of its labels once."""
    where = search.among("r.id")
    counted = search.fetch(
        f"select r.status, r.has_text, {_BAR}, {_SCORE}, count(*) from images r where {where.sql} group by 1, 2, 3, 4",
        where.values,
    )
    sums = [Counter[Any]() for _ in range(4)]
    for *row, count in counted:
        for one, value in zip(sums, row, strict=True):
            one[value] += count
    status, has_text, words, score = sums
    return Facets(
        total=status.total(),
        status=_values({name: status[place] for place, name in enumerate(STATUSES)}),
        has_text=_values({"false": has_text[False], "true": has_text[True]}),
        words=_values({str(least): words[bar] for bar, least in enumerate(LENGTHS)}),
        score=_values({f"{bar / SCORE_BARS:g}": score[bar] for bar in range(SCORE_BARS)}),
        **_labels(search),
    )


def _values(counts: dict[str, int]) -> list[FacetValue]:
    """All values, those of no row too."""
    return [FacetValue(value=value, count=count) for value, count in counts.items()]


def _labels(search: Search) -> dict[str, list[FacetValue]]:
    """The commonest labels of each kind."""
    among = search.among("l.row")
    search.cursor.register("common", _common(search))
    found = search.fetch(
        "with listed as ("
        f"  select l.kind, l.term, count(*) as number from labels l where {among.sql} group by l.kind, l.term"
        "), counted as ("
        "  select kind, term, sum(number)::bigint as number from (from listed union all by name from common)"
        "  group by kind, term"
        ") select kind, name, number from counted join names using (kind, term)"
        " qualify row_number() over (partition by kind order by number desc, name) <= ?"
        " order by kind, number desc, name",
        [*among.values, MOST_VALUES],
    )
    search.cursor.unregister("common")
    labels: dict[str, list[FacetValue]] = {name: [] for name in LABELS}
    for kind, name, number in found:
        labels[LABELS[kind]].append(FacetValue(value=name, count=number))
    return labels


def _common(search: Search) -> pa.Table:
    """How many of the rows have each label that is kept as a bitmap in some run: kind, term and number."""
    found: Counter[tuple[int, int]] = Counter()
    runs: dict[int, list[tuple[int, int, int, bytes]]] = defaultdict(list)
    query = "select first, kind, term, number, bits from bitmaps where kind < ?"
    for first, kind, term, number, bits in search.fetch(query, [WORD]):
        runs[first].append((kind, term, number, bits))
    for first, bitmaps in runs.items():
        mask = search.mask[first : first + 8 * len(bitmaps[0][3])]
        if mask.all():
            numbers = [number for _, _, number, _ in bitmaps]
        else:
            numbers = counts_of_bitmaps(mask, [bits for *_, bits in bitmaps])
        for (kind, term, _, _), number in zip(bitmaps, numbers, strict=True):
            found[kind, term] += number
    there = [(kind, term, number) for (kind, term), number in found.items() if number]
    return pa.table(
        {
            "kind": pa.array([kind for kind, _, _ in there], pa.uint8()),
            "term": pa.array([term for _, term, _ in there], pa.int64()),
            "number": pa.array([number for _, _, number in there], pa.int64()),
        }
    )
