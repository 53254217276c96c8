"""What a selection is: its settings, which a snapshot keeps so that it can be repeated."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

import pyarrow as pa
from pydantic import Field, model_validator

from strata.errors import InvalidInput
from strata.snapshots.duplicates import Keep, Same
from strata.snapshots.duplicates.pictures import HASHED, MOST_DIFFERENT
from strata.snapshots.features import CLUSTER, Kind
from strata.snapshots.filters import Expression, Filter
from strata.snapshots.rules import checked_rules, names_of
from strata.snapshots.selection.axes import BY_CLUSTER, DEFAULT_AXES, Axis, Setting
from strata.snapshots.selection.better import checked_criteria, features_of
from strata.snapshots.selection.caps import COLUMNS, ConceptKind
from strata.snapshots.selection.quotas import Quota

Method = Literal["random", "balanced", "best", "concepts", "diverse"]
AXES_OF = {"balanced": DEFAULT_AXES, "diverse": BY_CLUSTER}  # the default ones of the methods that have some
BENCHMARKS = "without"  # the option whose file has the hashes of benchmarks' pictures


class SelectionError(InvalidInput):
    """A selection that is not possible. The message gives the reason in one line."""


class Split(Setting):
    """A part of a snapshot. of: the snapshot's id; validation: share of the pictures in the other part, 0..1."""

    of: str
    part: Literal["train", "validation"]
    validation: float
    seed: int
    same: Literal["bytes", "near"]


