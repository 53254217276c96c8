"""What is known of a data set: from the snapshot's manifest, its parts, its jobs, the judgments, and its owner.

The card (`cards.py`) and the metadata (`croissant.py`) say the same of it, since both are made from these facts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from strata.addresses import without_secrets
from strata.core import FEATURE_STAGES, JobRequest, LayerSpec, source_shard
from strata.data import Request
from strata.data.exports import ExportSamples, Form
from strata.errors import DamagedFile
from strata.evaluation.truth_rates import TruthRates, rates_of, truth_rates
from strata.judgments import Judgments, LostJudgments
from strata.profiles import licence_of
from strata.publishing.checksums import files_of
from strata.publishing.papers.about import About
from strata.publishing.papers.checks import Checks, checks_of
from strata.snapshots import Snapshot
from strata.store import PartsOf, Store


@dataclass(frozen=True)
class Exported:
    """An export. counts: as in `_provenance.json`; files and bytes: of the data, without its papers.

    words: of all its texts; example: the first text, or the first questions with their answers.
    """

    request: Request
    counts: Mapping[str, int]
    made_at: datetime
    files: int = 0
    bytes: int = 0
    words: int = 0
    example: tuple[str, ...] = ()

    @property
    def form(self) -> Form:
        return self.request.form

    @property
    def layer(self) -> LayerSpec:
        return self.request.layer

    @property
    def asks(self) -> bool:
        """Whether its samples have the question that its text answers."""
        return not self.layer.asks_itself and self.form not in ("parquet", "hf", "webdataset")


@dataclass(frozen=True)
class Source:
    """Where rows of a snapshot come from: a job, or a data set (all that one profile has described).

    shards and images: of a job. names: of its first and last shard, without their folders, which tell of the machine
    and not of the data. licence: what the job's metadata say under `license` or `licence`.
    """

    name: str
    shards: int | None = None
    images: int | None = None
    names: tuple[str, ...] = ()
    licence: str | None = None


@dataclass(frozen=True)
class Model:
    """A stage of a profile with its model. licence: None where Strata does not know it."""

    profile: str
    stage: str
    backend: str
    model: str
    revision: str
    licence: str | None


@dataclass(frozen=True)
class Facts:
    """What is known of a snapshot, and of an export of it, if there is one.

    truth: what people said of the rows; None if their judgments cannot be read whole, and truth_fault says why.
    """

    snapshot: Snapshot
    about: About
    checks: Checks
    sources: Sequence[Source]
    truth: TruthRates | None
    truth_fault: str = ""
    export: Exported | None = None

    @property
    def title(self) -> str:
        """The owner's title, or the snapshot's name."""
        return (self.about.title or self.snapshot.name).strip()

    @property
    def count(self) -> int:
        """The exported images, or the selected rows of a snapshot without an export."""
        return self.snapshot.manifest.counts.selected if self.export is None else self.export.counts["exported"]

    @property
    def unjudged(self) -> str:
        """Why there is no rate of true texts; empty if there is one."""
        if self.truth is None:
            return f"The judgments of reviewers cannot be read whole, so no rate is given: {self.truth_fault}."
        return "" if self.truth.records else "Nobody reviewed it: how many of the texts are true is unknown."

    @property
    def settings(self) -> list[dict[str, Any]]:
        """The settings of the profiles, of those that the store has kept."""
        return [one.settings for one in self.snapshot.provenance if one.settings]

    @property
    def models(self) -> list[Model]:
        """The models of all profiles that the store has kept, each once; of features only those that were read."""
        read = {*self.snapshot.manifest.selection.ways}
        if self.export is not None and self.export.request.blur_faces:
            read.add("faces")
        found = [
            Model(
                provenance.profile or provenance.fingerprint,
                stage,
                settings["backend"],
                _without_address(settings["model"], settings.get("parameters") or {}),
                settings["revision"],
                licence_of(settings["model"]),
            )
            for provenance in self.snapshot.provenance
            for stage, settings in provenance.settings.get("stages", {}).items()
            if stage not in FEATURE_STAGES or stage in read
        ]
        return list(dict.fromkeys(found))

    @property
    def languages(self) -> tuple[str, ...]:
        """The owner's languages; else those that the profiles wrote the descriptions in, if these are exported."""
        layer = self.export.layer if self.export else None
        if self.about.languages or (layer is not None and layer.column not in ("description", "reviewed", "variants")):
            return self.about.languages
        if not self.settings or len(self.settings) < len(self.snapshot.provenance):
            return ()
        return tuple(dict.fromkeys((one.get("texts") or {}).get("language") or "en" for one in self.settings))

    @property
    def warnings(self) -> list[str]:
        """What the profiles warn of, each once."""
        return list(dict.fromkeys(line for one in self.settings for line in one.get("warnings") or ()))


def facts_of(store: Store, snapshot: Snapshot, about: About, export: Exported | None = None) -> Facts:
    """Gather what is known of a snapshot. It reads some columns of all its parts. Raises LostRows and OSError."""
    truth, fault = None, ""
    try:
        truth = _truth(store, snapshot)
    except LostJudgments as error:
        fault = str(error)
    sources = [_source(store, name) for name in snapshot.manifest.sources]
    return Facts(snapshot, about, checks_of(store, snapshot), sources, truth, fault, export)


def _truth(store: Store, snapshot: Snapshot) -> TruthRates:
    """What people said of the rows, which are read only if somebody has judged rows of these profiles."""
    fingerprints = {one.fingerprint for one in snapshot.provenance}
    judged = Judgments(store).of_fingerprints(fingerprints).whole()
    return truth_rates(store, snapshot.name) if judged else rates_of((), {})


def exported(request: Request, samples: ExportSamples, folder: Path) -> Exported:
    """An export that is made now, in a folder that has no papers yet. Raises OSError."""
    sizes = [(folder / name).stat().st_size for name in files_of(folder) if not name.startswith("_")]
    size = (len(sizes), sum(sizes))
    return Exported(request, samples.counts, datetime.now(UTC), *size, samples.words, samples.example)


def _source(store: Store, name: str) -> Source:
    request: JobRequest | None = None
    parts_of = PartsOf(store)
    with suppress(DamagedFile):
        request = parts_of.request(name)
    if request is None:
        return Source(name)
    images = None
    with suppress(DamagedFile):
        images = sum(shard.images for shard in parts_of.summaries(request))
    licence = next((text for key, text in request.metadata.items() if key.lower() in ("license", "licence")), None)
    ends = dict.fromkeys((request.shards[0], request.shards[-1])) if request.shards else {}
    return Source(name, len(request.shards), images, tuple(map(_file_name, ends)), licence)


def _file_name(uri: str) -> str:
    """The last part of the address of a shard, or of the one of which rows are chosen, without a signature."""
    return without_secrets(source_shard(uri)).partition("?")[0].rstrip("/").rpartition("/")[2]


def _without_address(model: str, parameters: Mapping[str, Any]) -> str:
    """A stage's model; of a server the name of what it serves, since its address tells of a network, not of a model."""
    if not model.startswith("server:"):
        return without_secrets(model)
    return f"{parameters.get('served_model') or 'a model'} behind a chat server"
