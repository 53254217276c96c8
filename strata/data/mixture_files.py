"""Mixture files: TOML that names the sources of a training set, the number of samples of each, and instructions."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, model_validator

from strata.core import layer_named
from strata.data.boxes import FACTOR, MAX_PIXELS, BoxName
from strata.data.mixtures import QUESTION, IncompleteMixture, Mixture, MixtureError, Share
from strata.data.sources.files import DatasetSource, conversation_source, webdataset_source
from strata.data.sources.public import FORMATS, Format
from strata.data.sources.public.documents import CONTENTS
from strata.data.sources.public.files import Files
from strata.data.sources.public.questions import Answers, Options, Pages
from strata.data.sources.public.source import public_source
from strata.data.sources.samples import SampleSource
from strata.data.sources.snapshots import snapshot_source
from strata.errors import StrataError, fault_line, plain_line
from strata.snapshots import Snapshots
from strata.store import Store, file_system

# far above any mixture: positions in all sources together must be numbers of 64 bits
MOST_SAMPLES = 10**12
MOST_REPEATS = 10**6
_PLACEHOLDER = re.compile(r"\{\w+\}")
FORMAT_OPTIONS = ("questions", "answers", "split", "image_name", "choice", "answerable", "exclude", "pages")

KINDS: dict[str, frozenset[str]] = {  # the kinds of sources, and the settings that only this kind has
    "snapshot": frozenset({"layer", "boxes", "max_pixels"}),
    "conversations": frozenset({"images"}),
    "format": frozenset({"file", "images", *FORMAT_OPTIONS}),
    "webdataset": frozenset(),
    "dataset": frozenset({"image", "text", "question"}),
}


class SourceSettings(BaseModel):
    """One source of a mixture.

    snapshot: a snapshot's name, and the `layer` of its records that is the answer (in older files, `level`). boxes: the
    form in which its answers tell where things are, for a layer with boxes; max_pixels: width × height of the largest
    image that Qwen2.5-VL's processor makes, on which the form qwen2.5 depends.
    conversations: a JSON or JSON Lines file in the format of LLaVA, Qwen-VL or Monkey, and the folder of its `images`
    (default: the file's own).
    format: a public data set in the files that its authors publish, one of strata.data.sources.public.FORMATS. It needs
    a `file` or several, and the folder of its `images` (of conversations, the file's own); some have more options.
    webdataset: tars with texts, or Parquet files. dataset: a Hugging Face dataset on disk, a Parquet file, or a folder
    of such files, and the columns.

    `count` samples are used, or a number in proportion to `weight`, or all of them `repeat` times (once). A count above
    the number that there are repeats samples. instruction: the user's turn, or a list, of which each sample gets one by
    the seed; required for sources without questions. The questions of other sources are used as they are, or inserted
    at "{question}". origin: where the data can be got, which `strata mixture check` tells if something is missing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    task: str | None = None
    snapshot: str | None = None
    layer: str | None = Field(default=None, validation_alias=AliasChoices("layer", "level"))
    boxes: BoxName | None = None
    max_pixels: int | None = Field(default=None, ge=FACTOR**2)
    conversations: str | None = None
    images: str | None = None
    format: str | None = None
    file: str | tuple[str, ...] | None = Field(default=None, min_length=1)
    questions: str | tuple[str, ...] | None = None
    answers: Answers | None = None
    split: str | tuple[str, ...] | None = None
    image_name: str | None = None
    choice: Literal["letter", "text"] | None = None
    answerable: bool | None = None
    exclude: str | None = None
    pages: Pages | None = None
    origin: str | None = None
    webdataset: str | None = None
    dataset: str | None = None
    image: str | None = None
    text: str | None = None
    question: str | None = None
    count: int | None = Field(default=None, ge=1, le=MOST_SAMPLES)
    weight: float | None = Field(default=None, gt=0)
    repeat: int | None = Field(default=None, ge=1, le=MOST_REPEATS)
    instruction: str | tuple[str, ...] | None = Field(default=None, min_length=1)

    @property
    def kind(self) -> str:
        """The source's kind, one of KINDS."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def instructions(self) -> tuple[str, ...]:
        """All instructions, none or one or several."""
        return (self.instruction,) if isinstance(self.instruction, str) else self.instruction or ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        # exactly one kind, and no settings of another
        kinds = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(kinds) != 1:
            raise ValueError(f"{self.name}: one of {', '.join(KINDS)} is needed, {' and '.join(kinds) or 'none'} given")
        for kind, settings in KINDS.items():
            others = sorted(settings - KINDS[kinds[0]])
            odd = [name for name in others if getattr(self, name) is not None]
            if odd:
                raise ValueError(f"{self.name}: {odd[0]} is a setting of {kind}, not of {kinds[0]}")
        numbers = [name for name in ("count", "weight", "repeat") if getattr(self, name) is not None]
        if len(numbers) > 1:
            raise ValueError(f"{self.name}: a {' or a '.join(numbers)}, not both")
        asks_itself = self.layer is not None and layer_named(self.layer).asks_itself
        if self.max_pixels is not None and self.boxes != "qwen2.5":
            raise ValueError(f'{self.name}: max_pixels is only for boxes = "qwen2.5"')
        # an instruction is required for answers without questions; the placeholder needs questions
        has_questions = kinds[0] == "conversations" or self.question is not None or self._check_format() or asks_itself
        if not has_questions and self.instruction is None:
            raise ValueError(f"{self.name}: an instruction is needed, because its answers have no questions")
        if not has_questions and any(QUESTION in text for text in self.instructions):
            raise ValueError(f"{self.name}: {QUESTION} is only for sources with questions")
        for text in self.instructions:
            self._check_instruction(text)
        return self

    def _check_instruction(self, text: str) -> None:
        """Check the placeholders of an instruction. Raises ValueError."""
        odd = next((mark for mark in _PLACEHOLDER.findall(text) if mark != QUESTION), None)
        if odd:
            raise ValueError(f"{self.name}: an instruction has {odd}; the only placeholder is {QUESTION}")
        # a file of conversations may have one question for all; a data set of questions has not
        form = FORMATS[self.format] if self.format else None
        if form and not form.captions and not form.beside and QUESTION not in text:
            raise ValueError(f"{self.name}: the instruction {text!r} has no {QUESTION}, so its questions are not asked")

    def _check_format(self) -> bool:
        """Check the name and the options of a format; whether its samples have questions. Raises ValueError."""
        if self.format is None:
            return False
        form = FORMATS.get(self.format)
        if form is None:
            raise ValueError(f"{self.name}: no format {self.format!r}; there are {', '.join(FORMATS)}")
        if self.file is None or (self.images is None and not form.beside):
            raise ValueError(f"{self.name}: a format needs `file` and `images`")
        allowed = form.options | ({"answers"} if form.answers else set())
        odd = [name for name in FORMAT_OPTIONS if getattr(self, name) is not None and name not in allowed]
        if odd:
            raise ValueError(f"{self.name}: the format {self.format} has no {odd[0]}")
        return not form.captions


def _several(value: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value or ()


class MixtureFile(BaseModel):
    """A mixture of sources."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    sources: list[SourceSettings] = Field(min_length=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [source.name for source in self.sources]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two sources are named {twice}")
        # counts are absolute and weights relative, so that a mixture cannot have both
        weighed = sum(source.weight is not None for source in self.sources)
        if weighed not in (0, len(names)):
            raise ValueError("either all sources have a weight or none: a weight has no meaning beside counts")
        return self

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a TOML file. Raises MixtureError, and OSError if it cannot be read."""
        try:
            return cls.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise MixtureError(f"{path} is not TOML: {error}") from None
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"]))
            reason = fault_line(first)
            raise MixtureError(f"{path}: {field}: {reason}" if field else f"{path}: {reason}") from None


@dataclass(frozen=True)
class Locations:
    """The locations of a mixture's sources: snapshots in `store`, files under `data`; `cache` is for their tables."""

    store: Store
    data: str
    cache: Path

    def open(self, settings: SourceSettings) -> SampleSource:
        """Open a source. Raises MixtureError if something is missing or not of the expected kind."""
        try:
            source = self._open(settings)
        except (StrataError, OSError) as error:
            raise IncompleteMixture(f"{settings.name}: {plain_line(error)}") from error
        if not len(source):
            raise IncompleteMixture(f"{settings.name}: the source has no sample with a text")
        return source

    def _open(self, settings: SourceSettings) -> SampleSource:
        # the kind of a source is the one setting of KINDS that it has
        if settings.snapshot is not None:
            snapshot = Snapshots(self.store).open(settings.snapshot)
            layer, boxes, most = settings.layer or "description", settings.boxes, settings.max_pixels or MAX_PIXELS
            return snapshot_source(self.store, snapshot, layer, self.cache, boxes, most)
        if settings.conversations is not None:
            uri = self._under(settings.conversations)
            images = uri.rpartition("/")[0] if settings.images is None else self._under(settings.images)
            return conversation_source(uri, images, self.cache)
        if settings.format is not None:
            return self._public(settings, FORMATS[settings.format])
        if settings.webdataset is not None:
            return webdataset_source(self._under(settings.webdataset), self.cache)
        columns = {name: value for name in KINDS["dataset"] if (value := getattr(settings, name)) is not None}
        return DatasetSource(self._under(settings.dataset or ""), **columns, cache=self.cache)

    def _public(self, settings: SourceSettings, form: Format) -> SampleSource:
        paths, questions = (tuple(map(self._under, _several(value))) for value in (settings.file, settings.questions))
        exclude = self._under(settings.exclude) if settings.exclude else ""
        options = Options(
            answers=settings.answers or form.answers or "first",
            split=_several(settings.split),
            image_name=settings.image_name or "",
            choice=settings.choice or "letter",
            answerable=bool(settings.answerable),
            pages=settings.pages or "found",
        )
        images = (_folder(paths[0]) if settings.images is None else self._under(settings.images)).rstrip("/")
        by_pages = form.pages and options.pages == "found"
        contents = tuple(f"{_folder(path)}/{CONTENTS}" for path in paths) if by_pages else ()
        files = Files(paths, questions, exclude, contents)
        return public_source(settings.format or "", files, images, options, self.cache)

    def _under(self, path: str) -> str:
        return path if path.startswith("/") or "://" in path else f"{self.data.rstrip('/')}/{path}"


def _folder(uri: str) -> str:
    """A folder itself, or the folder that a file lies in."""
    filesystem, path = file_system(uri)
    return uri if filesystem.isdir(path) else uri.rpartition("/")[0]


def open_mixture(
    file: MixtureFile, locations: Locations, on_source: Callable[[str], object] = lambda name: None
) -> Mixture:
    """Open a file's mixture. on_source: called with each source's name before it is opened.

    Raises IncompleteMixture if a source is missing or has no sample.
    """
    sources: list[SampleSource] = []
    for settings in file.sources:
        on_source(settings.name)
        sources.append(locations.open(settings))
    counts = counts_of(file.sources, [len(source) for source in sources])
    return Mixture([_share(*of) for of in zip(file.sources, sources, counts, strict=True)])


def _share(settings: SourceSettings, source: SampleSource, count: int) -> Share:
    return Share(settings.name, settings.task or settings.name, source, count, settings.instruction)


def counts_of(sources: Sequence[SourceSettings], supplies: Sequence[int]) -> list[int]:
    """The number of samples of each source in the mixture. supplies: the number that each source has.

    With weights, the numbers are proportional to them, and as large as the sources allow without repetition.
    """
    if sources[0].weight is None:
        pairs = zip(sources, supplies, strict=True)
        return [supply * (source.repeat or 1) if source.count is None else source.count for source, supply in pairs]
    weights = [source.weight or 0.0 for source in sources]
    # the source with the fewest samples for its weight limits the whole
    unit = min(supply / weight for supply, weight in zip(supplies, weights, strict=True))
    return [min(supply, round(unit * weight)) for supply, weight in zip(supplies, weights, strict=True)]
