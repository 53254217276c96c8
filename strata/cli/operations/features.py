"""`strata features`: hashes, scores and embeddings of described images, in parts of their own. No service need run."""

from __future__ import annotations

import itertools
import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from strata.cli.terminal import AsJson, Moved, StoreUri, open_store, steps
from strata.components import load
from strata.counts import counted
from strata.errors import InvalidInput, StrataError

if TYPE_CHECKING:
    from strata.core import Profile
    from strata.store import Part, Store

Sources = Annotated[
    list[str], typer.Argument(metavar="JOB|DATASET", help="Jobs, profiles or fingerprints: whose images.")
]
Asking = Annotated[
    str | None,
    typer.Option("--profile", metavar="NAME|FILE", help="Whose stages are computed; none: that of the rows."),
]
Stages = Annotated[
    list[str] | None, typer.Option("--stage", metavar="NAME", help="Only this stage; may be repeated; none: all.")
]
Slice = Annotated[
    str | None, typer.Option(metavar="I/N", help="Only the parts of the I-th of N processes that share the work.")
]
SingleImages = Annotated[bool, typer.Option("--single-images", help="Of a profile, also images sent one by one.")]


def features(
    sources: Sources,
    profile: Asking = None,
    stage: Stages = None,
    share: Slice = None,
    single_images: SingleImages = False,
    as_json: AsJson = False,
    root: Moved = None,
    store: StoreUri = None,
) -> None:
    """Compute features of described images: hashes, scores, faces, embeddings.

    What a profile's stages of the group `features` have computed before is not computed again. Snapshots filter by the
    values and find duplicates with them. Nothing that is described is changed.
    """
    from strata.core import load_settings
    from strata.store import PartsOf

    opened, settings = open_store(store, root), load_settings()
    parts = _sliced(PartsOf(opened).sources(sources, single_images), share)
    asked = _profile(opened, parts, profile)
    load("workers.engines.groups", "workers").quiet_libraries(settings.threads)
    run = load("workers.features", "workers").FeatureRun(opened, asked, stage or (), settings.max_pixels)
    missing = run.missing(parts)
    with steps() as show:
        done = itertools.count(1)
        totals = run.run(missing, lambda _: show("parts with features", next(done), len(missing)))
    _tell(totals, as_json, len(parts) - len(missing))


def _tell(totals: Any, as_json: bool, there: int) -> None:
    """Print what was computed. Raises StrataError if whole parts could not be computed."""
    if as_json:
        print(json.dumps({**vars(totals), "there": there}))
    else:
        for name in totals.parts:
            rows = f"{counted(totals.succeeded[name], 'row')}, {totals.failed[name]:,} without"
            print(f"{name}: {counted(totals.parts[name], 'part')} with {rows}")
        if there:
            print(f"{counted(there, 'part')} had all before")
        if totals.gone:
            print(f"{counted(totals.gone, 'part')} deleted meanwhile")
    for line in totals.unread:
        print(f"strata: {line}", file=sys.stderr)
    if totals.unread:
        raise StrataError(f"{counted(len(totals.unread), 'part')} could not be computed: see the reasons above")


def _profile(store: Store, parts: list[Part], name: str | None) -> Profile:
    """The profile of a name or a file; without one that of the rows, as it is now. Raises InvalidInput."""
    from strata.cli.profiles import file_of
    from strata.core import read_profile
    from strata.store import provenance_of

    if not parts:
        raise InvalidInput("there are no rows")
    if name is None:
        names = {provenance_of(store, fingerprint).profile for fingerprint in {part.fingerprint for part in parts}}
        if len(names) != 1 or None in names:
            raise InvalidInput("the rows are not those of one profile that is known: name one with --profile")
        name = str(names.pop())
    return read_profile(file_of(name))


def _sliced(parts: list[Part], share: str | None) -> list[Part]:
    """Every N-th part, from the I-th on, for I/N. Raises InvalidInput."""
    if share is None:
        return parts
    number, _, count = share.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise InvalidInput(f"--share {share!r}: expected I/N, such as 1/4 for the first of four")
    return parts[int(number) - 1 :: int(count)]
