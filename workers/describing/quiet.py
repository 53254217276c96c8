"""Keeps the progress bars and the advice of transformers out of a caller's notebook, only while Strata computes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

_guard = threading.Lock()
_inside = 0
_before: tuple[int, Any] | None = None


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """For the block, transformers shows no bars and logs errors only. Then it is as before, also for several threads.

    What `quiet_libraries` sets for a whole process of Strata by variables is not Strata's to set in a caller's process.
    """
    _enter()
    try:
        yield
    finally:
        _leave()


def _enter() -> None:
    global _inside, _before
    with _guard:
        _inside += 1
        if _inside == 1 and find_spec("transformers") is not None:
            from transformers.utils import logging as library

            _before = library.get_verbosity(), library.set_tqdm_hook(_without_bar)
            library.set_verbosity(logging.ERROR)


def _leave() -> None:
    global _inside, _before
    with _guard:
        _inside -= 1
        if _inside == 0 and _before is not None:
            from transformers.utils import logging as library

            level, hook = _before
            library.set_verbosity(level)
            library.set_tqdm_hook(hook)
            _before = None


def _without_bar(_factory: Any, arguments: Any, options: Any) -> Any:
    from transformers.utils.logging import EmptyTqdm

    without: Any = EmptyTqdm
    return without(*arguments, **options)
