"""`strata keys`: make, list, limit and revoke API keys. The keys lie in the store: no service has to run."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from strata.cli.group import PlainGroup
from strata.cli.terminal import AsJson, StoreUri, open_store, output
from strata.errors import InvalidInput, fault_line

if TYPE_CHECKING:
    from rich.table import Table

    from strata.core import Quotas
    from strata.keys import ApiKey, Scope

app = typer.Typer(
    name="keys",
    cls=PlainGroup,
    help="Make, list, limit and revoke the API keys of a service. They lie in its store.",
    no_args_is_help=True,
)

_SPAN = re.compile(r"([1-9][0-9]{0,4})([hdw])")
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?) ?(?:([kMGT])(i?)B|B)?", re.IGNORECASE)
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}

LAST_SECOND = time(23, 59, 59, tzinfo=UTC)  # of a date
NONE = "none"  # the value of an option that removes a quota

Requests = Annotated[str | None, typer.Option("--requests-a-minute", metavar="N", help="Requests a minute.")]
Images = Annotated[str | None, typer.Option("--images-a-day", metavar="N", help="Images computed a day.")]
Chunks = Annotated[
    str | None,
    typer.Option("--chunks-queued", metavar="N", help="Single images, and chunks of batches, that wait at a time."),
]
Bytes = Annotated[str | None, typer.Option("--bytes-stored", metavar="SIZE", help="Of sent images, such as 10GB.")]
Cost = Annotated[
    str | None, typer.Option("--money-a-day", metavar="X", help="Cost of model servers a day, at the profiles' prices.")
]

KeyId = Annotated[str, typer.Argument(metavar="KEY", help="The key's id, as `strata keys list` shows it.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the key is for, as the list shows it.")],
    scopes: Annotated[
        str, typer.Option("--scopes", metavar="LIST", help="Of submit, read, review, admin, with commas.")
    ] = "submit,read",
    tenant: Annotated[str, typer.Option(metavar="NAME", help="Whose jobs it makes and sees.")] = "default",
    expires: Annotated[
        str | None,
        typer.Option(metavar="WHEN", help="After 12h, 30d or 8w, or with a date as 2027-01-31; none: never."),
    ] = None,
    requests: Requests = None,
    images: Images = None,
    chunks: Chunks = None,
    stored: Bytes = None,
    money: Cost = None,
    as_json: AsJson = False,
    store: StoreUri = None,
) -> None:
    """Make a key, and print its secret: it is shown once, and only its hash is stored.

    With the first key, a service that needed none needs one.
    """
    from strata.core import NO_QUOTAS, is_tenant
    from strata.keys import StoredKeys

    if not is_tenant(tenant):
        raise InvalidInput(f"--tenant: {tenant[:80]!r} is not lower-case letters, digits and -, at most 63 characters")
    if not 0 < len(name.strip()) <= 100 or not name.isprintable():
        raise InvalidInput("NAME: right are 1 to 100 printable characters")
    wanted, end = _scopes(scopes), None if expires is None else expiry_of(expires, datetime.now(UTC))
    quotas = changed_quotas(_given(requests, images, chunks, stored, money), NO_QUOTAS)
    key, secret = StoredKeys(open_store(store)).create(name.strip(), wanted, tenant, end, quotas)
    if as_json:
        typer.echo(_json([key], {key.id: secret})[0])
        return
    print(secret)
    print(f"strata: this is key {key.id}; its secret is not shown again", file=sys.stderr)


@app.command("list")
def list_keys(as_json: AsJson = False, store: StoreUri = None) -> None:
    """List the keys: tenant, scopes, quotas, and whether each is active, expired or revoked."""
    from strata.keys import StoredKeys

    keys, faults = StoredKeys(open_store(store)).all()
    if as_json:
        typer.echo(f"[{','.join(_json(keys))}]")
    elif keys:
        output().print(_table(keys))
    else:
        print("there is no key")
    if faults:
        raise faults[0]


@app.command()
def limit(
    key: KeyId,
    requests: Requests = None,
    images: Images = None,
    chunks: Chunks = None,
    stored: Bytes = None,
    money: Cost = None,
    as_json: AsJson = False,
    store: StoreUri = None,
) -> None:
    """Change what a key may use; `none` removes a quota. Services hold to it within five seconds."""
    from strata.keys import StoredKeys

    given = _given(requests, images, chunks, stored, money)
    if not given:
        raise InvalidInput("give at least one quota, such as --images-a-day 1000; `none` removes one")
    changed = StoredKeys(open_store(store)).limit(key, lambda before: changed_quotas(given, before))
    if as_json:
        typer.echo(_json([changed])[0])
    else:
        print(f"key {changed.id} ({changed.name}): {quota_words(changed.quotas) or 'no quotas'}")


@app.command()
def revoke(
    key: KeyId,
    as_json: AsJson = False,
    store: StoreUri = None,
) -> None:
    """Revoke a key for good. Services refuse it within five seconds."""
    from strata.keys import StoredKeys

    revoked = StoredKeys(open_store(store)).revoke(key)
    if as_json:
        typer.echo(_json([revoked])[0])
    else:
        print(f"key {revoked.id} ({revoked.name}) is revoked")


def expiry_of(text: str, now: datetime) -> datetime:
    """When a key expires: after a time, or with the last second of a date in UTC. Raises InvalidInput."""
    try:
        moment = _moment(text.strip(), now)
    except (ValueError, OverflowError):
        raise InvalidInput(
            f"--expires: {text[:80]!r} is neither 12h, 30d or 8w nor a date such as 2027-01-31"
        ) from None
    if moment <= now:
        raise InvalidInput(f"--expires: {text[:80]!r} is over")
    return moment


def _moment(text: str, now: datetime) -> datetime:
    """Raises ValueError and OverflowError."""
    span = _SPAN.fullmatch(text)
    if span is not None:
        return now + int(span[1]) * _UNITS[span[2]]
    with suppress(ValueError):  # a date, however ISO 8601 writes it: so that it is listed as this date
        return datetime.combine(date.fromisoformat(text), LAST_SECOND)
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)


def _given(*texts: str | None) -> dict[str, str]:
    """The quotas that are given, by their names in `Quotas`, in whose order the texts are."""
    from strata.core import Quotas

    return {name: text for name, text in zip(Quotas.model_fields, texts, strict=True) if text is not None}


def changed_quotas(given: Mapping[str, str], before: Quotas) -> Quotas:
    """Quotas with those that are given as texts of options, by their names. Raises InvalidInput."""
    from pydantic import ValidationError

    from strata.core import Quotas

    values: dict[str, Any] = {}
    for name, text in given.items():
        value = text.strip().replace(",", "")
        if value.lower() == NONE:
            values[name] = None
        else:
            values[name] = _bytes_in(value) if name == "bytes_stored" else value
    try:
        return Quotas.model_validate({**before.model_dump(), **values})
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        told = f"{given.get(name, '')[:80]!r}: {fault_line(first)}, or {NONE}"
        raise InvalidInput(f"--{name.replace('_', '-')} {told}") from None


def _bytes_in(text: str) -> int | str:
    """A size in bytes; the text itself if it is none."""
    found = _SIZE.fullmatch(text)
    if found is None:
        return text
    unit: int = (1024 if found[3] else 1000) ** ("kmgt".index(found[2].lower()) + 1 if found[2] else 0)
    return round(float(found[1]) * unit)


def quota_words(quotas: Quotas) -> str:
    """Quotas in one line; the empty text if there is none."""
    words = {
        "requests_a_minute": "{:,} requests/min",
        "images_a_day": "{:,} images/day",
        "chunks_queued": "{:,} queued",
        "bytes_stored": "{:,} bytes",
        "money_a_day": "{:g} money/day",
    }
    given = quotas.model_dump(exclude_none=True)
    return ", ".join(text.format(given[name]) for name, text in words.items() if name in given)


def _scopes(text: str) -> list[Scope]:
    from strata.keys import Scope

    names = [name.strip() for name in text.split(",") if name.strip()]
    wrong = [name for name in names if name not in [scope.value for scope in Scope]]
    if wrong or not names:
        raise InvalidInput(f"--scopes: {(wrong or [text])[0][:80]!r} is none of {', '.join(Scope)}")
    return [Scope(name) for name in names]


def _json(keys: Sequence[ApiKey], secrets: dict[str, str] | None = None) -> list[str]:
    """Each key as a JSON object, without the hash of its secret. secrets: of new keys, by their ids."""
    import json

    found = []
    for key in keys:
        shown: dict[str, Any] = key.model_dump(mode="json", exclude={"sha256"}) | {"status": key.status()}
        found.append(json.dumps(shown | ({"secret": secrets[key.id]} if secrets else {}), ensure_ascii=False))
    return found


def _table(keys: Sequence[ApiKey]) -> Table:
    """The keys, so that a row of usual names fits into 80 columns."""
    from rich.table import Table

    from strata.cli.rendering.records import clean

    table = Table(box=None, pad_edge=False, header_style="bold")
    # most installations have no quotas
    limited = ["quotas"] if any(key.quotas.exist for key in keys) else []
    for title in ("key", "tenant", "name", "scopes", "expires", "status", *limited):
        table.add_column(title, no_wrap=title in ("key", "expires", "status"), overflow="fold")
    for key in keys:
        end = f"{key.expires_at.astimezone(UTC):%Y-%m-%dT%H:%MZ}" if key.expires_at else "never"
        quotas = [quota_words(key.quotas)] if limited else []
        table.add_row(key.id, key.tenant, clean(key.name), ",".join(key.scopes), end, key.status(), *quotas)
    return table
