"""Quotas: no source has more than its quota, and nothing is left out without need."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strata.errors import StrataError
from strata.snapshots.selection import Quota, Selection, SelectionError, quotas_of, select
from strata.snapshots.selection.axes import axes_of
from strata.snapshots.selection.quotas import QuotaError, within_quotas
from strata.snapshots.snapshots import Snapshots
from strata.store.store import Store
from tests.described import described, write_part
from tests.snapshots.test_selection import photographs, table_of

AMOUNTS = st.one_of(st.integers(0, 30).map(lambda n: {"rows": n}), st.integers(0, 10).map(lambda n: {"share": n / 10}))


@pytest.mark.parametrize(
    ("text", "source", "amount"),
    [
        ("job-1=2000", "job-1", {"rows": 2000}),
        ("*/cc3m/*=30%", "*/cc3m/*", {"share": 0.3}),
        ("a=b=.25", "a=b", {"share": 0.25}),
        ("a=1.0", "a", {"share": 1.0}),
        ("a=0", "a", {"rows": 0}),
    ],
)
def test_quotas_are_read(text: str, source: str, amount: dict[str, Any]) -> None:
    assert Quota.parse(text) == Quota(source=source, **amount)


@pytest.mark.parametrize("text", ["", "a", "a=", "=3", "a=-1", "a=1.5", "a=120%", "a=many", "a=3 rows"])
def test_what_is_no_quota_is_one_line(text: str) -> None:
    with pytest.raises(QuotaError, match="--quota") as caught:
        Quota.parse(text)
    assert isinstance(caught.value, StrataError) and "\n" not in str(caught.value)


def test_a_source_has_one_quota() -> None:
    with pytest.raises(QuotaError, match="only once"):
        quotas_of(["a=1", "a=2"])


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.lists(AMOUNTS, max_size=3), st.data())
@settings(max_examples=300)
def test_no_source_has_more_and_nothing_is_left_without_need(
    members: list[int], amounts: list[dict[str, Any]], data: st.DataObject
) -> None:
    quotas = [Quota(source=str(number), **amount) for number, amount in enumerate(amounts)]
    found = np.minimum(np.array(members), len(quotas))
    order = np.array(data.draw(st.permutations(range(len(members)))))
    wanted = data.draw(st.integers(1, len(members)))
    left = within_quotas(found, quotas, order, wanted)
    selected = min(wanted, len(left))
    counts = np.bincount(found[left], minlength=len(quotas) + 1)
    for number, quota in enumerate(quotas):
        assert counts[number] <= quota.most(selected) or counts[number] <= quota.most(wanted)
        # of each source the first of the order are left
        of_source = order[found[order] == number]
        assert set(of_source[: counts[number]].tolist()) == set(left[found[left] == number].tolist())
    assert counts[-1] == (found == len(quotas)).sum()
    # of one row more than is left, some quota would be exceeded
    if selected < wanted:
        more = [min((found == number).sum(), quota.most(selected + 1)) for number, quota in enumerate(quotas)]
        assert counts[-1] + sum(more) < selected + 1


@pytest.mark.parametrize("method", ["random", "balanced"])
def test_a_selection_keeps_to_quotas_and_stays_balanced(method: str) -> None:
    rows = [(f"{'ab'[n % 4 > 0]}{n}", *row[1:]) for n, row in enumerate(photographs(2000))]
    axes = axes_of(["text"], []) if method == "balanced" else ()
    quotas = quotas_of(["*/b.tar=60%"])
    asked = Selection.model_validate({"method": method, "count": 1000, "axes": axes, "quotas": quotas})
    choice = select(table_of(rows), ["i"], asked)
    taken = [rows[place] for place in choice.indices]
    assert len(taken) == 1000 and sum(row[0][0] == "b" for row in taken) == 600
    if axes:
        # of the source with a quota half have text, and all of the other one may be taken
        there = 300 + sum(row[2] for row in rows if row[0][0] == "a")
        assert abs(sum(row[2] for row in taken) - min(500, there)) <= 15


def test_quotas_of_jobs_and_files_in_a_snapshot(store: Store) -> None:
    one, other = "1" * 16, "2" * 16
    parts = [
        write_part(store, [described(f"{name}{n}") for n in range(20)], identity=identity, fingerprint=identity)
        for name, identity in (("a", one), ("b", other))
    ]
    snapshots = Snapshots(store)

    def made(name: str, *quotas: str, **values: Any) -> dict[str, tuple[int, int]]:
        selection = Selection.model_validate({**values, "quotas": quotas_of(quotas)})
        snapshot = snapshots.create(name, parts, selection, [one, other])
        return snapshot.manifest.composition["quotas"]

    assert made("few", f"{one}=3", count=20) == {one: (20, 3), "other": (20, 17)}
    # a fifth of what is left: 5 of 25
    assert made("share", f"{other}=20%") == {other: (20, 5), "other": (20, 20)}
    assert made("file", "a.*=10", f"{other}=1", count=10)["a.*"] == (40, 10)
    with pytest.raises(SelectionError, match=r"30 rows are requested, but the quotas leave 21; --accept-shortfall"):
        made("many", f"{one}=1", count=30)
    with pytest.raises(QuotaError, match="no row comes from 'nobody'"):
        made("none", "nobody=3")
    assert [name for name in snapshots.names() if name in ("many", "none")] == []
    axes = axes_of(["source"], [f"source={one}:0.25", f"source={other}:0.75"])
    by_source = Selection(method="balanced", axes=axes, count=20)
    assert snapshots.create("axis", parts, by_source, [one, other]).manifest.composition["source"][one] == (20, 5)
