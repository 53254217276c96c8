"""The estimate of a whole job, by the sample of its images that another job has described so far."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from strata.core import (
    FINAL_GROUP,
    GROUPS,
    Estimate,
    Figure,
    GroupEstimate,
    JobRequest,
    JobView,
    ReasonEstimate,
    Status,
)
from strata.counts import counted
from strata.errors import NotFound
from strata.estimates.intervals import Floats, inverse, of_mean, of_share, of_times, resampled_means, scaled
from strata.estimates.sampled import Sampled, Sizes, money_of, usage_of
from strata.estimates.times import Times, Whole, device_of, loading_of
from strata.jobs import Population
from strata.store import Store

CPU = "cpu"
HOUR = 3600.0
FEW_BATCHES = 8  # below which the interval of the time is mostly Student's t
_GROUPS = GROUPS[1:]


class NoSample(NotFound):
    """A job describes all its images, so that nothing is estimated by it."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"job {job_id} describes all its images; an estimate is made by a job of a sample")


class Workers(NamedTuple):
    """Who would compute the whole.

    ready: workers by group; None: it is not known how many there would be. in_turn: the groups compute one after the
    other.
    """

    ready: Mapping[str, int] | None
    in_turn: bool = False

    def of(self, group: str) -> int | None:
        """How many workers of a group are ready; None if that is not known."""
        return None if self.ready is None else self.ready.get(group, 0)


def estimate(store: Store, view: JobView, request: JobRequest, workers: Workers) -> Estimate:
    """The estimate by a job of a sample. Raises NoSample, BrokenPart and OSError.

    view: the job's envelope, read before its request.
    """
    sample = request.sample
    if sample is None:
        raise NoSample(request.id)
    population = store.parse_job_file(request.id, "population", Population) if sample.drawn else None
    known: dict[str, Any] = {"job": request.id, "status": view.status, "profile": request.profile, "seed": sample.seed}
    if population is None:
        return Estimate(**known, sampled=sample.images)
    found = _Estimating(request, population, Sampled.read(store, request), workers)
    return Estimate(
        **known,
        sampled=sum(one.images for one in request.indexed),
        described=len(found.sampled.records),
        shards=population.shards,
        unread=population.unread,
        images=population.images,
        to_compute=population.missing[FINAL_GROUP],
        groups={group: found.group(group) for group in _GROUPS},
        seconds=found.seconds(),
        gpu_hours=found.hours(gpu=True),
        cpu_hours=found.hours(gpu=False),
        prompt_tokens=found.prompt_tokens(),
        completion_tokens=found.completion_tokens(),
        money=found.money(),
        succeeded=found.status(Status.SUCCEEDED),
        filtered=found.status(Status.FILTERED),
        failed=found.status(Status.FAILED),
        reasons=found.reasons(),
        store_bytes=found.store_bytes(store) if view.status.final else None,
        notes=found.notes(),
    )


