"""The group of the commands `strata snapshot`, in the order of its help."""

from __future__ import annotations

import typer

from strata.cli.group import PlainGroup
from strata.cli.operations import curation
from strata.cli.publishing.card import card
from strata.cli.snapshot.changes import delete, split
from strata.cli.snapshot.creation import create
from strata.cli.snapshot.options import HELP
from strata.cli.snapshot.views import diff, features, list_snapshots, show

app = typer.Typer(
    name="snapshot",
    cls=PlainGroup,
    help="Choose and pin the rows that training reads.",
    no_args_is_help=True,
)
app.command(help=HELP)(create)
app.command("list")(list_snapshots)
for _command in (split, delete, show, diff, features, curation.hashes, curation.left_out, curation.clusters, card):
    app.command()(_command)
