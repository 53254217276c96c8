"""`python -m bench.house [CHECKOUT …]`: how the code of one or several checkouts is built, side by side.

Only the source text is read (`ast` and `tokenize` of the standard library), nothing is imported or run, so it works on
any project and any commit: `git worktree add ../before COMMIT && python -m bench.house ../before .`

How each figure is defined:

- module: a `*.py` file whose body holds more than a docstring; `__init__.py` files are no modules of a folder.
- imports a module: import statements at the top level of a module but `from __future__`; the mean over all modules.
- own imports: those of them that name one of the measured packages, relative imports included.
- function: `def` and `async def`, also nested ones and methods; lines from `def` to its last line.
- annotated: every parameter but `self` and `cls` has an annotation, and so has the return value (`__init__` may leave
  it out, as PEP 484 allows).
- comments, docstrings: lines that hold a comment, lines of docstrings, both as a share of all lines.
- `broker.redis`, any `.redis`: attribute accesses outside of folders named `queue` and of `broker.py`.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import statistics
import sys
import tokenize
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

STRATA = ("strata", "app", "workers", "models")
NO_PACKAGE = frozenset(
    {"tests", "test", "docs", "doc", "examples", "example", "bench", "benchmarks", "scripts", "build"}
)
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Source:
    """One parsed module: its file relative to the checkout, its text, its syntax tree, and all nodes of the tree."""

    path: Path
    text: str
    tree: ast.Module
    nodes: list[ast.AST]

    @property
    def has_code(self) -> bool:
        """Whether the body holds more than a docstring."""
        return any(not _is_string(node) for node in self.tree.body)


@dataclass
class House:
    """The figures of one checkout; shares are percentages, lengths are lines."""

    checkout: str
    packages: list[str]
    modules: int = 0
    folder_max: int = 0
    folder_max_name: str = ""
    folder_median: float = 0.0
    module_median: float = 0.0
    module_max: int = 0
    module_max_name: str = ""
    imports: float = 0.0
    own_imports: float = 0.0
    functions: int = 0
    function_max: int = 0
    function_max_name: str = ""
    annotated: float = 0.0
    comments: float = 0.0
    docstrings: float = 0.0
    broker_redis: int = 0
    broker_redis_modules: int = 0
    any_redis: int = 0
    any_redis_modules: int = 0
    unreadable: list[str] = field(default_factory=list)


def find_packages(root: Path) -> list[Path]:
    """The packages to measure: Strata's four where they are, else every package in the root or in `src`."""
    if (root / "strata").is_dir():
        return [root / name for name in STRATA if (root / name).is_dir()]
    found = [init.parent for base in (root, root / "src") for init in sorted(base.glob("*/__init__.py"))]
    return [folder for folder in found if folder.name not in NO_PACKAGE]


def measure(root: Path, packages: Sequence[Path]) -> House:
    """All figures of the modules below `packages`, which are folders of the checkout `root`.

    Raises:
        ValueError: no module with code lies below the packages.
    """
    house = House(str(root), [folder.relative_to(root).as_posix() for folder in packages])
    sources = list(_read(root, packages, house.unreadable))
    coded = [source for source in sources if source.has_code]
    if not coded:
        raise ValueError(f"no Python modules in {root}: name their folders with --packages")
    _count_modules(house, sources, coded)
    _count_imports(house, coded, {folder.name for folder in packages})
    _count_functions(house, sources)
    _count_prose(house, sources)
    _count_redis(house, sources)
    return house


def _read(root: Path, packages: Sequence[Path], unreadable: list[str]) -> Iterator[Source]:
    for file in sorted(file for folder in packages for file in folder.rglob("*.py")):
        path = file.relative_to(root)
        try:
            with tokenize.open(file) as stream:  # honours the coding line of the file
                text = stream.read()
            tree = ast.parse(text)
            yield Source(path, text, tree, list(ast.walk(tree)))
        except (SyntaxError, UnicodeDecodeError, ValueError):
            unreadable.append(path.as_posix())


def _count_modules(house: House, sources: list[Source], coded: list[Source]) -> None:
    folders = Counter(source.path.parent.as_posix() for source in sources if source.path.name != "__init__.py")
    lengths = {source.path.as_posix(): len(source.text.splitlines()) for source in coded}
    house.modules = len(coded)
    house.folder_max_name, house.folder_max = max(folders.items(), key=lambda item: item[1], default=("", 0))
    house.folder_median = statistics.median(folders.values()) if folders else 0.0
    house.module_max_name, house.module_max = max(lengths.items(), key=lambda item: item[1])
    house.module_median = statistics.median(lengths.values())


