"""The engine `ray`: the chunks of a job through Ray Data, with one pool of actors for each group.

A row of the data set is a pointer to a chunk; what actors write are parts, at the same paths and by the same code as
those of every engine. Ray places the actors, restarts those that have died and repeats their calls, and holds back the
first group while the second one is slow. What it lacks lies at the desk, an actor beside the driver: which images were
in flight at a death, the budget, what is waited for, and whether the run ends.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Self, cast

import numpy as np
import ray
from ray.data import ActorPoolStrategy, DataContext
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from models.deadlines import DEADLINES, Limits
from strata.cli.exits import PROCESS_BROKEN
from strata.core import STAGES_OF, Bill, Chunk, Cost, JobRequest, JobUsage, Settings, Waiting, load_profile
from strata.errors import ProcessBroken
from strata.logs import begin_log
from strata.queue import Notes, Reservation
from strata.store import Store, reason_of, texts_of
from workers.engines.desk import LocalDesk
from workers.engines.feeding import Ended, FedClaims
from workers.engines.groups import loaded_group, quiet_libraries
from workers.engines.job import EngineJob
from workers.engines.memory import MemoryBudget, MemoryNotes
from workers.engines.options import Options, Pool, group_maker
from workers.profile_versions import ProfileVersions
from workers.runner import Runner
from workers.watchdog import Watchdog

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.3  # between two looks at the desk
CALLS = 2  # blocks that an actor has at a time: the images of one are read while the other one is computed
QUEUED = 2 * CALLS  # blocks that are sent to an actor; a pool grows while its actors have almost so many
MOST_BLOCKS = 1000  # of a data set; chunks of larger jobs share blocks
OBJECT_STORE = 128 * 2**20  # bytes, of a Ray that is started here: its rows are pointers
GROUPS_OF_MODELS = ("vision", "llm")


class Desk(LocalDesk):
    """The desk in an actor of its own: it also keeps what became of chunks until the driver asks."""

    def __init__(self, request: JobRequest, bills: Sequence[tuple[str, Bill]]) -> None:
        super().__init__(MemoryNotes(), MemoryBudget(request.budget))
        self._priced, self._ended = request.priced, list[Ended]()
        for chunk_id, bill in bills:
            self.settle(chunk_id, bill)

    def note(self, ended: Ended) -> None:
        """Keep the end of a chunk for the driver."""
        self._ended.append(ended)

    def news(self) -> tuple[list[Ended], JobUsage, Waiting | None]:
        """The chunks that have ended since the last call, what was spent, and what is waited for."""
        ended, self._ended = self._ended, []
        return ended, self.budget.usage(self._priced), self.waiting

    def end(self) -> None:
        """No chunk is wanted any more."""
        self.stopped.set()


class DeskClient:
    """The desk as another process sees it: each method is a call of the actor. handle: of the actor."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def _call(self, name: str, *given: Any) -> Any:
        return ray.get(self._handle.call.remote(name, given))

    def deliveries(self, chunk_id: str) -> int:
        return cast(int, self._call("deliveries", chunk_id))

    def forget(self, chunk_id: str) -> None:
        self._call("forget", chunk_id)

    def note(self, ended: Ended) -> None:
        self._call("note", ended)

    def news(self) -> tuple[list[Ended], JobUsage, Waiting | None]:
        return cast("tuple[list[Ended], JobUsage, Waiting | None]", self._call("news"))

    def end(self) -> None:
        self._call("end")

    def wait_for(self, who: str, stage: str, reason: str, attempts: int) -> None:
        self._call("wait_for", who, stage, reason, attempts)

    def works(self, who: str) -> None:
        self._call("works", who)

    def is_stopped(self) -> bool:
        return cast(bool, self._call("is_stopped"))

    def take_over(self, chunk_id: str) -> Notes:
        return cast(Notes, self._call("take_over", chunk_id))

    def mark(self, chunk_id: str, row: int | None = None) -> None:
        self._call("mark", chunk_id, row)

    def clear(self, chunk_id: str) -> None:
        self._call("clear", chunk_id)

    def computed(self, chunk_id: str, row: int | None = None) -> None:
        self._call("computed", chunk_id, row)

    def ended(self, chunk_id: str, suspects: Collection[int], alone: int | None, reason: str, saved: bool) -> None:
        self._call("ended", chunk_id, suspects, alone, reason, saved)

    def go_on(self, chunk_id: str) -> None:
        self._call("go_on", chunk_id)

    def try_again(self, chunk_id: str, notes: Notes, in_a_row: int, chunk_deaths: int) -> None:
        self._call("try_again", chunk_id, notes, in_a_row, chunk_deaths)

    def reserve(self, job_id: str, chunk_id: str, entry: str, cost: Cost) -> Reservation:
        return cast(Reservation, self._call("reserve", job_id, chunk_id, entry, cost))

    def remaining(self, job_id: str) -> str:
        return cast(str, self._call("remaining", job_id))

    def settle(self, chunk_id: str, bill: Bill) -> None:
        self._call("settle", chunk_id, bill)


