"""`describe`: images in, records out, in this process. A `Describer` holds the loaded models between calls."""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, Self

from pydantic import ValidationError

from strata.components import load
from strata.core import (
    FINAL_GROUP,
    Profile,
    Record,
    Settings,
    Status,
    TextSettings,
    load_profile,
    load_settings,
    read_profile,
)
from strata.describing.datasets import BatchDescriber, Each, dataset_described, is_dataset
from strata.describing.described import DescribedImage, DescribedImages, DescriptionFailed, with_name
from strata.describing.images import ImageSource, is_notebook, is_one, sources_of
from strata.errors import InvalidInput, fault_line

Progress = Callable[[int, int | None], None]  # gets how many images are done, and of how many; None: not known


class Pipelines(Protocol):
    """Computes records with loaded models: `workers.describing.LocalPipelines`."""

    def load(self, profile: Profile) -> None: ...

    def each(self, sources: Iterator[ImageSource], profile: Profile) -> Iterator[tuple[ImageSource, Record]]: ...

    def close(self) -> None: ...


class Describer:
    """Describes images with the models of any profile, each loaded once, until it is closed.

    settings: by default those of the environment, such as STRATA_PROFILE. It may be used from several threads, which
    take turns, and as a context manager.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or load_settings()
        self._made: Pipelines | None = None
        self._guard = threading.RLock()
        self.closed = False

    def describe(
        self,
        images: Any,
        profile: str | Path | None = None,
        *,
        alt_text: str | Sequence[str | None] | None = None,
        variants: str | Sequence[str] | None = None,
        language: str | None = None,
        prompt: str | None = None,
        column: str = "image",
        progress: bool | Progress | None = None,
    ) -> Any:
        """As the function `describe`."""
        texts: dict[str, Any] = {"variants": variants, "language": language, "prompt": prompt}
        if is_dataset(images):
            if alt_text is not None and not isinstance(alt_text, str):
                raise InvalidInput("the alt texts of a data set are in a column: give its name")
            act = self.for_map(column, profile, alt_text=alt_text, **texts)
            return dataset_described(images, act, self.profile(profile).micro_batch)
        given, total = sources_of(images, alt_text)
        found = self._each(given, self.profile(profile, **texts))
        if is_one(images):
            (described,) = found
            return _checked(described)
        with _shown(progress, total) as show:
            return DescribedImages(_counted(found, total, show))

    def each(
        self,
        images: Any,
        profile: str | Path | None = None,
        *,
        alt_text: Sequence[str | None] | None = None,
        variants: str | Sequence[str] | None = None,
        language: str | None = None,
        prompt: str | None = None,
    ) -> Iterator[DescribedImage]:
        """Yield the described images as they are computed, one micro-batch after the other.

        Of images that come from a generator only some are in memory at a time. An image that cannot be described is a
        failed record. Raises what `describe` raises.
        """
        given, _ = sources_of(images, alt_text)
        return self._each(given, self.profile(profile, variants=variants, language=language, prompt=prompt))

    def for_map(
        self, column: str = "image", profile: str | Path | None = None, *, alt_text: str | None = None, **texts: Any
    ) -> BatchDescriber:
        """A function for `datasets.Dataset.map(…, batched=True)`, with the names of the columns that it reads.

        texts: variants, language and prompt. Another process (`num_proc`) loads the models for itself, with the
        settings of its environment.
        """
        fingerprint = self.profile(profile, **texts).fingerprint(FINAL_GROUP)
        reopen = functools.partial(_each_of_shared, profile, texts)
        return BatchDescriber(column, alt_text, fingerprint, self._each_with(profile, texts), reopen)

    def _each_with(self, profile: str | Path | None, texts: Mapping[str, Any]) -> Each:
        return lambda images, alt_texts: self.each(images, profile, alt_text=alt_texts, **texts)

    def load(self, profile: str | Path | None = None) -> None:
        """Load the models of a profile now instead of with the first image. Raises what `describe` raises."""
        self._pipelines().load(self.profile(profile))

    def profile(
        self,
        name: str | Path | None = None,
        *,
        variants: str | Sequence[str] | None = None,
        language: str | None = None,
        prompt: str | None = None,
    ) -> Profile:
        """The profile with a name, or of a TOML file, with these texts. Raises ProfileError and InvalidInput."""
        is_file = isinstance(name, Path) or str(name).endswith(".toml")
        found = read_profile(Path(str(name))) if is_file else _named(name, self.settings)
        texts = _texts_of(variants, language, prompt)
        return found.with_texts(texts) if texts else found

    def close(self) -> None:
        """Free the models and end the processes that decode. A closed describer describes nothing more."""
        with self._guard:
            self.closed = True
            if self._made is not None:
                self._made.close()
            self._made = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _each(self, given: Iterator[ImageSource], profile: Profile) -> Iterator[DescribedImage]:
        pipelines = self._pipelines()
        return (DescribedImage.of(record, source, self.settings) for source, record in pipelines.each(given, profile))

    def _pipelines(self) -> Pipelines:
        with self._guard:
            if self.closed:
                raise InvalidInput("this describer is closed")
            if self._made is None:
                made: Pipelines = load("workers.describing", "workers").LocalPipelines(self.settings)
                self._made = made
            return self._made


def describe(
    images: Any,
    profile: str | Path | None = None,
    *,
    alt_text: str | Sequence[str | None] | None = None,
    variants: str | Sequence[str] | None = None,
    language: str | None = None,
    prompt: str | None = None,
    column: str = "image",
    progress: bool | Progress | None = None,
) -> Any:
    """Describe images in this process, without a service. The models stay loaded for the next call.

    images: a path, a URL, bytes, an open file, a PIL image, a NumPy array (height, width, 3), a folder, several of
    these, or a data set of Hugging Face, whose images are in `column`. profile: its name, or the path of its TOML file;
    None: STRATA_PROFILE, or `everyday`. alt_text: of the image; a list of them for several; for a data set, the name of
    the column with them. variants ("short,tags"), language ("de") and prompt: as in `strata submit`. progress: a bar,
    by default if there is a terminal or a notebook; or a function that gets how many images are done, and of how many.

    Returns a DescribedImage for one image, DescribedImages for several, and for a data set a data set of the same kind
    with the columns `description` (the text) and `record`. An image of several that cannot be described is a failed
    record with its reason. Raises DescriptionFailed or OSError if it is the only one, InvalidInput for what can be no
    image, ProfileError, WeightsMissing (it says what to fetch), StageNotLoaded, StageUnavailable (a model's server is
    away), StageUnfit and StageBroken.
    """
    return shared().describe(
        images,
        profile,
        alt_text=alt_text,
        variants=variants,
        language=language,
        prompt=prompt,
        column=column,
        progress=progress,
    )


def shared() -> Describer:
    """The describer of this process that `describe` uses; after it was closed, a new one."""
    # a process that was forked must not use the models' threads of its parent
    process = os.getpid()
    found = _shared.get(process)
    if found is None or found.closed:
        _shared.pop(process, None)
        found = _shared.setdefault(process, Describer())  # of several threads at once one has made it
    return found


_shared: dict[int, Describer] = {}  # by the number of the process


def _each_of_shared(profile: str | Path | None, texts: Mapping[str, Any]) -> Each:
    return shared()._each_with(profile, texts)


def _named(name: str | Path | None, settings: Settings) -> Profile:
    return load_profile(str(name) if name is not None else settings.profile, settings.profiles_dir)


def _texts_of(variants: Any, language: str | None, prompt: str | None) -> TextSettings | None:
    """What texts are wanted, None if nothing is said. Raises InvalidInput."""
    if isinstance(variants, str):
        variants = [name.strip() for name in variants.split(",") if name.strip()]
    if not isinstance(variants, Iterable | None):
        raise InvalidInput(f"variants: names such as 'short,tags', or a list of them; not {variants!r:.50}")
    given = {"variants": list(variants) if variants is not None else None, "language": language, "prompt": prompt}
    fields: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    try:
        return TextSettings(**fields) if fields else None
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidInput(f"{first['loc'][0]}: {fault_line(first)}") from error


def _checked(described: DescribedImage) -> DescribedImage:
    """The only image that was given. Raises OSError if it cannot be read, and DescriptionFailed."""
    if described.status is not Status.FAILED:
        return described
    note = described.failure
    if note is not None and note.stage == "read" and note.transient:
        raise OSError(with_name(described.image.uri, note.detail))
    raise DescriptionFailed(described)


def _counted(found: Iterator[DescribedImage], total: int | None, show: Progress) -> Iterator[DescribedImage]:
    show(0, total)
    for done, described in enumerate(found, 1):
        yield described
        show(done, total)


@contextmanager
def _shown(progress: bool | Progress | None, total: int | None) -> Iterator[Progress]:
    """A function that shows how many images are done: the caller's own, that of a bar, or one that shows nothing."""
    if callable(progress):
        yield progress
        return
    wanted = progress if progress is not None else sys.stderr.isatty() or is_notebook()
    if not wanted or (total == 1 and progress is None):
        yield lambda done, total: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from strata.consoles import PlainConsole

    # in a notebook rich draws only with ipywidgets, and warns without them: a bar of plain text works in both
    console = PlainConsole(stderr=True, force_jupyter=False)
    columns = (TextColumn("described"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("described", total=total)
        yield lambda done, total: bar.update(task, completed=done, total=total)
