"""The command `search`: rows of a job, a snapshot or the whole store, found by the service."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from strata.cli.terminal import DEFAULT_URL, ApiKey, AsJson, Url, open_client, output

if TYPE_CHECKING:
    from strata.core import SearchPage

# repeats a type of strata.search, because importing that loads DuckDB
RowOrder = Literal["store", "best", "worst", "longest", "shortest"]
Named = list[str] | None
# the options that say which rows, by the names of the service's parameters
FILTERS = (
    *("job", "snapshot", "thing", "tag", "dropped", "cut", "failure", "status", "key"),
    *("has_text", "score_min", "score_max", "words_min", "words_max"),
)


def _several(help_text: str) -> Any:
    return typer.Option(help=f"{help_text}; may be repeated.")


def search(
    words: Annotated[
        str, typer.Argument(metavar="WORDS", help="Words that the texts must have, as 'red car -dog'; -word: not it.")
    ] = "",
    job: Annotated[str | None, typer.Option(help="Only rows of this job.")] = None,
    snapshot: Annotated[str | None, typer.Option(help="Only rows of this snapshot: its name or id.")] = None,
    thing: Annotated[Named, _several("With a kept thing of this noun")] = None,
    tag: Annotated[Named, _several("With this kept tag")] = None,
    dropped: Annotated[Named, _several("With an entry that was dropped for this reason")] = None,
    cut: Annotated[Named, _several("With a sentence that was cut for this reason")] = None,
    failure: Annotated[Named, _several("That failed with this error type, or by this rule")] = None,
    status: Annotated[Named, _several("succeeded, filtered or failed: one of these")] = None,
    key: Annotated[str | None, typer.Option(help="Whose key contains this text.")] = None,
    has_text: Annotated[
        bool | None, typer.Option("--text/--no-text", help="With or without text in the image.")
    ] = None,
    score_min: Annotated[float | None, typer.Option(min=0, max=1, help="The least mean match of kept entries.")] = None,
    score_max: Annotated[float | None, typer.Option(min=0, max=1, help="The greatest one.")] = None,
    words_min: Annotated[int | None, typer.Option(min=0, help="The fewest words of the description.")] = None,
    words_max: Annotated[int | None, typer.Option(min=0, help="The most words.")] = None,
    order: Annotated[RowOrder, typer.Option(help="As in the store, by score, or by words.")] = "store",
    limit: Annotated[int, typer.Option(min=1, max=200, help="Maximum number of rows.")] = 20,
    cursor: Annotated[str | None, typer.Option(help="Continue an earlier search.")] = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """Find rows by words, things, reasons and figures. Exits with 0 also if nothing is found.

    Words that begin with a minus sign come after `--`: strata search -- '-dog'.
    """
    given = {name: value for name, value in locals().items() if name in FILTERS and value is not None}
    with open_client(url, api_key) as client:
        page = client.search(words, order, limit, cursor, **given)
    _show(page, as_json)
    _tell(page, words, given | ({} if order == "store" else {"order": order}) | {"limit": limit, "json": as_json})


def _show(page: SearchPage, as_json: bool) -> None:
    from strata.cli.rendering import records as render

    if as_json:
        print(page.model_dump_json())
    else:
        output().print(render.hit_table(page.rows))


def _tell(page: SearchPage, words: str, given: dict[str, Any]) -> None:
    """Say on stderr how many rows there are, what is not there, and the command for the next page."""
    from strata.cli.rendering.records import clean
    from strata.counts import counted

    lines = [f"{counted(page.total, 'row')} in all", *page.hints]
    if page.waiting:
        lines.append(f"{counted(page.waiting, 'part')} not indexed yet, whose rows are not found")
    lines += [f"passed over: {reason}" for reason in page.broken]
    for line in lines:
        print(f"strata: {clean(line)}", file=sys.stderr)
    if page.next:
        options = [text for name, value in given.items() for text in _option(name, value)]
        command = shlex.join(["strata", "search", *options, "--cursor", page.next, *(["--", words] if words else [])])
        print(f"more: {clean(command)}", file=sys.stderr)


def _option(name: str, value: Any) -> list[str]:
    if name == "has_text":
        return ["--text" if value else "--no-text"]
    if name == "json":
        return ["--json"] if value else []
    values = value if isinstance(value, list) else [value]
    return [text for one in values for text in (f"--{name.replace('_', '-')}", str(one))]