class _Estimating:
    """The figures of one estimate. For each group the means of images are (columns) read, written and paid."""

    def __init__(self, request: JobRequest, population: Population, sampled: Sampled, workers: Workers) -> None:
        assert request.sample is not None
        self.request, self.population, self.sampled, self.workers = request, population, sampled, workers
        self.prices = request.sample.prices
        self.whole = population.missing[FINAL_GROUP]  # images of which the sample is drawn
        self.described = len(sampled.records)
        self.times = {group: self._times(group) for group in _GROUPS}
        self.costs = self._costs()
        self.resampled = resampled_means(self.costs, request.sample.seed) if self.described else self.costs

    # time

    def _times(self, group: str) -> Times | None:
        """The time of one worker for all images that the group computes."""
        assert self.request.sample is not None
        missing = self.population.missing[group] * self._computed_part(group)
        whole = Whole(missing, self.population.chunks[group], self.request.sample.batch)
        return Times.of(self.sampled.timed(group), whole, self.request.sample.seed)

    def _computed_part(self, group: str) -> float:
        """Of how many sampled images a group has computed the rows; the others were copied from earlier results."""
        computed, images = self.sampled.computed_share(group)
        return computed / images if images else 1.0

    def _computes(self, group: str) -> bool:
        """Whether a group has to compute images, by the sample."""
        return self.population.missing[group] * self._computed_part(group) > 0

    def seconds(self) -> Figure | None:
        """The time until all is computed; None if a group has no worker, or its time is not known."""
        found, batches = list[Floats](), list[int]()
        for group in _GROUPS:
            if not self.population.missing[group]:
                continue
            times, ready = self.times[group], self.workers.of(group)
            if not ready or (times is None and self._computes(group)):
                return None
            if times is None:
                continue
            # more workers than chunks have nothing to do
            ready = min(ready, self.population.chunks[group])
            found.append(np.array([times.value, *times.resampled]) / ready)
            batches.append(times.batches)
        if not found:
            return None
        groups = np.array(found)
        total = groups.sum(axis=0) if self.workers.in_turn else groups.max(axis=0)
        return of_times(float(total[0]), total[1:], min(batches))

    def hours(self, gpu: bool) -> Figure | None:
        """The hours of all workers with a GPU, or without one; None if no group has such, or a time is not known."""
        if any(self._computes(group) and self.times[group] is None for group in _GROUPS):
            return None
        of = [group for group in _GROUPS if (device := self._device(group)) and (device != CPU) == gpu]
        times = [found for group in of if (found := self.times[group]) is not None]
        if not times:
            return None
        resampled = np.sum([one.resampled for one in times], axis=0)
        seconds = of_times(sum(one.value for one in times), resampled, min(one.batches for one in times))
        return scaled(seconds, 1 / HOUR)

    def _device(self, group: str) -> str | None:
        return device_of(self.sampled.works[group])

    def group(self, group: str) -> GroupEstimate:
        """What one group takes."""
        times, (computed, images) = self.times[group], self.sampled.computed_share(group)
        missing = self.population.missing[group]
        # the sample is one of all images, of which the group may have to compute a part only
        part = missing / self.whole if self.whole else 0.0
        to_compute = _exactly(missing) if computed == images else scaled(of_share(computed, images, self.whole), part)
        assert to_compute is not None
        seconds = None if times is None else of_times(times.value, times.resampled, times.batches)
        place, paid = _GROUPS.index(group) * 3, self._pays(group)
        return GroupEstimate(
            images=to_compute,
            measured=sum(work.images for work in self.sampled.timed(group)),
            images_per_second=inverse(seconds, to_compute.value) if seconds and to_compute.value else None,
            hours=scaled(seconds, 1 / HOUR),
            device=self._device(group),
            workers=self.workers.of(group),
            loading_seconds=loading_of(self.sampled.works[group]),
            prompt_tokens=self._cost([place]) if paid else None,
            completion_tokens=self._cost([place + 1]) if paid else None,
            money=self._cost([place + 2]) if paid and self._is_priced else None,
        )

    # tokens and money

    def _costs(self) -> Floats:
        """What each described image has cost: (images, 3 x groups) tokens read, tokens written, and money.

        A group that has to compute a part of the images only costs as much less. Rows that were copied have the usage
        of their first computation, and cost nothing.
        """
        rows = [
            [value for group in _GROUPS for value in (*usage_of(one, group), money_of(one, self.request, group))]
            for one in self.sampled.records
        ]
        costs = np.array(rows, dtype=float).reshape(len(rows), 3 * len(_GROUPS))
        missing = self.population.missing
        parts = [missing[one] * self._computed_part(one) / self.whole if self.whole else 0.0 for one in _GROUPS]
        weighed: Floats = costs * np.repeat(parts, 3)
        return weighed

    def _cost(self, columns: list[int]) -> Figure | None:
        """The sum of some columns over the whole."""
        if not self.described:
            return None
        mean = float(self.costs[:, columns].sum(axis=1).mean())
        return of_mean(mean, self.resampled[:, columns].sum(axis=1), self.described, self.whole)

    def _pays(self, group: str) -> bool:
        return group in self.request.paid

    @property
    def _is_priced(self) -> bool:
        return all(price is not None for price in self.prices.values())

    def prompt_tokens(self) -> Figure | None:
        """The tokens that all servers read; None if none is asked."""
        return self._of_paid(0)

    def completion_tokens(self) -> Figure | None:
        """The tokens that all servers write; None if none is asked."""
        return self._of_paid(1)

    def money(self) -> Figure | None:
        """What all servers cost; None if none is asked, or if a price is not known."""
        return self._of_paid(2) if self._is_priced else None

    def _of_paid(self, column: int) -> Figure | None:
        columns = [3 * place + column for place, group in enumerate(_GROUPS) if self._pays(group)]
        return self._cost(columns) if columns else None

    # rows and bytes

    def status(self, status: Status) -> Figure | None:
        """How many images get this status."""
        if not self.described:
            return None
        found = sum(record.status is status for record in self.sampled.records)
        return of_share(found, self.described, self.whole)

    def reasons(self) -> list[ReasonEstimate]:
        """How many images fail or are filtered, by reason, the commonest first."""
        found = Counter(
            (record.status.value, record.failure.stage, record.failure.error_type)
            for record in self.sampled.records
            if record.failure is not None
        )
        return [
            ReasonEstimate(
                status=status, stage=stage, error_type=kind, images=of_share(number, self.described, self.whole)
            )
            for (status, stage, kind), number in found.most_common()
        ]

    def store_bytes(self, store: Store) -> Figure | None:
        """The bytes of the parts of both groups; None if too few lists are there to measure them."""
        figures = list[Figure]()
        for group in _GROUPS:
            if not self.population.missing[group]:
                continue
            if (sizes := Sizes.of(store, self.sampled.parts[group])) is None:
                return None
            figures.append(self._bytes_of(group, sizes))
        return _sum(figures) if figures else None

    def _bytes_of(self, group: str, sizes: Sizes) -> Figure:
        assert self.request.sample is not None
        images = np.array(sizes.images)
        means = resampled_means(images[:, None], self.request.sample.seed)[:, 0]
        each = scaled(of_times(float(images.mean()), means, len(images)), self.population.missing[group])
        assert each is not None
        fixed = sizes.fixed * self.population.chunks[group]
        low, high = (None if end is None else end + fixed for end in (each.low, each.high))
        return Figure(value=each.value + fixed, low=low, high=high)

    # words

    def _why_nothing(self) -> str:
        """Why no image is to be computed."""
        if self.population.images:
            return "nothing is left to compute: all images have results"
        if self.population.unread == self.population.shards:
            return "no shard could be read"
        chosen = self.request.chosen
        return "no row passes the filter" if chosen and chosen.where else "no image is to be computed"

    def notes(self) -> list[str]:
        """What limits the figures, in sentences."""
        missing, told = self.population.missing, list[str]()
        if self.population.unread:
            # an earlier version has not kept the reason
            reason = f": {self.population.reason}" if self.population.reason else ""
            told.append(f"{self.population.unread:,} of {self.population.shards:,} shards cannot be read{reason}")
        if not self.whole:
            return [*told, self._why_nothing()]
        for group in _GROUPS:
            timed = self.sampled.timed(group)
            batches, warm = len(timed), any(work.first for work in timed)
            if missing[group] and self.workers.of(group) == 0:
                told.append(f"no worker of {group} is ready, so that the time until all is done is not known")
            computed, images = self.sampled.computed_share(group)
            if computed < images:
                copied = f"{images - computed:,} of {images:,}"
                told.append(f"{copied} sampled images have results of {group}, which are copied")
            if self._computes(group) and self.described and batches < FEW_BATCHES:
                also = ", in which the models warm up" if warm else ""
                told.append(f"the time of {group} is that of {counted(batches, 'micro-batch', 'micro-batches')}{also}")
        if missing[_GROUPS[0]] < self.whole:
            told.append(f"{self.whole - missing[_GROUPS[0]]:,} images have the layers of {_GROUPS[0]} already")
        if not self._is_priced:
            told.append("the profile has no prices for some of its servers, so that the money is not known")
        return told + self._budget_notes()

    def _budget_notes(self) -> list[str]:
        """Whether the job's budget is enough for the whole."""
        budget, told = self.request.budget, list[str]()
        read, written, money = self.prompt_tokens(), self.completion_tokens(), self.money()
        if budget is None or read is None or written is None:
            return told
        for limit, spent, name in (
            (budget.tokens, read.value + written.value, "tokens"),
            (budget.money, None if money is None else money.value, "money"),
        ):
            if limit is not None and spent is not None and spent > limit:
                images = int(self.whole * limit / spent)
                told.append(f"the budget of {limit:,.15g} ({name}) is spent after about {images:,} images")
        return told


def _exactly(number: float) -> Figure:
    return Figure(value=number, low=number, high=number)


def _sum(figures: Sequence[Figure]) -> Figure:
    """The sum of figures of the same images, whose errors add up."""
    lows, highs = ([getattr(one, end) for one in figures] for end in ("low", "high"))
    low, high = (None if None in ends else sum(ends) for ends in (lows, highs))
    return Figure(value=sum(one.value for one in figures), low=low, high=high)
