"""Windows: how much each API key has used of its quotas within a time up to now.

Redis' clock counts, in pieces of the time (`scripts/windows.lua`). One script asks and adds, so that a
quota holds however many processes ask at a time. If Redis is emptied, windows begin anew.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple, cast

from strata.queue import keys
from strata.queue.connection import Connection, translate_errors
from strata.queue.scripts import load_script

MINUTE, DAY = 60, 86_400
FOR_EVER = 0  # the seconds of a window that never ends
AT_ONCE = 1000  # things that one call of a script looks at: Redis serves nobody else meanwhile
PIECES = 60  # of a window


class Quota(NamedTuple):
    """What is counted: its name, and the seconds within which it counts."""

    name: str
    seconds: int


REQUESTS = Quota("requests", MINUTE)
IMAGES = Quota("images", DAY)
MONEY = Quota("money", DAY)  # in millionths; the ledger adds to it


def bytes_quota(days: float | None) -> Quota:
    """That of stored bytes, if uploads are kept for so many days; None: for ever."""
    return Quota("bytes", FOR_EVER if days is None else max(MINUTE, round(days * DAY)))


class Use(NamedTuple):
    """The answer of a window. had: how many of the things asked for may be had; left: how much there is still.

    after: the seconds after which the next thing fits, or, if all fit, something is free again; None: that never comes
    by waiting. counted: how much this call has counted.
    """

    had: int
    left: int
    after: int | None
    counted: int


@translate_errors
class Windows:
    """The windows of all keys. Every method raises QueueUnavailable."""

    def __init__(self, connection: Connection) -> None:
        self._redis = connection
        functions = window_functions()
        self._use = connection.register_script(load_script("use", WINDOWS=functions))
        self._give_back = connection.register_script(load_script("give_back", WINDOWS=functions))

    def use(self, quota: Quota, key_id: str, most: int, amount: int = 1) -> Use:
        """Use an amount, if it fits: `had` is 1 then, else 0, with nothing changed. An amount of 0 only asks."""
        thing = ["", str(amount)] if amount else []
        return _use_of(self._use(keys=[keys.used(quota.name, key_id)], args=[quota.seconds, most, *thing]))

    def use_for(self, quota: Quota, key_id: str, most: int, job_id: str, things: Sequence[tuple[str, int]]) -> Use:
        """Use a quota for a job: the first things as far as they fit, at most AT_ONCE, each with its name and amount.

        What the job has by this name is not counted a second time.
        """
        flat = [text for name, amount in things[:AT_ONCE] for text in (name, str(amount))]
        where = [keys.used(quota.name, key_id), keys.charged(job_id)]
        return _use_of(self._use(keys=where, args=[quota.seconds, most, *flat]))

    def use_upload(self, quota: Quota, key_id: str, most: int, upload: str, size: int) -> Use:
        """Use a quota for an upload (as `image_of` names it), which is not counted a second time, for whatever key."""
        where = [keys.used(quota.name, key_id), keys.STORED]
        return _use_of(self._use(keys=where, args=[quota.seconds, most, upload, str(size)]))

    def give_back_for(self, job_id: str, but: Collection[str] = ()) -> None:
        """Give back what a job has used, except the things with these names; once, however often it is called."""
        charged = cast("list[str]", self._redis.hkeys(keys.charged(job_id)))
        self._give_back_named(keys.charged(job_id), [name for name in charged if name not in but])

    def give_back_uploads(self, uploads: Iterable[str]) -> None:
        """Give back what uploads that are gone have used, each to the key for which it counts."""
        self._give_back_named(keys.STORED, list(uploads))

    def _give_back_named(self, counted: str, names: list[str]) -> None:
        for start in range(0, len(names), AT_ONCE):
            self._give_back(keys=[counted], args=names[start : start + AT_ONCE])


def window_functions() -> str:
    """The functions of `windows.lua`, for the placeholder `@WINDOWS@` of scripts that count in windows."""
    return load_script("windows", PIECES=str(PIECES))


def _use_of(reply: Any) -> Use:
    had, left, after, counted = (int(number) for number in reply)
    return Use(had, left, None if after < 0 else after, counted)
