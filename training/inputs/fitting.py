"""Which samples fit the longest conversation of a training, told before it by the training's own code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice

from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from strata.data import Locations, Mixture, MixtureFile, SampleReader, SkipLimit, SourceCheck
from strata.data.mixtures import Share
from strata.errors import IncompleteData
from training.config import Config
from training.inputs.collation import Collator, Fit, limit_images
from training.inputs.examples import example_of
from training.inputs.lengths import check_longest
from training.inputs.processors import load_processor

MOST = 500  # samples of a source that are looked at by default

Show = Callable[[str, int, int], object]


def check_fitting(
    config: Config,
    file: MixtureFile,
    locations: Locations,
    checks: Sequence[SourceCheck],
    show: Show,
    most: int | None = MOST,
) -> None:
    """Collate samples of every source that can be opened, as the training of a configuration does.

    checks: of `check_mixture`; they get the number of samples that the training leaves out, and a note, or a problem if
    the training would stop for them. show: called with a source's name and how many of its samples are done. most: of
    each source, chosen by the configuration's seed; None: all. Raises ConfigError if no image fits `longest`.
    """
    processor = load_processor(config)
    largest = limit_images(processor, config)
    check_longest(processor, config)
    inner = DataCollatorForVisionLanguageModeling(processor=processor, assistant_only_loss=True)
    for settings, check in zip(file.sources, checks, strict=True):
        if check.supply is None:
            continue
        source = locations.open(settings)
        share = Share(settings.name, check.task, source, len(source), settings.instruction)
        # samples that cannot be read are another check's
        reader = SampleReader(Mixture([share]), config.seed, limit=SkipLimit(1.0))
        example = partial(example_of, windows=config.windows)
        collator = Collator(inner, [], example, reader, config.longest, largest)
        fits: list[Fit] = []
        number = len(source) if most is None else min(most, len(source))
        try:
            for sample in islice(reader, number):
                if not sample.skipped:
                    fits.append(collator.fit(sample))
                show(f"{settings.name}: fitting", len(fits), number)
        except IncompleteData as error:
            check.problem = check.problem or str(error)
        _tell(check, fits, config)


def _tell(check: SourceCheck, fits: Sequence[Fit], config: Config) -> None:
    refused = [fit.refused for fit in fits if fit.refused]
    check.unfit = len(refused)
    of = f"of {len(fits):,} samples that were tried for the training"
    lines = []
    if refused:
        line = f"{of}, {len(refused):,} do not fit and are left out; the first: {refused[0]}"
        if len(refused) > config.skip_limit * len(fits) or config.on_error == "stop":
            check.problem = f"{check.problem}; {line}" if check.problem else line
        else:
            lines.append(line)
    if cut := sum(fit.cut for fit in fits):
        lines.append(f"{of}, {cut:,} are cut after {config.longest:,} tokens")
    if smaller := sum(fit.smaller for fit in fits):
        lines.append(f"{of}, {smaller:,} have images that are made smaller")
    check.note = "; ".join([*([check.note] if check.note else []), *lines]) or None
