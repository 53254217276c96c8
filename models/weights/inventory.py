"""The functions behind `strata models fetch`, `list` and `check`: which weights of a profile are on this machine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from models.base import WeightsMissing
from models.weights.cache import WeightsState, cache_folder, check
from models.weights.downloads import DownloadPlan, Source, download, plan_download
from models.weights.folders import Folder
from models.weights.hub import Hub
from strata.consoles import PlainConsole
from strata.core import StageSettings, load_profile
from strata.profiles import download_bytes

PROFILES = Path(__file__).parent.parent / "profiles"
Stages = dict[str, StageSettings]
States = dict[str, WeightsState]  # by stage
PerStage = Callable[[StageSettings], WeightsState]
Action = Callable[[Stages, Source, Console], States]
Key = tuple[str, str, str]  # model, revision, back end: they determine the files that a stage needs


def fetch(profile: str, profiles: Path | None, folder: Path | None, as_json: bool) -> bool:
    """Fetch missing weights from `folder`, or the hub by default, and print each stage's state.

    Returns whether all weights are complete. profiles: the folder of the profiles, None for Strata's own. Raises
    ProfileError.
    """
    return _run(_fetch, profile, profiles, folder, as_json)


def list_weights(profile: str, profiles: Path | None, folder: Path | None, as_json: bool) -> bool:
    """Print each stage's state by file sizes, and the bytes to fetch. Returns whether all weights are present."""
    return _run(_list, profile, profiles, folder, as_json)


def check_weights(profile: str, profiles: Path | None, as_json: bool) -> bool:
    """Compare all weights with their checksums and print each stage's state. Returns whether all are intact."""
    return _run(_check, profile, profiles, None, as_json)


def _run(act: Action, profile: str, profiles: Path | None, folder: Path | None, as_json: bool) -> bool:
    stages = load_profile(profile, profiles or PROFILES, pinned=False).stages
    source: Source = Folder(folder) if folder else Hub()
    found = act(stages, source, PlainConsole(stderr=True, highlight=False, soft_wrap=True))
    for name in stages:
        _print_state(name, found[name], as_json=as_json)
    return all(one.state in ("ready", "none") for one in found.values())


def _list(stages: Stages, source: Source, console: Console) -> States:
    """Compare file sizes only. For missing weights the source gives the number of bytes to fetch, or `known.toml`."""
    known: list[str] = []  # models that the source tells nothing of

    def inspect(settings: StageSettings) -> WeightsState:
        found = check(settings, thorough=False)
        if found.state != "missing":
            return replace(found, missing_bytes=0 if found.state in ("ready", "none") else None)
        try:
            return replace(found, missing_bytes=plan_download(settings, source).missing_bytes)
        except WeightsMissing as error:
            known.append(settings.model)
            return replace(found, detail=f"{found.detail}; {error}", missing_bytes=download_bytes(settings.model))

    found = _each(stages, inspect, console)
    # for some weights the source gives no size
    total = _total((stages[name].model, one.missing_bytes or 0) for name, one in found.items())
    unknown = any(one.missing_bytes is None for one in found.values())
    if total or unknown:
        _print_space(total, console, "at least " if unknown else "about " if known else "")
    return found


def _check(stages: Stages, source: Source, console: Console) -> States:
    return _each(stages, check, console)


def _fetch(stages: Stages, source: Source, console: Console) -> States:
    """Fetch all missing weights, or none if the disk is too small. A failed download does not stop the others."""
    # get all sizes first, so that a disk that is too small is reported before the first download
    missing: dict[Key, DownloadPlan] = {}

    def inspect(settings: StageSettings) -> WeightsState:
        plan = plan_download(settings, source)
        if plan.state is not None:
            return plan.state
        missing[_key(settings)] = plan
        return WeightsState(settings.model, "missing", "not fetched", missing_bytes=plan.missing_bytes)

    found = _each(stages, inspect, console)
    total = _total((model, plan.missing_bytes) for (model, _, _), plan in missing.items())
    if not missing or not _print_space(total, console):
        return found
    # then download, with one progress bar over all stages
    with _progress(total, console) as advance:

        def fetch_planned(settings: StageSettings) -> WeightsState:
            plan = missing[_key(settings)]
            console.print(f"{settings.model}: fetching {_bytes(plan.missing_bytes)}")
            return download(plan, source, advance)

        incomplete = {name: settings for name, settings in stages.items() if _key(settings) in missing}
        return found | _each(incomplete, fetch_planned)


def _key(settings: StageSettings) -> Key:
    return settings.model, settings.revision, settings.backend


def _total(sizes: Iterable[tuple[str, int]]) -> int:
    """The bytes of models, each of which counts once: several back ends may need the same files."""
    most: dict[str, int] = {}
    for model, size in sizes:
        most[model] = max(size, most.get(model, 0))
    return sum(most.values())


def _each(stages: Stages, act: PerStage, console: Console | None = None) -> States:
    """Call `act` once for each set of weights; the state of each stage. console: shows a spinner meanwhile."""
    known: dict[Key, WeightsState] = {}
    with console.status("checking the weights on this machine") if console else nullcontext():
        for settings in stages.values():
            if _key(settings) in known:
                continue
            # an error concerns these weights only: it becomes their state
            try:
                known[_key(settings)] = act(settings)
            except (WeightsMissing, ValueError) as error:
                known[_key(settings)] = WeightsState(settings.model, "missing", str(error))
    return {name: known[_key(settings)] for name, settings in stages.items()}


def _print_space(total: int, console: Console, about: str = "") -> bool:
    """Print the bytes to fetch and the free disk space. Returns whether there is enough space."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    console.print(f"to fetch: {about}{_bytes(total)}; free in {folder}: {_bytes(free)}")
    if total > free:
        shortage = f"{_bytes(total - free)} too little disk space"
        console.print(f"strata models: {shortage}; set STRATA_MODELS to a folder on a larger disk")
    return total <= free


@contextmanager
def _progress(total: int, console: Console) -> Iterator[Callable[[int], None]]:
    """Show a progress bar over all bytes if stderr is a terminal. Yields a function that takes the bytes received."""
    columns = (TextColumn("fetching"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("fetching", total=total)
        yield lambda count: progress.advance(bar, count)


def _bytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _print_state(stage: str, found: WeightsState, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"stage": stage, **asdict(found)}))
    else:
        size = _bytes(found.size) if found.size else _bytes(found.missing_bytes) if found.missing_bytes else ""
        print(f"{stage:<10} {found.state:<8} {size:>8}  {found.model}  {found.detail}")
