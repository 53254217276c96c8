"""Hostile input for shards, and what comes of it. It imports little, because processes with limits import it too."""

from __future__ import annotations

import time

from strata.shards.patterns import find_shards
from strata.shards.roots import SourceError


def refused(patterns: list[str], roots: list[str]) -> str:
    try:
        return f"{len(find_shards(patterns, roots)):,} shards"
    except SourceError as error:
        return f"{type(error).__name__}: {error}"


def hostile_patterns(root: str) -> dict[str, tuple[str, float]]:
    """What each of some patterns gives, and the seconds of CPU that it takes; for a process of its own."""
    deep = "/*" * 40
    patterns: dict[str, list[str]] = {
        "stars": [f"{root}/*/" + "*?" * 20 + "z"],
        "many stars": [f"{root}/*/{'*a' * 1900}*b"],
        "classes": [f"{root}/*/{'[a-z]*[!b]' * 350}b"],
        "product": ["{0..99999}" * 372],
        "long names": [f"{root}/{'x' * 3000}{{0..9}}{{0..9999}}"],
        "the same list": [f"@{root}/list.txt"] * 20_000,
        "lists": [f"@{root}/lists/{i}.txt" for i in range(200)],
        "deep": [f"{root}{deep}"],
        "dots": ["{a,./}" * 16],
        "many patterns": [f"{root}/{i}.tar" for i in range(10_000)],
    }
    outcomes = {}
    for name, texts in patterns.items():
        began = time.process_time()
        outcomes[name] = refused(texts, [root]), time.process_time() - began
    return outcomes
