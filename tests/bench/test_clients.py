"""`bench.clients`, without the generators: what it says of missing ones and of wrong answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.clients.__main__ import CLIENTS, HERE, Failed, Place, run, told
from bench.processes import CHECKOUT

GOT = {"description": "a", "status": "completed", "counts": [2, 1], "failures": [["k", "t"]], "problem": "/problems/x"}


def test_the_page_gives_the_configuration() -> None:
    text = (CHECKOUT / "docs" / "api.md").read_text(encoding="utf-8")
    assert f"```yaml\n{(HERE / 'openapi-python-client.yml').read_text(encoding='utf-8')}```\n" in text
    assert all(f"**{name}**" in text for name in CLIENTS)


@pytest.mark.parametrize("name", CLIENTS)
def test_a_generator_without_packages_is_left_out(name: str, tmp_path: Path) -> None:
    document = tmp_path / "openapi.json"
    assert CLIENTS[name](Place(tmp_path, document, None, None)) is None
    assert CLIENTS[name](Place(tmp_path, document, tmp_path / "python", tmp_path)) is None


def test_what_a_client_got_is_told_or_wrong() -> None:
    assert told(GOT, dict(GOT)) == "'a'; job completed, 2 succeeded, 1 failed (k t); /problems/x"
    with pytest.raises(Failed, match="and not"):
        told(GOT, GOT | {"counts": [3, 0]})


def test_a_command_that_fails_says_why(tmp_path: Path) -> None:
    assert run(["sh", "-c", "pwd"], tmp_path).strip() == str(tmp_path)
    with pytest.raises(Failed, match="wrong"):
        run(["sh", "-c", "echo wrong >&2; exit 3"], tmp_path)
    with pytest.raises(Failed):
        run([tmp_path / "none"], tmp_path)
