"""The functions behind `strata models prove`: the proof of a profile with progress, and its tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from models.prove.pictures import World
from models.prove.proving import Options, prove
from models.prove.published import missing_pictures
from models.weights.inventory import PROFILES
from strata.consoles import PlainConsole
from strata.core import Check, Proof, load_profile
from strata.counts import counted
from strata.errors import InvalidInput

# what each check asks
ASKED = {
    "loads": "the weights fit the model, and its probe is computed",
    "answers": "share of the questions with an answer",
    "batch": "likeness of the answers for a batch and for each item alone",
    "finds": "share of the things with a box at their place",
    "names": "share of the things that are named",
    "repeats": "share of the things that are found and named in a picture that shows everything twice",
    "invents": "share of the answers that name what is absent; OCR: lines that are not there",
    "masks": "mean IoU of the best mask of each thing",
    "reads": "share of the lines that are read, letter by letter",
    "judges": "share of the phrases that the matcher can judge",
    "prefers": "share of the pairs in which the right phrase has the higher probability",
    "margin": "mean difference of the log odds of right and wrong phrases",
    "keeps": "share of the right phrases that the profile's thresholds keep",
    "drops": "share of the wrong phrases that the profile's thresholds drop",
    "crops": "share of the crops whose thing is named",
    "quotes": "share of the lines of text that are told",
    "copies": "share of the pictures or texts whose copy is nearer than another one",
    "blurred": "share of the pictures whose blurred copy has a smaller value",
    "counts": "share of the pictures whose faces are counted",
    "safe": "share of the safe pictures with a probability below 0.5",
    "published": "a published number of these weights, on the picture it was computed for",
    "layers succeed": "share of the pictures with a row",
    "layers tell": "share of the pictures of which a kept entry names something that is there",
    "layers invent": "share of the kept entries that name what is absent",
    "descriptions succeed": "share of the pictures with a description",
    "descriptions tell": "share of the descriptions that name something that is there",
    "descriptions invent": "share of the descriptions that name what is absent",
    "vision": "the stages of images run together",
    "llm": "the composer runs on the records of the stages of images",
}


def prove_with_progress(
    profile: str, profiles: Path | None, images: Path | None, world: str | None, seconds: float
) -> Proof:
    """Prove a profile, and tell on stderr what happens.

    Raises ProfileError, InvalidInput for a world that does not exist, and WeightsMissing.
    """
    worlds: tuple[World, ...] = get_args(World)
    chosen = next((one for one in worlds if one == world), None)
    if world is not None and chosen is None:
        raise InvalidInput(f"--pictures {world}: there are {' and '.join(worlds)}")
    if images is not None and not images.is_dir():
        raise InvalidInput(f"--images {images}: no folder")
    found = load_profile(profile, profiles or PROFILES)
    console = PlainConsole(stderr=True, highlight=False, soft_wrap=True)
    with _reporting(console) as report:
        proof = prove(found, Options(images, chosen, seconds), report)
    missing = missing_pictures([settings.model for settings in found.stages.values()], images)
    if missing:
        console.print(f"strata: not compared with published numbers, for lack of {', '.join(missing)}; see --images")
    return proof


@contextmanager
def _reporting(console: Console) -> Iterator[Callable[[str], None]]:
    """A function that shows what happens now: beside a spinner, or a line each if stderr is not a terminal."""
    if not console.is_terminal:
        yield lambda line: console.print(f"strata: {line}", markup=False)
        return
    with console.status("") as status:
        yield lambda line: status.update(Text(line))


def tables(proof: Proof) -> RenderableType:
    """The checks, what has not passed, the cost of each stage, and the days for large sets of images."""
    head = f"profile {proof.profile} on {proof.device}, {proof.time:%Y-%m-%d %H:%M} UTC: "
    verdict = (
        Text("passed", "green") if proof.passed else Text(f"{counted(len(proof.failed), 'check')} not passed", "red")
    )
    parts: list[RenderableType] = [Text.assemble((head, "bold"), verdict), _checks(proof)]
    for check in proof.checks:
        if not check.passed:
            told = f": {check.detail}" if check.detail else ""
            parts.append(Text(f"{check.stage} {check.name} ({ASKED.get(check.name, '')}){told}", "red"))
    parts.append(_costs(proof))
    if proof.images_per_second:
        days = ", ".join(f"{days:,.1f} days for {count:,} images" for count, days in proof.days.items())
        parts.append(Text(f"{proof.images_per_second:,.2f} images/s with one process like this: {days}"))
        if load := _load(proof.machine):
            parts.append(load)
    return Group(*parts)


def _load(machine: dict[str, str]) -> Text | None:
    """The machine's load beside its cores, and what it means for the speed; None if a proof does not tell it."""
    try:
        load, cores = float(machine["load"]), int(machine["cores"])
    except (KeyError, ValueError):
        return None
    told = f"load {load:.1f} on {counted(cores, 'core')}"
    # the proof itself keeps at most all cores busy
    if load <= cores + 1:
        return Text(told)
    return Text(f"{told}: other programs ran beside it, and an idle machine is faster", "yellow")


def _checks(proof: Proof) -> Table:
    table = Table("stage", "check", "value", "bound", "", "what is asked", box=None, header_style="dim")
    for check in proof.checks:
        mark = Text("passed", "green") if check.passed else Text("failed", "red")
        value = "" if check.value is None else f"{check.value:.3g}"
        table.add_row(check.stage, check.name, value, _bound(check), mark, Text(ASKED.get(check.name, ""), "dim"))
    return table


def _bound(check: Check) -> str:
    if check.least is not None and check.most is not None:
        return f"{check.least:.4g} to {check.most:.4g}"
    if check.least is not None:
        return f"≥ {check.least:.3g}"
    return "" if check.most is None else f"≤ {check.most:.3g}"


def _costs(proof: Proof) -> Table:
    table = Table("stage", "images/s", "memory", "loaded in", box=None, header_style="dim")
    for name, figures in proof.stages.items():
        rate = f"{figures.images_per_second:,.2f}" if figures.images_per_second else ""
        table.add_row(name, rate, f"{figures.memory_bytes / 2**20:,.0f} MiB", f"{figures.load_seconds:.1f} s")
    return table
