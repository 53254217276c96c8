"""The interface of a stage: settings in the constructor, `load()`, then `run(batch)`, which keeps length and order.

A stage uses no queue and no store, so a worker, another engine and a test call it in the same way. A thread prepares
the pixels and tokens of the next batch while the model computes the current one. A batch that does not fit in memory
is halved, and the following batches have the smaller size too.

Whose fault an error is, is decided here. If an item of a batch fails, the batch is halved until that item is alone. It
is at fault (`Failure`) only if the stage still works right after it: if it computes an item that comes later in the
batch, or else its probe. If not, or if the error says that the process itself is broken, `run` raises StageBroken: no
item is at fault, and the process should end. A stage whose server is away raises StageUnavailable: the work waits.

Each call of the model has a deadline (`models.deadlines`), which follows from what its calls have taken so far. A stage
whose call has many steps reports each of them (`progress`); then the deadline begins anew, at most LONGEST times it.
"""

from __future__ import annotations

import functools
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Generic, TypeVar

from PIL import Image

from models.deadlines import DEADLINES, Activity, Pace
from models.faults import empty_cache, ends_process, free_memory, is_out_of_memory, reason_of, text_of
from models.items import (
    PROBES,
    BoxedImage,
    Detection,
    Failure,
    Pair,
    ReadLine,
    Segment,
    check_results,
    work_of,
)
from strata.core import STAGES_OF, StageSettings, Usage
from strata.errors import ProcessBroken, StrataError, WeightsError
from strata.telemetry import COUNTERS, span

StageItem = TypeVar("StageItem")
StageResult = TypeVar("StageResult")

GROUP_OF = {stage: group for group, stages in STAGES_OF.items() for stage in stages}
# batches that fit in memory before twice their size is tried again: at most one batch in 33 fails by it
GROW_AFTER = 32
LONGEST = 5  # times its deadline: a call that makes progress for longer ends at its next deadline, after six in all


class WeightsMissing(WeightsError, RuntimeError):
    """A stage's weights are not on this machine. The message names them and the command that fetches them."""


class StageUnavailable(StrataError, RuntimeError):
    """The stage cannot work now, for example because its server is unreachable. No image fails; retry later.

    reason: one line without secrets, which is also the message. stage: the stage's name. usage: what the interrupted
    batch has cost so far; the stage does not report it again. pause: seconds that the server asks to wait. kept: the
    same cost of other stages of the batch, which keep their answers for the next attempt.
    """

    def __init__(self, reason: str, stage: str = "", usage: Usage | None = None, pause: float = 0.0) -> None:
        super().__init__(reason)
        self.reason, self.stage, self.usage, self.pause = reason, stage, usage or Usage(), pause
        self.kept: dict[str, Usage] = {}

    @property
    def spent(self) -> dict[str, Usage]:
        """What the interrupted batch has cost so far, by stage."""
        return {**self.kept, self.stage: self.usage}


class StageRefused(StageUnavailable):
    """The stage's server answers, and refuses every request: a wrong key, address or model.

    A person has to change something. After some tries the jobs that wait for the stage end as failed with the reason.
    """


class StageUnfit(StrataError, RuntimeError):
    """The stage's server answers and charges, but never usefully: do not retry."""


class StageNotLoaded(StrataError, RuntimeError):
    """A stage cannot be built or loaded, or fails on its probe, on this machine now. No image was computed.

    memory: whether because memory lacks. The cause is the error itself.
    """

    def __init__(self, stage: str, error: BaseException) -> None:
        super().__init__(f"{stage} cannot be loaded: {reason_of(error)}")
        self.stage, self.memory = stage, is_out_of_memory(error)


class StageBroken(ProcessBroken, RuntimeError):
    """This process can compute nothing more with a stage, and no image is known to be at fault: it should end.

    memory: whether a single item found too little memory; then other items, and the process, are not affected.
    loading: whether this was found before any image was computed.
    """

    def __init__(self, stage: str, reason: str, memory: bool = False, loading: bool = False) -> None:
        super().__init__(f"{stage} is broken in this process: {reason}")
        self.stage, self.reason, self.memory, self.loading = stage, reason, memory, loading


