"""Lua scripts that Redis runs atomically: either all of a script's commands take effect or none, and no other client's
command runs in between.

Each `.lua` file documents its KEYS and ARGV in its head. Where a script must build a key's name from data, such as a
job's id, it has a placeholder such as `@JOB@` for the constant part, which `load_script` replaces.
"""

from __future__ import annotations

import re
from importlib.resources import files

from strata.core import STOPPED
from strata.queue import keys

_PLACEHOLDER = re.compile(r"@([A-Z_]+)@")
STOPPED_TABLE = ", ".join(f"{status.value} = true" for status in sorted(STOPPED))  # as fields of a Lua table


def load_script(name: str, **values: str) -> str:
    """The source of `NAME.lua` with each placeholder `@WORD@` replaced by the argument of the same name.

    Raises KeyError for a placeholder without a value, and FileNotFoundError for an unknown script.
    """
    source = files(__package__).joinpath(f"{name}.lua").read_text(encoding="utf-8")
    return _PLACEHOLDER.sub(lambda match: values[match[1]], source)


def load_with_waits(name: str, **values: str) -> str:
    """`load_script` for a script that uses the functions of `waits.lua` and `lanes.lua`, in place of `@WAITS@`."""
    prefixes = {
        "stream": keys.stream("", "").removesuffix(":"),
        "waits": keys.waits(""),
        "waiting": keys.waiting("", "").removesuffix(":"),
        "parked": keys.parked("", "", "").removesuffix("::"),
        "returning": keys.returning(""),
        "lane": keys.lane("", "", "").removesuffix("::"),
        "turns": keys.turns("", "").removesuffix(":"),
    }
    names = "{" + ", ".join(f"{word} = '{prefix}'" for word, prefix in prefixes.items()) + "}"
    waits = load_script("waits", NAMES=names, WAITERS=keys.waiters(""))
    lanes = load_script("lanes", CONSUMER_GROUP=keys.CONSUMER_GROUP, CALLER=keys.CALLER)
    return load_script(name, WAITS=waits + lanes, CALLER=keys.CALLER, **values)


def open_jobs_script() -> str:
    """The functions of `open_jobs.lua`, for the placeholder `@OPEN_JOBS@` of scripts that change jobs."""
    names = {"OPEN": keys.OPEN, "CLOSED": keys.closed("", 0).removesuffix(":0"), "CHANGED": keys.CHANGED}
    return load_script("open_jobs", JOB=keys.JOB, ACTIVE=keys.ACTIVE, SETTLED=keys.SETTLED, **names)
