"""Profiles as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from strata.cli.rendering.records import clean
from strata.core import LAYERS, TextSettings
from strata.profiles import MemoryView, ProfileView, WeightsView


def table(profiles: Sequence[ProfileView]) -> Table:
    """A line for each profile: its name (the default one is marked), what it needs, its download, what it is for."""
    lines = Table(box=None, pad_edge=False)
    for title in ("profile", "needs", "download", "for"):
        lines.add_column(title, no_wrap=title != "for", justify="right" if title == "download" else "left")
    for one in profiles:
        name = f"{one.name} *" if one.default else one.name
        if one.faults:
            lines.add_row(Text(name), "", "", Text(f"cannot be used: {clean(one.faults[0])}", "red"))
        else:
            lines.add_row(Text(name), Text(clean(one.needs)), _download(one), Text(clean(one.summary)))
    return lines


def tree(profile: ProfileView) -> Tree:
    """A profile with its stages, models, layers, memory, warnings and proof."""
    root = Tree(Text.assemble((profile.name, "bold"), "  ", clean(profile.summary)))
    if profile.needs:
        root.add(_line("needs", profile.needs))
    for warning in profile.warnings:
        root.add(Text(f"warning: {clean(warning)}", "yellow"))
    stages = root.add(_line("stages"))
    for stage in profile.stages:
        stages.add(f"{stage.stage:<14} {stage.group:<6} {stage.backend:<12} {clean(stage.model)}")
    models = root.add(_line("models", f"download {_download(profile)}"))
    for one in profile.models:
        models.add(Text(_weights(one)))
    memory = ", ".join(f"{group} {_memory(one)}" for group, one in profile.memory.items())
    unknown = dict.fromkeys(model for one in profile.memory.values() for model in one.unknown)
    without = f"; the size of {', '.join(unknown)} is not known" if unknown else ""
    root.add(_line("memory", f"{memory} (weights alone, on a GPU / on a CPU{without})"))
    layers = root.add(_line("layers"))
    for name in profile.layers:
        layers.add(Text(f"{LAYERS[name].title:<14} {LAYERS[name].stage}"))
    if texts := _texts(profile.texts):
        root.add(_line("texts", texts))
    prints = ", ".join(f"{group} {fingerprint}" for group, fingerprint in profile.fingerprints.items())
    root.add(_line("fingerprints", prints))
    return root


def size(count: int) -> str:
    """A number of bytes as MB or GB; "-" for none."""
    if not count:
        return "-"
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _download(profile: ProfileView) -> str:
    unknown = any(one.download_bytes is None for one in profile.models)
    return _at_least(size(profile.download_bytes), unknown)


def _memory(group: MemoryView) -> str:
    return _at_least(f"{size(group.gpu_bytes)} / {size(group.cpu_bytes)}", bool(group.unknown))


def _at_least(told: str, unknown: bool) -> str:
    """A sum of sizes of which some may not be known."""
    if not unknown:
        return told
    return "not known" if told.startswith("-") else f"at least {told}"


def _weights(one: WeightsView) -> str:
    bytes_known = size(one.download_bytes) if one.download_bytes else ""
    known = [one.licence or "licence not known", "size not known" if one.download_bytes is None else bytes_known]
    revision = f" @ {one.revision[:12]}" if one.revision else ""
    return f"{clean(one.model)}{revision}: {', '.join(filter(None, known))} ({', '.join(one.stages)})"


def _texts(asked: TextSettings) -> str:
    """What a profile writes besides the description; "" for nothing."""
    told = [f"variants {', '.join(asked.variants)}"] if asked.variants else []
    told += [f"language {asked.language}"] if asked.language else []
    told += [f"prompt {asked.prompt!r}"] if asked.prompt else []
    return "; ".join(told)


def _line(name: str, text: str = "") -> Text:
    return Text.assemble((name, "bold"), f"  {clean(text)}" if text else "")
