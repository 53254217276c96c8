"""The engine `local`: all groups in threads of this process, without a server, a queue or Redis."""

from __future__ import annotations

import functools
import queue
import threading
import time
from collections.abc import Sequence

from strata.core import GROUPS, Chunk, Settings, load_profile
from strata.errors import ProcessBroken
from strata.garbage import collector_spared
from strata.store import texts_of
from workers.engines.feeding import Ended, FedClaims
from workers.engines.groups import GroupMaker, loaded_group, quiet_libraries
from workers.engines.job import EngineJob
from workers.groups import Group
from workers.profile_versions import ProfileVersions
from workers.runner import Runner

LOOK_SECONDS = 0.2  # between two looks whether the run is to end


class LocalEngine:
    """Computes chunks of a job in this process. in_turn: the models of one group at a time are in memory."""

    def __init__(self, job: EngineJob, settings: Settings, group_of: GroupMaker, in_turn: bool) -> None:
        self.job, self.settings, self.group_of, self.in_turn = job, settings, group_of, in_turn
        self.profiles = ProfileVersions(
            functools.partial(load_profile, folder=settings.profiles_dir), functools.partial(texts_of, job.store)
        )
        self._groups: dict[str, Group] = {}
        quiet_libraries(settings.threads)

    def compute(self, chunks: Sequence[Chunk]) -> None:
        """Compute chunks and those of later groups with the same images. Raises StrataError, ProcessBroken among it."""
        groups = [name for name in GROUPS[1:] if any(_reaches(one.group, name) for one in chunks)]
        waiting = {name: [one for one in chunks if one.group == name] for name in groups}
        for together in [[name] for name in groups] if self.in_turn else [groups]:
            if self.in_turn:
                self._groups.clear()
            following = self._compute(together, {name: waiting[name] for name in together})
            for chunk in following:
                waiting[chunk.group].append(chunk)

    def _compute(self, names: Sequence[str], chunks: dict[str, list[Chunk]]) -> list[Chunk]:
        """Compute chunks of some groups at a time; returns those of other groups that follow."""
        ends: queue.SimpleQueue[Ended] = queue.SimpleQueue()
        # load the models of all groups before the first chunk is computed
        for name in names:
            self._load(name)
        claims = {name: FedClaims(name, self.job.store, self.job.desk, self.job.request.id, ends.put) for name in names}
        runners = [Work(self._groups[name], claims[name], self._micro_batch) for name in names]
        left, later = 0, list[Chunk]()
        for name, own in chunks.items():
            claims[name].add(own)
            left += len(own)
        with collector_spared():
            for runner in runners:
                runner.start()
            try:
                while left and not self.job.stop.is_set() and all(runner.is_alive() for runner in runners):
                    self.job.in_hand = sum(fed.images_in_hand for fed in claims.values())
                    for ended in _taken(ends):
                        following = self._noted(ended)
                        left -= 1
                        if following is not None and following.group in claims:
                            claims[following.group].add([following])
                            left += 1
                        elif following is not None:
                            later.append(following)
            finally:
                for fed in claims.values():
                    fed.end()
                for runner in runners:
                    runner.join()
        # what was finished while the run was ending
        while not ends.empty():
            self._noted(ends.get())
        for runner in runners:
            if runner.error is not None:
                raise runner.error
        return later

    def _noted(self, ended: Ended) -> Chunk | None:
        """Note the end of a chunk; returns the one that follows it."""
        self.job.note(ended)
        return self.job.following(ended.chunk) if ended.how == "written" else None

    def _load(self, name: str) -> None:
        if name not in self._groups:
            self._groups[name] = loaded_group(
                name, self.group_of, self.job.store, self.profiles, self.settings, self.job.request.profile
            )

    @property
    def _micro_batch(self) -> int:
        return self.profiles.newest(self.job.request.profile).micro_batch


class Work(threading.Thread):
    """A thread that runs a runner until its claims end. error: why it has ended by itself."""

    def __init__(self, group: Group, claims: FedClaims, micro_batch: int) -> None:
        super().__init__(name=f"run {group.name}", daemon=True)
        self.error: BaseException | None = None
        self._runner, self._claims = Runner(group, claims, micro_batch), claims

    def run(self) -> None:
        try:
            self._runner.run(self._claims.stop)
        except ProcessBroken as error:
            self.error = error
        except BaseException as error:
            self.error = error
            raise


def _reaches(first: str, group: str) -> bool:
    """Whether chunks of the group `first` are followed by chunks of `group`."""
    return GROUPS.index(first) <= GROUPS.index(group)


def _taken(ends: queue.SimpleQueue[Ended]) -> list[Ended]:
    """The ends that are there now; waits a moment for the first."""
    try:
        found = [ends.get(timeout=LOOK_SECONDS)]
    except queue.Empty:
        return []
    until = time.monotonic() + LOOK_SECONDS
    while not ends.empty() and time.monotonic() < until:
        found.append(ends.get())
    return found
