"""The options of `strata snapshot create`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from strata.cli.terminal import not_empty

Sources = Annotated[
    list[str],
    typer.Option(
        "--from",
        metavar="JOB|DATASET",
        help="A job, a profile or a fingerprint; may be repeated.",
        callback=not_empty,
    ),
]
By = Annotated[
    list[str] | None,
    typer.Option(metavar="FEATURE[:EDGES]", help="A feature to balance by, such as cluster:512; may be repeated."),
]
Target = Annotated[
    list[str] | None,
    typer.Option(metavar="FEATURE=LABEL:SHARE", help="The share of a label; none: equal shares; may be repeated."),
]
Count = Annotated[int | None, typer.Option(min=1, help="Number of rows; none: all.")]
Share = Annotated[float | None, typer.Option(help="Share of the rows that pass: 0 to 1.")]
Where = Annotated[str | None, typer.Option(help='Which rows pass: "objects >= 2 and text".', callback=not_empty)]
Cap = Annotated[int | None, typer.Option(min=1, help="Rows that each concept keeps, on average.")]
Concepts = Annotated[
    list[str] | None,
    typer.Option("--concepts", metavar="nouns|tags", help="What --cap and --select concepts balance; may be repeated."),
]
Quality = Annotated[
    str | None, typer.Option(metavar="EXPRESSION", help="What a row is worth to best and diverse: 'aesthetic * match'.")
]
Quotas = Annotated[
    list[str] | None,
    typer.Option("--quota", metavar="SOURCE=MOST", help="At most so many rows, or 30%, of a source; may be repeated."),
]
SelectionPath = Annotated[
    Path | None,
    typer.Option("--selection", metavar="FILE", help="A TOML file of these options; those given here come first."),
]
Plot = Annotated[Path | None, typer.Option(metavar="FILE", help="Save the composition: .png, .svg, .pdf.")]
Scores = Annotated[Path | None, typer.Option(metavar="FILE", help="Columns for --where by `key`: .parquet or .csv.")]
Exclude = Annotated[Path | None, typer.Option(metavar="FILE", help="Keys of rows to leave out, one a line.")]
Accept = Annotated[bool, typer.Option("--accept-shortfall", help="Take what is there if a target cannot be met.")]
SingleImages = Annotated[
    bool, typer.Option("--single-images", help="With --from PROFILE, also images that were sent one by one.")
]
Tenant = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="To whom it belongs; none: to the tenant of its jobs, if they have one."),
]
Like = Annotated[str | None, typer.Option(metavar="NAME", help="The selection of another snapshot.")]
# the same place or listed SHA-256, equal bytes, pixels, alike, also mirrored, also cropped, embeddings near each other
Same = Literal["near", "bytes", "listed", "pixels", "mirrored", "cropped", "embedding"]
Keep = Literal["first", "largest", "best"]
Without = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Leave out the pictures of a file of `snapshot hashes`.")
]
FeaturesOf = Annotated[
    str | None,
    typer.Option("--features", metavar="NAME|FILE", help="The profile whose features are read, if there are several."),
]
LeaveOut = Annotated[
    list[str] | None,
    typer.Option("--leave-out", metavar="NAME=FILTER", help="Leave rows out, and count them; False: none; repeatable."),
]
BetterBy = Annotated[
    list[str] | None,
    typer.Option(
        "--better",
        metavar="FEATURE",
        help="Of an image that is described twice keep the row with the higher value, or review; repeatable for ties.",
    ),
]
Method = Literal["random", "balanced", "best", "concepts", "diverse"]
HELP = """Select rows of jobs and store the selection under a name.

A data set is all rows of one profile, named by it or by the fingerprint, without images that were sent one by one
(POST /v1/captions). What the rows' profile leaves out is left out, unless --leave-out has a filter of the name.
First --exclude, --leave-out and --where say which rows pass; then --better chooses among those of one image.

random: by chance. balanced: equally many of each label of the features of --by. best: by what was found for the
texts, or --quality. concepts: fewer of those that name what many name. diverse: of each cluster of embeddings the
best and the most different ones first.
"""
