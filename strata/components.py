"""Finding and importing the components beside this package: app, workers, models, samples, training and weights.

In a checkout they are folders beside `strata/`. A wheel carries them in `strata/_service/`, because packages named
`app` or `models` in site-packages would collide with those of other projects.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

from strata.errors import InvalidInput

PACKAGE = Path(__file__).resolve().parent
COMPONENTS = ("app", "workers", "models", "samples", "training")


def components_folder(package: Path = PACKAGE) -> Path:
    """The folder that holds the components and the bundled weights."""
    carried = package / "_service"
    return carried if carried.is_dir() else package.parent


def make_importable() -> None:
    """Put the components' folder first on sys.path, so that no `app` in the working folder is imported instead."""
    folder = str(components_folder())
    if sys.path[:1] != [folder]:
        sys.path.insert(0, folder)


def load(module: str, extra: str) -> ModuleType:
    """Import a module of a component, such as "app.server", when a command needs it.

    Raises InvalidInput if a package is not installed. extra: the extra of Strata's wheel that installs it.
    """
    make_importable()
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        # a missing module of Strata itself is a programming error, not a missing extra
        missing = (error.name or "").partition(".")[0]
        if missing in (*COMPONENTS, "strata"):
            raise
        raise InvalidInput(f"{missing} is not installed: pip install 'strata[{extra}]'") from error


def strata_command(*arguments: str) -> list[str]:
    """The command line that runs `strata ARGUMENTS` in a new process with this interpreter and this package.

    -P prevents the child from importing another `strata` from its working folder. It is left out if this package itself
    was imported from the working folder, as in a checkout, where the child must find it in the same way.
    """
    safe = [] if PACKAGE.parent == Path.cwd() else ["-P"]
    return [sys.executable, *safe, "-m", "strata", *arguments]
