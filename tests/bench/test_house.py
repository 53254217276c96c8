"""`bench.house` on a small tree made for it, where every figure can be counted by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import house
from tests.checkout import CHECKOUT

FOLDERS = ("strata", "app", "workers", "models", "training", "samples", "bench", "tests", "docs", ".ci")

MODULE = '''"""A module.

Two lines more."""

from __future__ import annotations

import os, sys
from pkg.sub import beta
from . import other  # a relative import


def annotated(a: int, *rest: int) -> None:
    """One line."""
    import json  # not at the top level

    text = "# no comment"


def bare(a, b):
    # first

    # second
    return a


class Thing:
    def __init__(self, size: int):
        self.size = size

    def method(self) -> None:
        broker.redis.get("a")
        self.broker.redis.set("b", 1)
        self.redis.ping()
        redis.RedisError
'''


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A project with one package of two folders and a folder `queue`, and tests that are not measured."""
    files = {
        "pkg/__init__.py": '"""Nothing but a docstring: not a module."""\n',
        "pkg/alpha.py": MODULE,
        "pkg/other.py": "x = 1\n",
        "pkg/sub/__init__.py": "",
        "pkg/sub/beta.py": "import os\n",
        "pkg/queue/broker_of_queue.py": "self.broker.redis.get('c')\n",
        "tests/__init__.py": "import a, b\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def measured(checkout: Path) -> house.House:
    return house.measure(checkout, house.find_packages(checkout))


def test_modules_are_counted_by_folder(checkout: Path) -> None:
    found = measured(checkout)
    assert (found.packages, found.modules) == (["pkg"], 4)
    assert (found.folder_max, found.folder_max_name, found.folder_median) == (2, "pkg", 1)
    assert (found.module_max, found.module_max_name) == (len(MODULE.splitlines()), "pkg/alpha.py")
    assert found.module_median == 1


def test_imports_are_statements_at_the_top_level(checkout: Path) -> None:
    found = measured(checkout)
    assert found.imports == (3 + 0 + 1 + 0) / 4  # alpha: `import os, sys`, `pkg.sub`, `.`; beta: os
    assert found.own_imports == 2 / 4


def test_functions(checkout: Path) -> None:
    found = measured(checkout)
    assert found.functions == 4
    assert found.annotated == 75.0  # all but `bare`; `__init__` needs no return annotation
    assert (found.function_max, found.function_max_name) == (5, "pkg/alpha.py:annotated")


def test_comments_and_docstrings_are_shares_of_all_lines(checkout: Path) -> None:
    found = measured(checkout)
    total = len(MODULE.splitlines()) + 1 + 1 + 1 + 1
    assert found.comments == pytest.approx(100 * 4 / total)  # a `#` within a string is none
    assert found.docstrings == pytest.approx(100 * (3 + 1 + 1) / total)


def test_raw_redis_outside_queue(checkout: Path) -> None:
    found = measured(checkout)
    assert (found.broker_redis, found.broker_redis_modules) == (2, 1)
    assert (found.any_redis, found.any_redis_modules) == (3, 1)


def test_strata_is_measured_by_its_four_packages(checkout: Path) -> None:
    for name in ("strata", "models", "training"):
        (checkout / name).mkdir()
    assert [folder.name for folder in house.find_packages(checkout)] == ["strata", "models"]


def test_a_file_that_is_not_python_is_told_and_left_out(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (checkout / "pkg" / "old.py").write_text("print 'Python 2'\n")
    assert house.main([str(checkout), "--json"]) == 0
    printed = capsys.readouterr()
    assert "old.py" in printed.err
    [found] = json.loads(printed.out)
    assert found["modules"] == 4 and found["unreadable"] == ["pkg/old.py"]


def test_checkouts_stand_side_by_side(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    house.main([str(checkout), str(checkout)])
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("imports a module")]
    assert line.split() == ["imports", "a", "module", "1.0", "1.0"]


@pytest.mark.parametrize("arguments", [["absent"], ["--packages", "absent"], ["tests"]])
def test_what_cannot_be_measured_is_one_line(
    checkout: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(checkout)
    with pytest.raises(SystemExit) as ended:
        house.main(arguments)
    assert ended.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_this_checkout_keeps_the_limits() -> None:
    """At most 16 modules a folder, functions of at most 40 lines, all annotated, Redis in `strata/queue` alone."""
    served = house.measure(CHECKOUT, house.find_packages(CHECKOUT))
    others = house.measure(CHECKOUT, [CHECKOUT / name for name in ("training", "samples", "bench")])
    for found in (served, others):
        assert found.folder_max <= 16, found.folder_max_name
        assert found.function_max <= 40, found.function_max_name
        assert found.annotated == 100
    # bench has fakes and measurements that talk to Redis themselves
    assert served.any_redis_modules == 0


def test_no_file_has_marks_of_an_unresolved_merge() -> None:
    marks = ("<" * 7 + " ", ">" * 7 + " ")
    kinds = (".py", ".md", ".toml", ".yaml", ".yml", ".lua", ".js", ".html")
    tops = [path for path in CHECKOUT.iterdir() if path.suffix in kinds]
    inner = [path for top in FOLDERS for path in (CHECKOUT / top).rglob("*") if path.suffix in kinds]
    for path in [*tops, *inner]:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        assert not [number for number, line in enumerate(lines, 1) if line.startswith(marks)], path
