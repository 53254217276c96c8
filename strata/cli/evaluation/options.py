"""What `strata evaluate` and `strata report` both take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from strata.errors import InvalidInput

Source = Annotated[str, typer.Argument(metavar="JOB|SNAPSHOT", help="A job, a snapshot, a profile or a fingerprint.")]
TruthFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--truth",
        metavar="FILE",
        exists=True,
        dir_okay=False,
        help="Annotations of COCO or Visual Genome; may be repeated.",
    ),
]
Images = Annotated[int, typer.Option("--images", min=1, help="Most images that are measured.")]
Seed = Annotated[int, typer.Option(help="Seed of the choice of images and of the resamples.")]
Resamples = Annotated[int, typer.Option(min=100, max=100_000, help="Resamples of the bootstrap.")]


def check_writable(out: Path | None) -> None:
    """Refuse a path that cannot be written before anything is measured. Raises InvalidInput."""
    if out is not None and (out.is_dir() or not out.absolute().parent.is_dir()):
        raise InvalidInput(f"--out {out}: {'a folder' if out.is_dir() else 'its folder does not exist'}")
