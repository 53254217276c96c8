"""docs/benchmarks.md: every command in it can be run."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
COMMANDS = sorted(set(re.findall(r"`(?:nice [-\w ]+ )?(?:python -m )?(bench\.[a-z_.]+[^`\n]*)`", PAGE)))
TARGETS = sorted(set(re.findall(r"`make ([a-z-]+)", PAGE)))


def source(module: str) -> str:
    """The text of a module and of the package that it is in."""
    spec = importlib.util.find_spec(module)
    assert spec is not None and spec.origin is not None, module
    path = Path(spec.origin)
    files = path.parent.glob("*.py") if path.name == "__init__.py" else [path]
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


def test_the_page_names_commands() -> None:
    assert len(COMMANDS) > 20 and len(TARGETS) > 5


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_and_its_options_are_there(command: str) -> None:
    module, *words = command.split()
    text = source(module)
    assert '__name__ == "__main__"' in text, f"{module} is no command"
    for option in (word.partition("=")[0] for word in words if word.startswith("--")):
        assert f'"{option}"' in text, f"{module} has no option {option}"


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_of_make_is_there(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
