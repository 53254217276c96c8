"""Arguments of the command line, converted to values of the REST API."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import SecretStr, ValidationError

from strata.cli.terminal import stdin
from strata.core import Budget, TextSettings, WebhookTarget
from strata.errors import InvalidInput, fault_line

WEBHOOK_SECRET = "STRATA_WEBHOOK_SECRET"
MAX_LIST = 16 * 2**20  # characters of a list of shards; the service reads as many bytes


def pairs_of(texts: Iterable[str], option: str = "--metadata") -> dict[str, str]:
    """KEY=VALUE texts of an option as a mapping. Raises InvalidInput for a text without `=`."""
    pairs: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise InvalidInput(f"{option} {text!r}: expected KEY=VALUE")
        pairs[name] = value
    return pairs


def budget_of(tokens: int | None, money: float | None) -> Budget | None:
    """The budget of a submission, None if neither limit is given. Raises InvalidInput for a bad limit."""
    if tokens is None and money is None:
        return None
    try:
        return Budget(tokens=tokens, money=money)
    except ValidationError as error:
        # name the option instead of the model's field
        first = error.errors()[0]
        raise InvalidInput(f"--budget-{first['loc'][0]}: {fault_line(first)}") from error


def texts_of(variants: str | None, language: str | None, prompt: str | None) -> TextSettings | None:
    """What texts are wanted, None if no option is given. Raises InvalidInput for a bad value."""
    given = {"variants": variants, "language": language, "prompt": prompt}
    fields: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if variants is not None:
        fields["variants"] = [name.strip() for name in variants.split(",") if name.strip()]
    try:
        return TextSettings(**fields) if fields else None
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidInput(f"--{first['loc'][0]}: {fault_line(first)}") from error


def webhook_of(url: str | None) -> WebhookTarget | None:
    """Whom the job's end is told, None if nobody. The secret is no option, because others can read a command line.

    Raises InvalidInput without a secret, and for one that is none.
    """
    if url is None:
        return None
    secret = os.environ.get(WEBHOOK_SECRET, "").strip()
    if not secret:
        raise InvalidInput(
            f"--webhook: set {WEBHOOK_SECRET} to what the receiver knows; `strata webhooks secret` makes one"
        )
    try:
        return WebhookTarget(url=url, secret=SecretStr(secret))
    except ValidationError as error:
        first = error.errors()[0]
        where = WEBHOOK_SECRET if first["loc"][0] == "secret" else "--webhook"
        raise InvalidInput(f"{where}: {fault_line(first)}") from error


def chosen_of(
    shards: Sequence[str] | None, sources: Sequence[str] | None, where: str | None, upload: bool = False
) -> dict[str, Any]:
    """The arguments of `Client.submit` for rows of other jobs; none if there are shards. Raises InvalidInput."""
    if bool(shards) == bool(sources):
        raise InvalidInput("name SHARDs, or with --from the jobs or snapshots whose images are described once more")
    if where is not None and not sources:
        raise InvalidInput("--where chooses rows of what --from names: add --from JOB, or --from SNAPSHOT")
    if upload and sources:
        raise InvalidInput("--upload sends images, and --from takes those that are described: leave one of them out")
    return {"from_": sources, "where": where} if sources else {}


def shards_of(arguments: Iterable[str]) -> Iterable[str]:
    """Shards as the service accepts them: the lines of an @FILE (@- is stdin), and local paths made absolute.

    A list has one shard a line; empty lines and lines that begin with # are skipped. Ranges and globs are not
    expanded. A path whose folder does not exist here is not changed: it may exist on the service's machine. Raises
    OSError if a list is missing, and InvalidInput if it has more than MAX_LIST characters.
    """
    for argument in arguments:
        if argument.startswith("@"):
            lines = (line.strip() for line in _list_text(argument).splitlines())
            yield from (_absolute(line) for line in lines if line and not line.startswith("#"))
        else:
            yield _absolute(argument)


def _list_text(argument: str) -> str:
    """The text of an @FILE. It may come from a program that never ends."""
    if argument == "@-":
        text = stdin().read(MAX_LIST + 1)
    else:
        with Path(argument[1:]).open(encoding="utf-8") as file:
            text = file.read(MAX_LIST + 1)
    if len(text) > MAX_LIST:
        raise InvalidInput(f"{argument}: a list of more than {MAX_LIST:,} characters")
    return text


def _absolute(shard: str) -> str:
    """Make a path absolute if the folder before its first range or glob exists on this machine."""
    folder = re.split(r"[*?\[{]", shard, maxsplit=1)[0].rpartition("/")[0]
    known = Path(folder or ("/" if shard.startswith("/") else ".")).is_dir()
    return str(Path(shard).absolute()) if known and "://" not in shard else shard
