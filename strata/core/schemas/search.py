"""Searches: the rows that were found, and how many have which figures and labels."""

from __future__ import annotations

from pydantic import BaseModel

from strata.core.records import Status


class SearchHit(BaseModel):
    """A row that a search has found. id: its place in the store, with which `/v1/rows/ID` gives its whole record.

    title: the beginning of its description, or without one of its caption or alt text. words: of its description.
    score: the mean of the matcher's probabilities of its kept entries; null without any. has_text: whether a line of
    text is kept.
    """

    id: str
    key: str
    status: Status
    title: str | None = None
    words: int
    score: float | None = None
    has_text: bool
    width: int | None = None
    height: int | None = None


class FacetValue(BaseModel):
    """How many rows have a value. Of a histogram, value is the least one of the bar."""

    value: str
    count: int


class Facets(BaseModel):
    """How many of the rows of a search have which figures and labels; of labels the commonest.

    thing: nouns of kept regions and masks. tag: kept tags. dropped: why entries were dropped; cut: why the verifier cut
    sentences; failure: error types of failed rows, and the rules that rejected filtered ones. words: of descriptions.
    """

    total: int
    status: list[FacetValue]
    has_text: list[FacetValue]
    words: list[FacetValue]
    score: list[FacetValue]
    thing: list[FacetValue]
    tag: list[FacetValue]
    dropped: list[FacetValue]
    cut: list[FacetValue]
    failure: list[FacetValue]


class SearchPage(BaseModel):
    """`GET /v1/search`. total: rows of the whole search. next: the cursor of the following page, null on the last one.

    indexed, waiting: how many parts of the job, the snapshot or the store the index has, and how many it does not have
    yet, whose rows are not found until then. broken: parts that cannot be read and are passed over, with the reason.
    note: why the index does not grow now, if it does not. hints: words and labels of the search that no row of the
    whole index has, each with the most similar label.
    """

    rows: list[SearchHit]
    total: int
    next: str | None = None
    indexed: int
    waiting: int
    broken: list[str] = []
    note: str | None = None
    hints: list[str] = []
