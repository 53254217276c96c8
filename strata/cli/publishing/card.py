"""`strata snapshot card`: the data card of a snapshot, before anything is exported."""

from __future__ import annotations

from typing import Annotated

import typer

from strata.cli.export import Creator, Languages, License, Page, Title
from strata.cli.terminal import StoreUri, open_store


def card(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A snapshot's name, or its id.")],
    title: Title = None,
    license: License = None,
    language: Languages = None,
    creator: Creator = None,
    url: Page = None,
    store: StoreUri = None,
) -> None:
    """Print the data card of a snapshot as Markdown: rules, counts, models, prompts, checks, truth rate, limits.

    `strata export` writes the card of an export beside its data.
    """
    from strata.publishing import About, card_of, facts_of
    from strata.snapshots import Snapshots

    about = About(title, license, tuple(language or ()), creator, url)
    opened = open_store(store)
    print(card_of(facts_of(opened, Snapshots(opened).open(name), about)), end="")
