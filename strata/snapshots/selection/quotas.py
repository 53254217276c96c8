"""Quotas: the most that a selection takes of one source, such as of one job or of one folder of shards."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from strata.errors import InvalidInput
from strata.snapshots.selection.axes import OTHER, Setting

Ints = np.typing.NDArray[np.int64]
_NO_SOURCE = "no row comes from {!r}: name one of --from, or a pattern of the files with the images, such as '*/cc3m/*'"


class QuotaError(InvalidInput):
    """A quota that is not valid. The message gives the reason in one line."""


class Quota(Setting):
    """The most that a selection takes of one source.

    source: a job or data set that the rows come from, or a pattern of the files that hold the images, as `fnmatch`
    reads it. rows: at most so many; share: at most this share of the selected rows, 0..1; one of the two is given.
    """

    source: str = Field(min_length=1)
    rows: int | None = Field(default=None, ge=0)
    share: float | None = Field(default=None, ge=0, le=1)

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.rows is None) == (self.share is None):
            raise ValueError("a quota is a number of rows or a share of them")
        return self

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse SOURCE=ROWS, SOURCE=PERCENT% or SOURCE=SHARE, such as 0.3 (the option `--quota`). Raises QuotaError."""
        source, _, amount = text.rpartition("=")
        number = re.fullmatch(r"(\d+)|(\d+(?:\.\d+)?)%|(\d*\.\d+)", amount.strip())
        if not source or number is None:
            raise QuotaError(f"--quota {text!r} is not SOURCE=ROWS or SOURCE=SHARE, such as JOB=2000 or JOB=30%")
        rows, percent, share = number.groups()
        if rows is not None:
            return cls(source=source, rows=int(rows))
        part = float(percent) / 100 if percent is not None else float(share)
        if part > 1:
            raise QuotaError(f"--quota {text!r}: a share is at most 100 %")
        return cls(source=source, share=part)

    def most(self, selected: float) -> int:
        """The most rows among a number of selected rows."""
        # 0.3 of 10 rows is 3 rows, which 2.9999999999999996 would not be
        return self.rows if self.rows is not None else int((self.share or 0.0) * selected + 1e-9)


def quotas_of(texts: Iterable[str]) -> tuple[Quota, ...]:
    """Parse the quotas of `--quota`. Raises QuotaError, also for two quotas of one source."""
    quotas = tuple(map(Quota.parse, texts))
    if len({quota.source for quota in quotas}) < len(quotas):
        raise QuotaError("a source can be given with --quota only once")
    return quotas


def members_of(rows: pa.Table, quotas: Sequence[Quota]) -> Ints:
    """For each row the number of the first quota whose source it comes from, and len(quotas) for none.

    rows: with the features `source` and `uri`.
    """
    files = pc.dictionary_encode(rows.column("uri")).combine_chunks()
    names = files.dictionary.to_pylist()
    members = np.full(rows.num_rows, len(quotas))
    for number, quota in reversed(list(enumerate(quotas))):
        matches = re.compile(fnmatch.translate(quota.source)).match
        of_file = np.array([bool(matches(name or "")) for name in names] or [False])
        of_source = pc.fill_null(pc.equal(rows.column("source"), quota.source), False).to_numpy()
        members[of_file[pc.fill_null(files.indices, 0).to_numpy()] | of_source] = number
    return members


def check_sources(rows: pa.Table, quotas: Sequence[Quota]) -> None:
    """Raise QuotaError for a quota of a source that no row comes from: it is mistyped."""
    for quota in quotas:
        if not (members_of(rows, [quota]) == 0).any():
            raise QuotaError(_NO_SOURCE.format(quota.source))


def within_quotas(members: Ints, quotas: Sequence[Quota], order: Ints, wanted: int) -> Ints:
    """The rows that may be selected: of each source the first in an order, as many as its quota allows; sorted.

    members: of each row, see `members_of`. wanted: the rows that are to be selected. If less than that is left, shares
    are those of what can be selected.
    """
    counts = np.bincount(members, minlength=len(quotas) + 1)
    selected = wanted
    # fewer rows allow fewer of each source: the number falls until it stays
    while (possible := _possible(counts, quotas, selected)) < selected:
        selected = possible
    kept = np.ones(len(order), bool)
    for number, quota in enumerate(quotas):
        of_source = order[members[order] == number]
        kept[of_source[quota.most(selected) :]] = False
    return np.flatnonzero(kept)


def _possible(counts: Ints, quotas: Sequence[Quota], selected: int) -> int:
    of_quotas = sum(min(int(count), quota.most(selected)) for count, quota in zip(counts[:-1], quotas, strict=True))
    return min(selected, int(counts[-1]) + of_quotas)


def quota_counts(rows: pa.Table, quotas: Sequence[Quota], selected: Ints) -> dict[str, tuple[int, int]]:
    """The rows of each source with a quota, and of all others, before and after a selection (indices)."""
    members = members_of(rows, quotas)
    before, after = (np.bincount(some, minlength=len(quotas) + 1).tolist() for some in (members, members[selected]))
    labels = [*(quota.source for quota in quotas), OTHER]
    return dict(zip(labels, zip(before, after, strict=True), strict=True))
