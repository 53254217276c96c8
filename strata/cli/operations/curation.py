"""`strata snapshot hashes | left-out | clusters`: what a selection compares with, leaves out and finds to be one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from strata.cli.terminal import AsJson, StoreUri, open_store, output, progress
from strata.components import load
from strata.counts import counted
from strata.errors import InvalidInput

if TYPE_CHECKING:
    from strata.snapshots import Benchmarks

Name = Annotated[str, typer.Argument(metavar="NAME", help="A snapshot's name, or its id.")]
Pictures = Annotated[list[Path], typer.Argument(metavar="FOLDER|FILE", help="Pictures of benchmarks.")]
Out = Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="Where to write the hashes: .parquet.")]
Embedding = Annotated[
    str | None, typer.Option("--profile", metavar="NAME|FILE", help="Also embeddings, by this profile's stage.")
]
Limit = Annotated[int, typer.Option(min=1, help="Most rows that are shown.")]


def hashes(pictures: Pictures, out: Out, profile: Embedding = None) -> None:
    """Hash the pictures of benchmarks, for `snapshot create --without FILE`.

    The file has hashes and thumbnails of 32 × 32 pixels. With --profile it has embeddings too, for `--same embedding`.
    """
    from strata.data import hash_pictures, picture_files
    from strata.snapshots import write_benchmarks

    if not out.absolute().parent.is_dir():
        raise InvalidInput(f"--out {out}: its folder does not exist")
    files = picture_files(pictures)
    with progress() as bar:
        task = bar.add_task("pictures", total=len(files))
        found, refused = hash_pictures(files, lambda number: bar.advance(task, number))
        if profile is not None:
            found = _embedded(found, profile)
    write_benchmarks(out, found)
    for line in refused:
        print(f"strata: {line}", file=sys.stderr)
    print(f"{out}: {counted(len(found.names), 'picture')}, {len(refused):,} that cannot be read")


def _embedded(found: Benchmarks, profile: str) -> Benchmarks:
    """The hashes with the embeddings of their pictures. Raises InvalidInput."""
    from strata.cli.profiles import file_of
    from strata.core import load_settings, read_profile

    settings = load_settings()
    load("workers.engines.groups", "workers").quiet_libraries(settings.threads)
    embed = load("workers.features", "workers").embed_pictures
    return embed(found, read_profile(file_of(profile)), settings.max_pixels)  # type: ignore[no-any-return]


def left_out(name: Name, limit: Limit = 100, as_json: AsJson = False, store: StoreUri = None) -> None:
    """Show the rows that a snapshot's rules leave out: the rule, and the values that it reads.

    The rows are still described; a snapshot without the rule has them. Own scores and benchmarks are not repeated.
    """
    from strata.snapshots import Snapshots

    found = Snapshots(open_store(store)).open(name).left_out()
    for number, row in enumerate(found):
        if number == limit and not as_json:
            print(f"there are more: --limit {limit} shows these", file=sys.stderr)
            break
        if as_json:
            print(json.dumps(vars(row)))
        else:
            values = ", ".join(f"{column} {_short(value)}" for column, value in row.values.items())
            print(f"{row.key}\t{row.rule}\t{values}")


def clusters(name: Name, as_json: AsJson = False, store: StoreUri = None) -> None:
    """Show which rows show the same picture, as a snapshot with --unique has found, and which of them stay."""
    from strata.snapshots import Snapshots

    snapshot = Snapshots(open_store(store)).open(name)
    table = snapshot.with_keys(snapshot.clusters()).sort_by("cluster")
    if as_json:
        for row in table.to_pylist():
            print(json.dumps(row))
        return
    groups: dict[int, list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        groups.setdefault(row["cluster"], []).append(row)
    for rows in groups.values():
        stays = [row["key"] for row in rows if row["kept"]]
        others = [row["key"] for row in rows if not row["kept"]]
        output().print(f"{', '.join(stays)} ← {', '.join(others)}", markup=False, highlight=False)
    print(f"{counted(len(groups), 'cluster')} with {counted(table.num_rows, 'row')}", file=sys.stderr)


def _short(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else " ".join(str(value).split())
    return text if len(text) <= 80 else f"{text[:79]}…"
