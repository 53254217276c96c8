"""Commands that need the checkout: the wheel holds `strata` only and hands over to the packages beside it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from strata.core.errors import InvalidInput
from strata.core.settings import CHECKOUT


def checkout(folder: Path = CHECKOUT) -> Path:
    """The checkout this package lies in. Raises InvalidInput where it was installed from a wheel alone."""
    if not (folder / "app" / "__init__.py").is_file():
        line = "this command runs from Strata's checkout or image; here only the package `strata` is installed"
        raise InvalidInput(line)
    return folder


def run_module(module: str, arguments: Sequence[str], folder: Path = CHECKOUT) -> NoReturn:
    """Become `python -m MODULE ARGUMENTS` with the checkout on the path, exit code and signals included."""
    paths = [str(checkout(folder)), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    os.execve(sys.executable, [sys.executable, "-m", module, *arguments], environment)