class Selection(Setting):
    """Which of the succeeded rows are selected.

    method: `random`; `balanced` over strata: the first axis divides the rows, the second divides each of its strata,
    and so on, and rows missing in a small stratum are taken from its sibling strata; `best` by what a row is worth: a
    score of the features `evidence`, `match` and `told`, or `quality` (`scores_of`); `concepts`: the rows with the
    smallest caps (see `caps.py`); `diverse`: balanced, by clusters of embeddings unless there are other axes, and
    within a stratum by worth × what is new in a row (`novelty_of`). count: number of rows; share: of the rows that
    pass, 0..1; without both all of them. where: a filter (see `strata.snapshots.filters`). unique: only the first row
    of each image (feature `image`); equal bytes in two shards count as two images unless their SHA-256 is known. score:
    what is best: "content", or "evidence" in the snapshots of earlier versions, which did not ask how much is told.
    cap: rows that each noun of the descriptions keeps (see `caps.py`), before rows are counted. own: the columns of the
    user's scores with their kinds, and files: the SHA-256 of the user's files by their option (`OwnFiles`). same: which
    images are one to `unique`, by their pictures (see `strata.snapshots.duplicates`): from those with equal bytes to
    those with embeddings near each other; None: by the feature `image`. split: the part of a split snapshot that this
    is. reviewed: a hash of the texts that people left of the selected rows in review; None if none was judged. alike:
    the least cosine of embeddings that are one to `same`. bits: by which hashes of pictures differ at most that look
    alike. keep: which row of one image stays: the first, the largest in pixels, or the best by `scores_of`. leave_out:
    names and filters of rows that are left out and counted (see `strata.snapshots.rules`). ways: how the stages of the
    group `features` have computed what is read, by stage. concepts: what names them, of `caps.COLUMNS`. quotas: the
    most rows of a source, the first that names a row. quality: an expression of features and own scores that says what
    a row is worth. centroids: the digest of the clusters of embeddings, which the store keeps. better: of several
    descriptions of an image, the criteria by which one stays, of the rows that pass and before all that follows (see
    `better.py`); none: all stay.
    """

    LATER: ClassVar = {
        **{"score": (None, "evidence"), "cap": (None,), "own": ({},), "files": ((),)},
        **{"same": (None,), "split": (None,), "reviewed": (None,)},
        **{"alike": (None,), "bits": (MOST_DIFFERENT,), "keep": ("first",), "leave_out": ((),), "ways": ({},)},
        **{"concepts": (("nouns",),), "quotas": ((),), "quality": (None,), "centroids": (None,)},
        **{"better": ((),)},
    }

    method: Method = "random"
    count: int | None = Field(default=None, ge=1)
    share: float | None = Field(default=None, gt=0, le=1)
    seed: int = 0
    where: str | None = None
    unique: bool = False
    axes: tuple[Axis, ...] = ()
    score: Literal["content", "evidence"] | None = None
    cap: int | None = Field(default=None, ge=1)
    own: dict[str, Kind] = Field(default_factory=dict)
    files: tuple[tuple[str, str], ...] = ()
    same: Same | None = None
    split: Split | None = None
    reviewed: str | None = None
    alike: float | None = Field(default=None, gt=0, le=1)
    bits: int = Field(default=MOST_DIFFERENT, ge=0, le=96)
    keep: Keep = "first"
    leave_out: tuple[tuple[str, str], ...] = ()
    ways: dict[str, str] = Field(default_factory=dict)
    concepts: tuple[ConceptKind, ...] = Field(default=("nouns",), min_length=1)
    quotas: tuple[Quota, ...] = ()
    quality: str | None = None
    centroids: str | None = None
    better: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _with_defaults(cls, values: dict[str, Any]) -> dict[str, Any]:
        if defaults := AXES_OF.get(values.get("method", "")):
            return {**values, "axes": values.get("axes") or defaults}
        return {"score": "content", **values} if values.get("method") == "best" else values

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.count is not None and self.share is not None:
            raise ValueError("a count and a share exclude each other")
        if self.axes and self.method not in AXES_OF:
            raise ValueError("only a balanced or a diverse selection has axes")
        if self.concepts != ("nouns",) and not self.names_concepts:
            raise ValueError("only a cap, or a selection by concepts, reads concepts")
        if self.quality is not None and not self.weighs:
            raise ValueError("only a selection of the best or a diverse one, or keep = best, has a quality")
        compares = self.unique or BENCHMARKS in dict(self.files)
        if self.same and not compares:
            raise ValueError("only a selection of each image once, or without those of a file, compares pictures")
        if (self.alike is None) != (self.same != "embedding"):
            raise ValueError("embeddings are compared with the least cosine, and nothing else is")
        if self.bits != MOST_DIFFERENT and self.same not in HASHED:
            raise ValueError("only a comparison of pictures that look alike counts bits")
        if self.keep != "first" and not self.unique:
            raise ValueError("only a selection of each image once has a row that stays")
        checked_rules(dict(self.leave_out))
        checked_criteria(self.better, self.own)
        if self.score and self.method != "best":
            raise ValueError("only a selection of the best has a score")
        return self

    @property
    def features(self) -> set[str]:
        """The features of rows that the selection needs."""
        names = self._comparing | names_of(self.leave_out, self.own)
        names |= {COLUMNS[kind] for kind in self.concepts} if self.names_concepts else set()
        names |= Filter(self.where, self.own).names if self.where else set()
        return names | ({CLUSTER, "thing"} if self.method == "diverse" or CLUSTER in names else set())

    @property
    def _comparing(self) -> set[str]:
        """The features by which rows that pass are compared with others."""
        names = {axis.feature for axis in self.axes if axis.own is None} | ({"uri", "source"} if self.quotas else set())
        if self.weighs:
            own = None if self.quality is None else Expression(self.quality, self.own).names
            names |= {"evidence", "match", "told"} if own is None else own
        names |= {"width", "height"} if self.keep == "largest" else set()
        return names | features_of(self.better, self.own) | ({"image"} if self.unique else set())

    @property
    def compared(self) -> set[str]:
        """The columns of a table of features that say which of the rows that pass are selected."""
        return {"part", "row", "key", *self._comparing, *self.own}

    @property
    def weighs(self) -> bool:
        """Whether it asks what a row is worth."""
        return self.method in ("best", "diverse") or self.keep == "best"

    @property
    def names_concepts(self) -> bool:
        """Whether it asks which concepts a row names."""
        return self.method == "concepts" or self.cap is not None

    @property
    def embedded(self) -> bool:
        """Whether it reads embeddings."""
        return self.same == "embedding" or CLUSTER in self.features

    @property
    def clusters(self) -> int | None:
        """The number of clusters that is asked for; None: as many as `cluster_count` says."""
        return next((axis.commonest for axis in self.axes if axis.feature == CLUSTER), None)

    def with_clusters(self, names: tuple[str, ...], digest: str) -> Self:
        """The selection with the clusters of its rows."""
        axes = tuple(axis.with_clusters(names) for axis in self.axes)
        return self.model_copy(update={"axes": axes, "centroids": digest})

    def resolved(self, table: pa.Table) -> Self:
        """The selection with the names of its axes set, so that it has the same meaning for other rows."""
        return self.model_copy(update={"axes": tuple(axis.resolved(table.column(axis.feature)) for axis in self.axes)})