class Stage(ABC, Generic[StageItem, StageResult]):
    """Runs one model on batches of items. Items and results by stage:

    Captioner: CaptionRequest -> Written. Detector: image -> list[Detection]. Segmenter: image -> list[Segment].
    Ocr: image -> list[ReadLine]. Matcher: Pair -> float or None. Composer: ComposeRequest -> Written. The two that
    write texts are described in `models.writers`.

    usage: the tokens and requests of each item of the last `run`; empty for a stage that calls no server. notes: of a
    verifier, why an item was not processed as the profile says, "" where it was; empty if none can be. turn: held
    while `compute` runs; stages that use one loaded model have the same (`models.shared`).
    """

    name: ClassVar[str]
    boxed: ClassVar[bool] = False
    """Of a segmenter: whether it makes the mask of each kept region, from its box. Its item is a BoxedImage."""
    usage: Sequence[Usage] = ()
    notes: Sequence[str] = ()
    turn: AbstractContextManager[Any] = nullcontext()
    make_room: Callable[[], None] = staticmethod(free_memory)
    """Called when not even one item fits in memory, before it is tried once more; who loads stages may replace it."""

    def __init__(self, settings: StageSettings) -> None:
        self.settings = settings
        self._size = settings.batch_size  # the largest batch that is known or assumed to fit in memory
        self._fitted = 0  # batches of that size that have fitted since the size changed
        self._pace = Pace()
        # for `compute` to call after each of its steps, in any thread
        self.progress: Callable[[], None] = lambda: None
        self._unproved = ""  # the last error, if nothing has been computed since: the stage may be broken

    @abstractmethod
    def load(self) -> None:
        """Load the weights into memory. Raises WeightsMissing."""

    def prepare(self, batch: Sequence[StageItem]) -> Any:
        """Make the input of `compute`: pixels and tokens on the model's device. By default it is the batch itself.

        It is called in a thread, while `compute` may run on the previous batch. It may raise any error.
        """
        return batch

    @abstractmethod
    def compute(self, batch: Any) -> list[StageResult]:
        """Run the model on the output of `prepare`, at most `settings.batch_size` items. Returns results in order.

        It may raise any error.
        """

    def run(self, batch: Sequence[StageItem]) -> list[StageResult | Failure]:
        """Process a batch of any length. Returns a result for each item in order, a Failure where an item failed.

        Raises StageUnavailable, StageUnfit or StageBroken if the stage itself has failed.
        """
        done: list[StageResult | Failure] = []
        prepared: dict[tuple[int, int], Future[Any]] = {}
        with ThreadPoolExecutor(1, thread_name_prefix=self.name) as preparing:
            while len(done) < len(batch):
                # prepare this batch (unless it was prepared in the previous turn) and the next one in the thread
                current = len(done), min(len(done) + self._size, len(batch))
                following = current[1], min(current[1] + self._size, len(batch))
                for span in (current, following):
                    if span[0] < span[1] and span not in prepared:
                        prepared[span] = preparing.submit(self.prepare, batch[slice(*span)])
                # compute; if the batch did not fit in memory, smaller batches are prepared instead
                results = self._attempt(batch[slice(*current)], prepared.pop(current))
                if results is None:
                    prepared.clear()
                else:
                    done += results
        return done

    def probe_item(self) -> StageItem | None:
        """A small item that the stage computes as long as it works; None: its faults are not told from its items'."""
        item: StageItem | None = PROBES.get(self.name)
        return item

    def probe(self) -> None:
        """Compute the probe, if there is one. Raises any error that `prepare` or `compute` raises."""
        item = self.probe_item()
        if item is not None:
            self._computed([item], functools.partial(self.prepare, [item]))

    def bound(self, item: StageItem) -> tuple[Usage, Usage]:
        """Upper bounds on the server usage of an item: with one try, and with all retries of the stage."""
        return Usage(), Usage()

    def release(self) -> None:
        """Drop kept answers, because the micro-batch is complete.

        Until then a stage may keep them, so that a micro-batch interrupted by StageUnavailable is not paid twice.
        """

    def keep(self) -> Usage:
        """Keep the answers since the last `release`: another stage has interrupted the micro-batch.

        Returns what they have cost; they are reported once more in the next attempt.
        """
        return Usage()

    def _attempt(self, batch: Sequence[StageItem], prepared: Future[Any]) -> list[StageResult | Failure] | None:
        """The results of one batch, or None if it did not fit in memory; the next batches are then half as large.

        Raises StageBroken.
        """
        results, shortage = self._if_it_fits(batch, prepared.result)
        # nothing smaller than one item can be tried: make room, and try once more
        if results is None and len(batch) == 1:
            self.make_room()
            results, shortage = self._if_it_fits(batch, functools.partial(self.prepare, batch))
            if results is None:
                raise StageBroken(self.name, shortage, memory=True)
        # shrink here and not where the error was caught: there its frames still reference the tensors
        elif results is None:
            self._set_size(len(batch) // 2)
            empty_cache()
            return None
        # after GROW_AFTER full batches that fit, try a larger size: memory may have been short for a moment only
        elif len(batch) == self._size < self.settings.batch_size:
            self._fitted += 1
            if self._fitted >= GROW_AFTER:
                self._set_size(min(2 * self._size, self.settings.batch_size))
        # the last item failed: it is at fault only if the stage works without it
        if self._unproved:
            self._prove()
        return results

    def _set_size(self, size: int) -> None:
        self._size, self._fitted = size, 0

    def _if_it_fits(
        self, batch: Sequence[StageItem], prepared: Callable[[], Any]
    ) -> tuple[list[StageResult | Failure] | None, str]:
        """The results of one batch; or None, and the error as a text, if it did not fit in memory."""
        try:
            return self._isolated(batch, prepared), ""
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return None, reason_of(error)

    def _isolated(
        self, batch: Sequence[StageItem], prepared: Callable[[], Any], again: bool = False
    ) -> list[StageResult | Failure]:
        """The results of one batch, with a Failure for each item that fails alone, twice. again: the second time.

        Raises StageBroken if the process is at fault, and the error itself if memory lacks.
        """
        try:
            return list(self._computed(batch, prepared))
        # errors of the stage itself, not of an item: halving the batch would repeat them
        except (StageUnavailable, StageUnfit, StageBroken):
            raise
        except BaseException as error:
            if is_interrupt(error) or is_out_of_memory(error):
                raise
            if ends_process(error):
                raise StageBroken(self.name, reason_of(error)) from error
            if len(batch) == 1 and again:
                self._unproved = reason_of(error)
                return [Failure(self.name, type(error).__name__, text_of(error))]
        # an item alone is tried once more: its error may have been chance
        if len(batch) == 1:
            return self._isolated(batch, functools.partial(self.prepare, batch), again=True)
        # prepare and compute each half, so that only the item at fault gets a Failure
        middle = len(batch) // 2
        return [
            result
            for half in (batch[:middle], batch[middle:])
            for result in self._isolated(half, functools.partial(self.prepare, half))
        ]

    def _computed(self, batch: Sequence[StageItem], prepared: Callable[[], Any]) -> list[StageResult]:
        """The results of one batch, which show that the stage works. Raises any error."""
        work = sum(map(work_of, batch))
        seconds = self._pace.limit(work, DEADLINES.limits)
        activity = Activity(GROUP_OF.get(self.name, ""), self.name, seconds, longest=LONGEST * seconds)
        # waiting for the turn is outside of the deadline: the stage that holds it has one of its own
        with self.turn, DEADLINES.watch(activity) as self.progress:
            began = time.monotonic()
            with span(f"stage {self.name}", items=len(batch)):
                results = self.compute(prepared())
            seconds = time.monotonic() - began
            self._pace.add(work, seconds)
        COUNTERS.observe("strata_stage_duration_seconds", seconds, self.name)
        COUNTERS.observe("strata_stage_batch_items", len(batch), self.name)
        check_results(self.name, results, batch)
        self._unproved = ""
        return results

    def _prove(self) -> None:
        """Compute the probe after an item has failed. Raises StageBroken if that fails too."""
        reason, self._unproved = self._unproved, ""
        try:
            self.probe()
        except (StageUnavailable, StageUnfit):
            raise
        except BaseException as error:
            if is_interrupt(error):
                raise
            raise StageBroken(self.name, f"{reason}; then its probe failed: {reason_of(error)}") from error


def cpu_threads() -> int:
    """CPU threads of a model: the worker's setting STRATA_THREADS, which reaches this process as OMP_NUM_THREADS."""
    return max(1, int(os.environ.get("OMP_NUM_THREADS", "1")))


def is_interrupt(error: BaseException) -> bool:
    """Whether somebody has pressed Ctrl-C: Python raises that in the main thread, where no worker computes."""
    return isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread()


DetectorStage = Stage[Image.Image, list[Detection]]
SegmenterStage = Stage[Image.Image, list[Segment]]
BoxSegmenterStage = Stage[BoxedImage, list[Segment | None]]  # a segmenter whose `boxed` is true
OcrStage = Stage[Image.Image, list[ReadLine]]
MatcherStage = Stage[Pair, float | None]
