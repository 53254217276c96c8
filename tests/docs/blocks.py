"""Code of Markdown files, in blocks and in sentences, and checks of its `strata` commands without a run."""

from __future__ import annotations

import functools
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer.main

from strata.cli.main import app

_BLOCK = re.compile(r"(?:<!-- not run: (?P<reason>[^>]+) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)^```", re.M | re.S)
_ASSIGNMENT = re.compile(r"^\w+=")
_FENCED = re.compile(r"^ *```.*?^ *```", re.M | re.S)
_INLINE = re.compile(r"(?<!`)`(strata\s[^`]+)`(?!`)")


@dataclass(frozen=True)
class Block:
    """A fenced code block. reason: why it cannot be run in a test, from the comment above it; None if it can."""

    language: str
    text: str
    reason: str | None

    @property
    def commands(self) -> list[str]:
        """The commands of a console block: its lines after `$ `, with lines that end in a backslash joined."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line[2:] for line in lines if line.startswith("$ ")]


def blocks_of(path: Path, language: str) -> list[Block]:
    """The blocks of one language in a Markdown file, in order."""
    found = [
        Block(match["language"], match["text"], match["reason"])
        for match in _BLOCK.finditer(path.read_text(encoding="utf-8"))
    ]
    return [block for block in found if block.language == language]


def words_of(command: str) -> list[str]:
    """A shell command as words, without comments, assignments before it, `$(…)` around it, and redirections."""
    inner = re.sub(r"^\w+=\$\((.*)\)$", r"\1", command.strip())
    words = shlex.split(inner, comments=True)
    while words and _ASSIGNMENT.match(words[0]):
        words = words[1:]
    ends = [place for place, word in enumerate(words) if word[0] in "<>|&" or word.startswith(("2>", "&&"))]
    return words[: min(ends, default=len(words))]


def inline_commands(path: Path) -> list[str]:
    """The `strata …` commands within the sentences of a Markdown file, which may lack arguments."""
    return [" ".join(command.split()) for command in _INLINE.findall(_FENCED.sub("", path.read_text(encoding="utf-8")))]


@functools.cache
def _command_line() -> Any:
    """Strata's command line, built once: a check replaces nothing in it but what a command would call."""
    return typer.main.get_command(app)


def check_names(command: str) -> None:
    """Check that the command line has a command of this name, and that it has the options that are given to it."""
    inner = _command_line()
    words = command.split()[1:]
    while hasattr(inner, "get_command") and words and re.fullmatch("[a-z-]+", words[0]) and words[0][0] != "-":
        inner = inner.get_command(inner.make_context("strata", [], resilient_parsing=True), words.pop(0))
        assert inner is not None, f"there is no {command!r}"
    known = {name for option in inner.params for name in (*option.opts, *option.secondary_opts)} | {"--help"}
    given = {word.partition("=")[0] for word in words if re.match("--[a-z]", word)}
    assert given <= known, f"{command!r} has no {', '.join(sorted(given - known))}"


def check_strata(words: list[str]) -> None:
    """Parse `strata …` as the command line does, with all its checks, but call nothing.

    Files that must exist and do not are replaced by one that does. Raises the parser's own usage error.
    """
    command = _command_line()
    names, rest = ["strata"], words[1:]
    while hasattr(command, "get_command"):  # a group: descend to the command that the next word names
        inner = command.get_command(command.make_context(names[-1], [], resilient_parsing=True), rest[0])
        assert inner is not None, f"{' '.join(names)} has no command {rest[0]!r}"
        names.append(rest[0])
        command, rest = inner, rest[1:]
    command.callback = None
    while True:
        try:
            command.main(list(rest), prog_name=" ".join(names), standalone_mode=False)
            return
        except typer.BadParameter as error:
            absent = [word for word in rest if f"{word!r} does not exist" in str(error)]
            if not absent:
                raise
            rest = [str(Path(__file__)) if word in absent else word for word in rest]


def command_names() -> list[str]:
    """The commands of `strata`."""
    command = _command_line()
    return list(command.list_commands(command.make_context("strata", [], resilient_parsing=True)))
