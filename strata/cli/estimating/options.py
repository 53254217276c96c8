"""The options of a dry run, which `submit` and `run` share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from strata.errors import InvalidInput

if TYPE_CHECKING:
    from strata.core import JobSample

DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Tell what it would take: time, tokens, money; with -n by trying images.")
]
Images = Annotated[
    int | None,
    typer.Option("-n", "--images", metavar="NUMBER", help="--dry-run: describe so many random images first."),
]
Seed = Annotated[int | None, typer.Option(min=0, help="--dry-run -n: the same seed takes the same images.")]


def sample_of(dry_run: bool, images: int | None, seed: int | None, default: int | None = None) -> JobSample | None:
    """The sample that the options of a dry run ask for, None if none. default: its images without -n.

    Raises InvalidInput for options that do not belong together, and for too few or too many images.
    """
    from strata.core import MAX_SAMPLE, JobSample

    if not dry_run:
        if images is not None or seed is not None:
            raise InvalidInput("-n and --seed belong to --dry-run")
        return None
    images = default if images is None else images
    if images is None:
        if seed is not None:
            raise InvalidInput("--seed is of the images that -n takes")
        return None
    if not 1 <= images <= MAX_SAMPLE:
        raise InvalidInput(f"-n {images}: a sample has 1 to {MAX_SAMPLE:,} images")
    return JobSample(images=images, seed=seed or 0)