class GroupWorker:
    """What an actor does: it loads a group's models once, and computes the chunks of its calls with one runner."""

    def __init__(self, group: str, settings: Settings, options: Options, request: JobRequest, desk: Any) -> None:
        begin_log()
        quiet_libraries(settings.threads)
        # what hangs is ended by another process; Ray starts a new actor
        self._watchdog = Watchdog("actor", None)
        self._watchdog.look_after()
        DEADLINES.report(self._watchdog.publish, Limits(settings.hang_seconds))
        self.request, self.group = request, group
        store = Store(settings.store_uri, settings.moved_roots)
        profiles = ProfileVersions(
            functools.partial(load_profile, folder=settings.profiles_dir), functools.partial(texts_of, store)
        )
        made = loaded_group(group, group_maker(options.groups), store, profiles, settings, request.profile)
        self._desk = DeskClient(desk)
        self._ends: dict[str, Future[Ended]] = {}  # by the ids of the chunks in hand
        self._guard = threading.Lock()
        self.claims = FedClaims(group, store, self._desk, request.id, self._end)
        runner = Runner(made, self.claims, profiles.newest(request.profile).micro_batch)
        threading.Thread(target=self._run, args=(runner,), name=f"run {group}", daemon=True).start()

    def compute(self, rows: Mapping[str, Any]) -> dict[str, Any]:
        """The chunks of the next group for the rows of a block, whose own chunks are computed here.

        A chunk of another group passes. A chunk that has no part afterwards has no row either.
        """
        chunks = [Chunk.from_fields(json.loads(text)) for text in rows["chunk"]]
        own = [chunk for chunk in chunks if chunk.group == self.group]
        if self._desk.is_stopped():
            return _rows([])
        # a call that is repeated may find its chunks in hand
        with self._guard:
            new = [chunk for chunk in own if chunk.id not in self._ends]
            self._ends |= {chunk.id: Future() for chunk in new}
            ends = [self._ends[chunk.id] for chunk in own]
        self.claims.add(new)
        following = [chunk for chunk in chunks if chunk.group != self.group]
        for chunk, end in zip(own, ends, strict=True):
            if end.result().how == "written" and self.group == GROUPS_OF_MODELS[0]:
                following.append(chunk.of_group(GROUPS_OF_MODELS[1], self.request.fingerprints[GROUPS_OF_MODELS[1]]))
        return _rows(following)

    def _end(self, ended: Ended) -> None:
        self._desk.note(ended)
        with self._guard:
            end = self._ends.pop(ended.chunk.id)
        end.set_result(ended)

    def _run(self, runner: Runner) -> None:
        try:
            runner.run(self.claims.stop)
        except ProcessBroken as error:
            # the notes are at the desk; Ray starts a new process, and repeats the calls
            log.error("the actor ends: %s", error)
            os._exit(PROCESS_BROKEN)
        except BaseException:
            log.exception("the actor ends")
            os._exit(1)


