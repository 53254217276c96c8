"""Mixture files: TOML that names the sources of a training set, how much of each, and what they are asked with."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, model_validator

from strata.core.exits import StrataExit
from strata.core.layers import LayerError, layer_named
from strata.data.file_sources import DatasetSource, conversation_source, webdataset_source
from strata.data.mixtures import QUESTION, Mixture, MixtureError, Share
from strata.data.sample_sources import SampleError, SampleSource
from strata.data.snapshot_sources import snapshot_source
from strata.snapshots.snapshots import Snapshots
from strata.store.store import Store

KINDS: dict[str, frozenset[str]] = {  # the kinds of sources, and the settings that each alone has
    "snapshot": frozenset({"layer"}),
    "conversations": frozenset({"images"}),
    "webdataset": frozenset(),
    "dataset": frozenset({"image", "text", "question"}),
}


class SourceSettings(BaseModel):
    """One source of a mixture.

    snapshot: a snapshot's name, and the `layer` of its records that is the answer (in older files, `level`).
    conversations: a JSON or JSON Lines file as LLaVA, Qwen-VL and Monkey write them, and the folder of `images`
    (default: the file's own). webdataset: tars with texts. dataset: a Hugging Face dataset on disk and its columns.

    Of the samples `count` are taken, or as many as `weight` says beside the other sources' weights, or all.
    instruction: what is asked; needed where only answers are there. Questions that come along are asked in its place,
    or where it says "{question}".
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    task: str | None = None
    snapshot: str | None = None
    layer: str | None = Field(default=None, validation_alias=AliasChoices("layer", "level"))
    conversations: str | None = None
    images: str | None = None
    webdataset: str | None = None
    dataset: str | None = None
    image: str | None = None
    text: str | None = None
    question: str | None = None
    count: int | None = Field(default=None, ge=1)
    weight: float | None = Field(default=None, gt=0)
    instruction: str | None = None

    @property
    def kind(self) -> str:
        """Which of KINDS it is."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @model_validator(mode="after")
    def _check(self) -> Self:
        kinds = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(kinds) != 1:
            raise ValueError(f"{self.name}: one of {', '.join(KINDS)} is needed, {' and '.join(kinds) or 'none'} given")
        for kind, settings in KINDS.items():
            odd = [name for name in sorted(settings) if kind != kinds[0] and getattr(self, name) is not None]
            if odd:
                raise ValueError(f"{self.name}: {odd[0]} goes with {kind}, not with {kinds[0]}")
        if self.count is not None and self.weight is not None:
            raise ValueError(f"{self.name}: a count or a weight, not both")
        if self.layer is not None:
            layer_named(self.layer)
        asked = kinds[0] == "conversations" or self.question is not None
        if not asked and self.instruction is None:
            raise ValueError(f"{self.name}: an instruction is needed, for its answers come without questions")
        if not asked and QUESTION in (self.instruction or ""):
            raise ValueError(f"{self.name}: {QUESTION} is for sources that bring questions along")
        return self


class MixtureFile(BaseModel):
    """A mixture: sources that are trained on together."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    sources: list[SourceSettings] = Field(min_length=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [source.name for source in self.sources]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two sources are named {twice}")
        weighed = sum(source.weight is not None for source in self.sources)
        if weighed not in (0, len(names)):
            raise ValueError("a weight is for every source or for none: beside counts it says nothing")
        return self

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a TOML file. Raises MixtureError, and OSError if it is not there."""
        try:
            return cls.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise MixtureError(f"{path} is no TOML: {error}") from None
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            reason = first["msg"].removeprefix("Value error, ")
            raise MixtureError(f"{path}: {place}: {reason}" if place else f"{path}: {reason}") from None


@dataclass(frozen=True)
class Places:
    """Where a mixture's sources lie: snapshots in `store`, files under `data`; tables are kept in `cache`."""

    store: Store
    data: str
    cache: Path

    def open(self, settings: SourceSettings) -> SampleSource:
        """A source's samples. Raises MixtureError where something is missing or is not what it should be."""
        try:
            source = self._open(settings)
        except (SampleError, LayerError, StrataExit, OSError) as error:
            raise MixtureError(f"{settings.name}: {error}") from error
        if not len(source):
            raise MixtureError(f"{settings.name}: no sample with a text is in there")
        return source

    def _open(self, settings: SourceSettings) -> SampleSource:
        if settings.snapshot is not None:
            snapshot = Snapshots(self.store).open(settings.snapshot)
            return snapshot_source(self.store, snapshot, settings.layer or "description", self.cache)
        if settings.conversations is not None:
            uri = self._under(settings.conversations)
            images = uri.rpartition("/")[0] if settings.images is None else self._under(settings.images)
            return conversation_source(uri, images, self.cache)
        if settings.webdataset is not None:
            return webdataset_source(self._under(settings.webdataset), self.cache)
        columns = {name: value for name in KINDS["dataset"] if (value := getattr(settings, name)) is not None}
        return DatasetSource(self._under(settings.dataset or ""), **columns)

    def _under(self, path: str) -> str:
        return path if path.startswith("/") or "://" in path else f"{self.data.rstrip('/')}/{path}"


def open_mixture(file: MixtureFile, places: Places, on_source: Callable[[str], object] = lambda name: None) -> Mixture:
    """The mixture of a file. Raises MixtureError where something is missing, or more is asked for than there is."""
    sources: list[SampleSource] = []
    for settings in file.sources:
        on_source(settings.name)
        sources.append(places.open(settings))
    counts = counts_of(file.sources, [len(source) for source in sources])
    return Mixture([_share(*of) for of in zip(file.sources, sources, counts, strict=True)])


def _share(settings: SourceSettings, source: SampleSource, count: int) -> Share:
    return Share(settings.name, settings.task or settings.name, source, count, settings.instruction)


def counts_of(sources: Sequence[SourceSettings], supplies: Sequence[int]) -> list[int]:
    """How many samples of each source are taken.

    Weights are shares of the whole, which is as large as the source allows that has the least for its weight.
    """
    if sources[0].weight is None:
        return [
            supply if source.count is None else source.count for source, supply in zip(sources, supplies, strict=True)
        ]
    weights = [source.weight or 0.0 for source in sources]
    unit = min(supply / weight for supply, weight in zip(supplies, weights, strict=True))
    return [min(supply, round(unit * weight)) for supply, weight in zip(supplies, weights, strict=True)]