def _count_imports(house: House, coded: list[Source], own: set[str]) -> None:
    statements = [
        node for source in coded for node in source.tree.body if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    names = [names for node in statements if (names := _imported(node)) != ["__future__"]]
    house.imports = len(names) / len(coded)
    house.own_imports = sum(any(not name or name.split(".")[0] in own for name in each) for each in names) / len(coded)


def _imported(node: ast.Import | ast.ImportFrom) -> list[str]:
    """The modules that a statement names; an empty name stands for a relative import."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return ["" if node.level else node.module or ""]


def _count_functions(house: House, sources: list[Source]) -> None:
    functions = [(source, node) for source in sources for node in source.nodes if isinstance(node, Function)]
    house.functions = len(functions)
    if functions:
        source, longest = max(functions, key=lambda pair: _lines(pair[1]))
        house.function_max = _lines(longest)
        house.function_max_name = f"{source.path.as_posix()}:{longest.name}"
        house.annotated = 100 * sum(_is_annotated(node) for _, node in functions) / len(functions)


def _is_annotated(node: Function) -> bool:
    spec = node.args
    named = [*spec.posonlyargs, *spec.args, *spec.kwonlyargs, spec.vararg, spec.kwarg]
    parameters = [arg for arg in named if arg is not None and arg.arg not in ("self", "cls")]
    returns = node.returns is not None or node.name == "__init__"
    return returns and all(arg.annotation is not None for arg in parameters)


def _count_prose(house: House, sources: list[Source]) -> None:
    total = sum(len(source.text.splitlines()) for source in sources)
    house.comments = 100 * sum(_comment_lines(source.text) for source in sources) / total
    house.docstrings = 100 * sum(_docstring_lines(source.nodes) for source in sources) / total


def _comment_lines(text: str) -> int:
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return len({token.start[0] for token in tokens if token.type == tokenize.COMMENT})


def _docstring_lines(nodes: list[ast.AST]) -> int:
    holders = (node for node in nodes if isinstance(node, ast.Module | ast.ClassDef | Function))
    return sum(_lines(node.body[0]) for node in holders if node.body and _is_string(node.body[0]))


def _is_string(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _lines(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _count_redis(house: House, sources: list[Source]) -> None:
    of_broker: Counter[str] = Counter()
    of_any: Counter[str] = Counter()
    for source in sources:
        if "queue" in source.path.parts[:-1] or source.path.name == "broker.py":
            continue
        for node in source.nodes:
            if isinstance(node, ast.Attribute) and node.attr == "redis":
                of_any[source.path.as_posix()] += 1
                owner = node.value
                name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
                of_broker[source.path.as_posix()] += name in ("broker", "_broker")
    of_broker = +of_broker  # modules without a use are left out
    house.broker_redis, house.broker_redis_modules = of_broker.total(), len(of_broker)
    house.any_redis, house.any_redis_modules = of_any.total(), len(of_any)


def rows(house: House) -> list[tuple[str, str]]:
    """The table's rows for one checkout: what is measured, and the figure as text."""
    return [
        ("packages", " ".join(house.packages)),
        ("modules", str(house.modules)),
        ("modules a folder, max", f"{house.folder_max} ({house.folder_max_name})"),
        ("modules a folder, median", f"{house.folder_median:g}"),
        ("lines a module, max", f"{house.module_max} ({_short(house.module_max_name)})"),
        ("lines a module, median", f"{house.module_median:g}"),
        ("imports a module", f"{house.imports:.1f}"),
        ("own imports a module", f"{house.own_imports:.1f}"),
        ("longest function, lines", f"{house.function_max} ({_short(house.function_max_name)})"),
        ("functions annotated", f"{house.annotated:.1f} % of {house.functions}"),
        ("comment lines", f"{house.comments:.1f} %"),
        ("docstring lines", f"{house.docstrings:.1f} %"),
        ("broker.redis outside queue/", f"{house.broker_redis} in {house.broker_redis_modules} modules"),
        ("any .redis outside queue/", f"{house.any_redis} in {house.any_redis_modules} modules"),
    ]


def _short(name: str) -> str:
    return name.rpartition("/")[2]  # the JSON has the whole path


def table(houses: Sequence[House]) -> str:
    """A plain table with one column a checkout."""
    columns = [["", *(label for label, _ in rows(houses[0]))]]
    columns += [[house.checkout, *(value for _, value in rows(house))] for house in houses]
    widths = [max(map(len, column)) for column in columns]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in zip(*columns, strict=True)
    )
    return "\n".join(line.rstrip() for line in lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure each checkout and print the table or the JSON; 2 if a checkout cannot be measured."""
    parser = argparse.ArgumentParser(prog="python -m bench.house", description="How the code of checkouts is built.")
    parser.add_argument(
        "checkouts", nargs="*", type=Path, metavar="CHECKOUT", default=[Path()], help="a folder (default: this)"
    )
    parser.add_argument("--packages", nargs="+", metavar="FOLDER", help="folders to measure, relative to each checkout")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore", SyntaxWarning)  # of the measured code: its invalid escapes are not our subject
    houses = []
    for root in options.checkouts:
        chosen = options.packages or []
        absent = [name for name in chosen if not (root / name).is_dir()]
        if absent or not root.is_dir():
            parser.error(f"no such folder: {root / absent[0] if absent else root}")
        try:
            houses.append(measure(root, [root / name for name in chosen] or find_packages(root)))
        except ValueError as error:
            parser.error(str(error))
        for path in houses[-1].unreadable:
            print(f"cannot be parsed, left out: {root / path}", file=sys.stderr)
    print(json.dumps([asdict(house) for house in houses], indent=2) if options.json else table(houses))
    return 0


if __name__ == "__main__":
    sys.exit(main())
