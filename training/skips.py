"""The list of the samples that could not be read in a training, and their limit."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from strata.data import Skipped


class SkipLog:
    """The file `skipped.jsonl`: a line {"step", "source", "key", "uri", "reason"} for each sample, once."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "skipped.jsonl"
        self._known: set[tuple[str, str, str]] = set()

    def rewind(self, step: int) -> None:
        """Remove the lines after a step, which a resumed run will find again, and an incomplete last line."""
        kept = [line for line in self.read() if line["step"] <= step]
        self._known = {(line["source"], line["key"], line["uri"]) for line in kept}
        if self.path.exists():
            temporary = self.path.with_suffix(".tmp")
            temporary.write_text("".join(map(_line, kept)), encoding="utf-8")
            temporary.replace(self.path)

    def append(self, step: int, skipped: Iterable[Skipped]) -> None:
        """Add the samples that are not listed yet."""
        for one in skipped:
            name = (one.source, one.key, one.uri)
            if name not in self._known:
                self._known.add(name)
                entry = {key: value for key, value in asdict(one).items() if key != "number"}
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(_line({"step": step, **entry}))

    def read(self) -> list[dict[str, Any]]:
        """The lines, without an incomplete last line."""
        if not self.path.exists():
            return []
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]


def _line(entry: dict[str, Any]) -> str:
    return json.dumps(entry) + "\n"