class RayEngine:
    """Computes chunks of a job with Ray. A context manager: Ray is shut down at the end if it was started here."""

    def __init__(self, job: EngineJob, settings: Settings, options: Options) -> None:
        self.job, self.settings, self.options = job, settings, options
        self._desk: DeskClient | None = None
        self._handle: Any = None
        self._failure = ""

    def __enter__(self) -> Self:
        self._began = not ray.is_initialized()
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else Ray tells its makers how it is used
        if self._began:
            address = self.options.address or os.environ.get("RAY_ADDRESS")
            # one that is started here is for this run alone, and nobody else reaches it
            own = {"include_dashboard": False, "object_store_memory": OBJECT_STORE, "_node_ip_address": "127.0.0.1"}
            own = {} if address else own
            ray.init(address or "local", log_to_driver=False, logging_level="ERROR", **own)
        context = DataContext.get_current()
        context.enable_progress_bars = False
        return self

    def __exit__(self, *_: object) -> None:
        if self._handle is not None:
            ray.kill(self._handle)
        if self._began:
            ray.shutdown()

    def compute(self, chunks: Sequence[Chunk]) -> None:
        """Compute chunks and those of the next group with the same images."""
        if self._desk is None:
            self._handle = _desk_actor(self.job.request, self.job.bills)
            self._desk = DeskClient(self._handle)
        before, self._failure = self.job.written, ""
        stream = threading.Thread(target=self._stream, args=(chunks,), name="ray data", daemon=True)
        stream.start()
        told = False
        while stream.is_alive():
            stream.join(LOOK_SECONDS)
            self._look()
            if self.job.stop.is_set() and not told:
                told = True
                self._desk.end()
        self._look()
        if self._failure and self.job.written == before and not self.job.stop.is_set():
            self.job.fail(f"Ray: {self._failure}")

    def _look(self) -> None:
        """Note what the desk knows, and tell it."""
        assert self._desk is not None
        ended, usage, waiting = self._desk.news()
        for one in ended:
            self.job.note(one)
        self.job.seen = usage, waiting

    def _stream(self, chunks: Sequence[Chunk]) -> None:
        """Let the chunks run through the pools of both groups. What fails in Ray is planned again."""
        groups = [name for name in GROUPS_OF_MODELS if any(one.group in (name, GROUPS_OF_MODELS[0]) for one in chunks)]
        try:
            rows = [{"chunk": json.dumps(one.to_fields())} for one in chunks]
            data = ray.data.from_items(rows, override_num_blocks=min(len(rows), MOST_BLOCKS))
            for group in groups:
                data = data.map_batches(
                    _actor_class(),
                    fn_constructor_args=(group, self.settings, self.options, self.job.request, self._handle),
                    batch_size=None,
                    compute=self._strategy(group, len(rows)),
                    **self._resources(group, len(groups)),
                )
            for _ in data.iter_batches(batch_size=None):
                pass
        except Exception as error:
            # the driver plans what lacks once more
            log.warning("Ray: the data set has failed: %s", reason_of(error))
            self._failure = reason_of(error)

    def _strategy(self, group: str, rows: int) -> ActorPoolStrategy:
        """The pool of a group, which grows and shrinks with its work."""
        pool = self.options.pools.get(group, Pool())
        most = pool.most or max(1, int(sum(_places(self._resources(group, len(GROUPS_OF_MODELS))))))
        most = max(pool.least, min(most, rows))
        return ActorPoolStrategy(
            min_size=pool.least,
            max_size=most,
            max_tasks_in_flight_per_actor=QUEUED,
            max_concurrent_calls_per_actor=CALLS,
            enable_true_multi_threading=True,
        )

    def _resources(self, group: str, groups: int) -> dict[str, float]:
        """The CPUs and GPUs of one actor of a group.

        If nobody has said it: a GPU if the cluster has one for each group, else a part of it; none for a group whose
        stages all ask servers.
        """
        pool, there = self.options.pools.get(group, Pool()), ray.cluster_resources()
        cpus = pool.cpus if pool.cpus is not None else min(self.settings.threads, there.get("CPU", 1.0) / groups)
        gpus = pool.gpus
        if gpus is None:
            gpus = min(1.0, there.get("GPU", 0.0) / groups) if self._needs_gpu(group) else 0.0
        return {"num_cpus": cpus} | ({"num_gpus": gpus} if gpus else {})

    def _needs_gpu(self, group: str) -> bool:
        """Whether a stage of a group computes here, and asks no server."""
        profile = load_profile(self.job.request.profile, self.settings.profiles_dir)
        return bool({name for name in STAGES_OF[group] if name in profile.stages} - set(profile.paid(group)))


def _places(wanted: Mapping[str, float]) -> Iterator[float]:
    """How many actors have room on each node."""
    names = {"num_cpus": "CPU", "num_gpus": "GPU"}
    for node in ray.nodes():
        if node["Alive"]:
            found = [node["Resources"].get(names[name], 0.0) // number for name, number in wanted.items() if number]
            yield min(found, default=1.0)


def _rows(chunks: Sequence[Chunk]) -> dict[str, Any]:
    return {"chunk": np.array([json.dumps(chunk.to_fields()) for chunk in chunks], dtype=object)}


# Ray pickles a class of a function as it is, and a class of a module by its name. Only the first can be read by a
# process that does not find `workers` yet: in a wheel the package lies in a folder of its own (`strata.components`).


def _actor_class() -> Any:
    class StrataGroup:
        def __init__(self, group: str, settings: Any, options: Any, request: Any, desk: Any) -> None:
            from strata.components import load

            self.worker = load("workers.engines.ray", "ray").GroupWorker(group, settings, options, request, desk)

        def __call__(self, batch: Any) -> Any:
            return self.worker.compute(batch)

    return StrataGroup


def _desk_actor(request: JobRequest, bills: Sequence[tuple[str, Bill]]) -> Any:
    """Start the desk on the node of this process: it shall die with nothing else."""

    class StrataDesk:
        def __init__(self, request: Any, bills: Any) -> None:
            from strata.components import load

            self.desk = load("workers.engines.ray", "ray").Desk(request, bills)

        def call(self, name: str, given: Any) -> Any:
            return getattr(self.desk, name)(*given)

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(StrataDesk).options(num_cpus=0, scheduling_strategy=here).remote(request, list(bills))
