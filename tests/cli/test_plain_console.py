"""Texts of users, files and servers are shown as they are: no markup, no emoji, no command to the terminal."""

from __future__ import annotations

import io
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Group, RenderableType
from rich.markdown import Markdown
from rich.table import Table
from rich.text import Text
from rich.tree import Tree
from typer.testing import CliRunner

from strata.cli.main import app
from strata.cli.operations import webhooks
from strata.cli.rendering import overview, profiles, records, snapshots
from strata.cli.terminal import progress
from strata.consoles import PlainConsole
from strata.core import (
    Backlog,
    DeliveryAttempt,
    DeliveryState,
    DeliveryView,
    JobStatus,
    JobView,
    RequestCounts,
    SearchHit,
    ShardCounts,
    Status,
    Waiting,
    WorkerView,
)
from strata.keys import Scope, StoredKeys
from strata.profiles import ProfileView
from strata.snapshots import Selection
from strata.store import Store
from tests.checkout import CHECKOUT

NASTY = (
    "a build [/b] bot",
    "[bold]m[/bold]",
    "[link=http://x]y[/link]",
    "[@click=f]z[/]",
    "a:smile:b",
    "red\x1b[31mred",
    "link\x1b]8;;http://x\x1b\\y",
    "c1\x9b31m",
    "bell\x07",
    "right\u202eto left",
    "mark\u200eed",
    "isolated\u2066x",
    "joined\u200dx",
    "line\u2028end",
)
NOW = datetime(2026, 11, 29, tzinfo=UTC)


def shown(*things: RenderableType) -> str:
    console = PlainConsole(file=io.StringIO(), width=200, color_system=None)
    console.print(*things)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def check(output: str, text: str) -> None:
    """What can be printed of a text is in an output, and nothing is there that cannot."""
    assert "".join(output.split("\n")).isprintable(), ascii(output)
    visible = "".join(one for one in text if one.isprintable())
    assert "".join(visible.split()) in "".join(output.split()), ascii(output)


def job(text: str) -> JobView:
    """A job whose texts are all a text."""
    return JobView(
        id="j1",
        kind="batch",
        status=JobStatus.FAILED,
        profile=text,
        priority="lo",
        request_counts=RequestCounts(total=4),
        shards=ShardCounts(total=2),
        groups={},
        images_per_second=None,
        eta_seconds=None,
        created_at=NOW,
        error=text,
        metadata={text: text},
        waiting=Waiting(stage=text, since=NOW, attempts=1, reason=text),
    )


@pytest.mark.parametrize("text", NASTY)
def test_a_text_is_no_instruction_wherever_it_stands(text: str) -> None:
    table = Table(text, title=text, caption=text)
    table.add_row(text)
    tree = Tree(text)
    tree.add(text)
    for thing in (text, Text(text), Group(text, Text(text)), table, tree):
        check(shown(thing), text)
    shown(Markdown(text))  # Markdown is one on purpose
    assert shown(Text(f"{text}\n{text}")).count("\n") == 2


@pytest.mark.parametrize("text", NASTY)
def test_views_of_the_command_line(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    view = job(text)
    hit = SearchHit.model_construct(key=text, status=Status.SUCCEEDED, score=None, words=1, title=text)
    worker = WorkerView(name=text, groups=[text], held_up=[text], ready=False, images=1)
    profile = ProfileView.model_construct(name=text, default=False, faults=[text])
    for thing in (
        records.job_table([view]),
        records.job_details(view),
        records.hit_table([hit]),
        overview.view(Backlog(jobs=1, groups={}, workers={}), [worker], [view], NOW),
        profiles.table([profile]),
        Text(snapshots.selection_line(Selection(where=text))),
    ):
        check(shown(thing), text)
    attempt = DeliveryAttempt(at=NOW, seconds=0.5, error=text)
    delivery = DeliveryView.model_construct(
        job="j1", receiver=text, state=DeliveryState.FAILED, message="m", next_attempt_at=None, attempts=[attempt]
    )
    webhooks._print([delivery])
    check(capsys.readouterr().out, text)


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("text", NASTY)
def test_progress(text: str, terminal: bool) -> None:
    console = PlainConsole(file=io.StringIO(), width=300, force_terminal=terminal, color_system=None)
    assert records.follow([job(text)], console) is not None
    assert isinstance(console.file, io.StringIO)
    output = re.sub(r"\x1b\[[0-9?]*[A-Za-z]", "", console.file.getvalue()).replace("\r", "")  # rich's own commands
    check(output, text)
    bar = progress()
    bar.add_task(text)
    # rich shortens a name whose width it cannot know
    check(shown(bar.get_renderable()), text if text.isprintable() else "")


def test_the_list_of_keys_shows_each_name(tmp_path: Path) -> None:
    keys = StoredKeys(Store(str(tmp_path)))
    names = [text for text in NASTY if text.isprintable()]  # a key can have no other
    for text in names:
        keys.create(text, [Scope.READ], "vision")
    listed = CliRunner().invoke(app, ["keys", "list", "--store", str(tmp_path)], env={"COLUMNS": "200"})
    assert listed.exit_code == 0, listed.output
    for text in names:
        check(listed.stdout, text)


def test_every_console_and_every_bar_is_a_plain_one() -> None:
    """rich's own would read markup in the next text that somebody adds."""
    wrong = re.compile(
        r"(?<!Plain)\bConsole\("  # strings of tables, too
        r"|\bTextColumn\([^)]*\{task\.(?![^)]*markup=False)"
        r"|\bProgress\((console|disable|\))"  # rich's own columns
        r"|\bLive\((?![^\n]*console=)|\bfrom_markup\(|rich\.print\b|from rich import print"
    )
    allowed = {"strata/consoles.py": {"Console("}}
    files = [
        file for folder in ("strata", "models", "training", "workers") for file in (CHECKOUT / folder).rglob("*.py")
    ]
    assert len(files) > 300
    for file in files:
        name = file.relative_to(CHECKOUT).as_posix()
        code = file.read_text(encoding="utf-8").replace("class PlainConsole(Console)", "")
        found = {match[0] for match in wrong.finditer(code)} - allowed.get(name, set())
        assert not found, (name, found)
