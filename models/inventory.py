"""The bodies of `strata models fetch`, `list` and `check`: which weights of a profile are on this machine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from models.base import WeightsMissing
from models.weights.cache import Found, cache_folder, check
from models.weights.downloads import Order, Source, deliver, order
from models.weights.folders import Folder
from models.weights.hub import Hub
from strata.core import StageSettings, load_profile

PROFILES = Path(__file__).parent / "profiles"
Stages = dict[str, StageSettings]
Action = Callable[[Stages, Source, Console], dict[str, Found]]
Key = tuple[str, str, str]  # model, revision, back end: what decides which files a stage needs


def fetch(profile: str, profiles: Path | None, folder: Path | None, as_json: bool) -> bool:
    """Fetch what is missing from `folder`, else the hub, and print each stage's state; whether all weights are whole.

    profiles: the folder of the profiles, None for Strata's own. Raises ProfileError.
    """
    return _run(_fetch, profile, profiles, folder, as_json)


def list_weights(profile: str, profiles: Path | None, folder: Path | None, as_json: bool) -> bool:
    """Print each stage's state by the files' sizes, and how much there is to fetch; whether all weights are there."""
    return _run(_list, profile, profiles, folder, as_json)


def check_weights(profile: str, profiles: Path | None, as_json: bool) -> bool:
    """Compare the weights with their checksums and print each stage's state; whether all weights are whole."""
    return _run(_check, profile, profiles, None, as_json)


def _run(act: Action, profile: str, profiles: Path | None, folder: Path | None, as_json: bool) -> bool:
    stages = load_profile(profile, profiles or PROFILES, pinned=False).stages
    source: Source = Folder(folder) if folder else Hub()
    found = act(stages, source, Console(stderr=True, highlight=False, soft_wrap=True))
    for name in stages:
        _tell(name, found[name], as_json=as_json)
    return all(one.state in ("ready", "none") for one in found.values())


def _list(stages: Stages, source: Source, console: Console) -> dict[str, Found]:
    """Compare sizes only; of what is missing, ask the source for the number of bytes."""

    def look(settings: StageSettings) -> Found:
        found = check(settings, thorough=False)
        if found.state != "missing":
            return replace(found, lacking=0 if found.state in ("ready", "none") else None)
        try:
            return replace(found, lacking=order(settings, source).lacking)
        except WeightsMissing as error:
            return replace(found, detail=f"{found.detail}; {error}")

    found = _each(stages, look, console)
    total = sum({_key(stages[name]): one.lacking or 0 for name, one in found.items()}.values())
    unknown = any(one.lacking is None for one in found.values())
    if total or unknown:
        _tell_room(total, console, "at least " if unknown else "")
    return found


def _check(stages: Stages, source: Source, console: Console) -> dict[str, Found]:
    return _each(stages, check, console)


def _fetch(stages: Stages, source: Source, console: Console) -> dict[str, Found]:
    """Fetch all that is missing, or nothing if the disk is too small; one that fails does not stop the others."""
    # First the sizes of everything, so that too small a disk is reported before the first byte.
    missing: dict[Key, Order] = {}

    def look(settings: StageSettings) -> Found:
        wanted = order(settings, source)
        if wanted.found is None:
            missing[_key(settings)] = wanted
        return wanted.found or Found(settings.model, "missing", "not fetched", lacking=wanted.lacking)

    found = _each(stages, look, console)
    if not missing or not _tell_room(sum(wanted.lacking for wanted in missing.values()), console):
        return found
    # Then the bytes, with one progress bar over all stages.
    with _progress(sum(wanted.lacking for wanted in missing.values()), console) as advance:

        def bring(settings: StageSettings) -> Found:
            wanted = missing[_key(settings)]
            console.print(f"{settings.model}: fetching {_bytes(wanted.lacking)}")
            return deliver(wanted, source, advance)

        lacking = {name: settings for name, settings in stages.items() if _key(settings) in missing}
        return found | _each(lacking, bring)


def _key(settings: StageSettings) -> Key:
    return settings.model, settings.revision, settings.backend


def _each(stages: Stages, act: Callable[[StageSettings], Found], console: Console | None = None) -> dict[str, Found]:
    """What `act` finds for each stage; stages with the same weights are asked once. console: shows that it runs."""
    known: dict[Key, Found] = {}
    with console.status("checking the weights on this machine") if console else nullcontext():
        for settings in stages.values():
            if _key(settings) in known:
                continue
            try:
                known[_key(settings)] = act(settings)
            except (WeightsMissing, ValueError) as error:
                known[_key(settings)] = Found(settings.model, "missing", str(error))
    return {name: known[_key(settings)] for name, settings in stages.items()}


def _tell_room(total: int, console: Console, about: str = "") -> bool:
    """Print how much there is to fetch and how much room the disk has; whether it fits."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    console.print(f"to fetch: {about}{_bytes(total)}; free in {folder}: {_bytes(free)}")
    if total > free:
        console.print(f"strata models: {_bytes(total - free)} too little room; set STRATA_MODELS to a larger disk")
    return total <= free


@contextmanager
def _progress(total: int, console: Console) -> Iterator[Callable[[int], None]]:
    """A progress bar over all bytes, if stderr is a terminal; yields a function to call with the bytes received."""
    columns = (TextColumn("fetching"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("fetching", total=total)
        yield lambda count: progress.advance(bar, count)


def _bytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _tell(stage: str, found: Found, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"stage": stage, **asdict(found)}))
    else:
        size = _bytes(found.size) if found.size else _bytes(found.lacking) if found.lacking else ""
        print(f"{stage:<10} {found.state:<8} {size:>8}  {found.model}  {found.detail}")
