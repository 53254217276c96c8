"""`/metrics` in the text form of Prometheus: sums of all processes, the present state, and this process's requests."""

from __future__ import annotations

import platform
from collections import Counter as Count
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

import strata
from app.store_probe import StoreProbe
from strata.core import GROUPS, Profile, ProfileError, TextSettings
from strata.errors import QueueUnavailable
from strata.jobs import Jobs
from strata.queue import PRIORITIES, Heartbeat
from strata.telemetry import FAMILIES, SUMMED, Family
from strata.telemetry.counters import BETWEEN, COUNTERS, INFINITE, SUM

Metric = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily
Values = Mapping[Any, float]  # a gauge's numbers, by the tuple of the values of its labels
_STATES = ("ready", "loading")
# in the text form a second series of each histogram would have the time of its first value
disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """The metrics that one API process shows. profile: the default profile as its file is now; may raise ProfileError.

    Requests are those of this process. Everything else is of the whole installation, whichever process is asked.
    """

    def __init__(self, jobs: Jobs, store_probe: StoreProbe, profile: Callable[[], Profile]) -> None:
        self.jobs = jobs
        self._registry = CollectorRegistry()
        build = FAMILIES["strata_build_info"]
        info = Gauge(build.name, build.help, build.labels, registry=self._registry)
        info.labels(strata.__version__, platform.python_version()).set(1)
        requests, flying = FAMILIES["strata_http_request_duration_seconds"], FAMILIES["strata_http_requests_in_flight"]
        self._requests = Histogram(
            requests.name, requests.help, requests.labels, buckets=requests.buckets, registry=self._registry
        )
        self._in_flight = Gauge(flying.name, flying.help, registry=self._registry)
        self._registry.register(_Installation(jobs, store_probe, profile))

    def observe(self, method: str, route: str, status: str, seconds: float) -> None:
        """Count a request that has ended."""
        self._requests.labels(method, route, status).observe(seconds)

    def in_flight(self, change: int) -> None:
        """Count a request that begins (1) or ends (-1)."""
        self._in_flight.inc(change)

    def page(self, accept: str) -> tuple[bytes, str]:
        """The page and its media type. accept: the request's header, by which Prometheus asks for a form."""
        tell_counts(self.jobs)
        encode, media_type = choose_encoder(accept)
        return encode(self._registry), media_type


def tell_counts(jobs: Jobs) -> None:
    """Add what this process has counted to the sums in Redis; without Redis later."""
    with suppress(QueueUnavailable):
        COUNTERS.tell(jobs.queue.sums.add)


class _Installation(Collector):
    """Reads the sums and the state from Redis whenever the page is asked for."""

    def __init__(self, jobs: Jobs, store_probe: StoreProbe, profile: Callable[[], Profile]) -> None:
        self.jobs, self.store_probe, self.profile = jobs, store_probe, profile

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not read Redis."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """All metrics of the installation; of those in Redis none but `strata_redis_up`, if it does not answer."""
        yield _gauge("strata_store_up", {(): float(not self.store_probe.reason())})
        try:
            found = [*summed(self.jobs.queue.sums.read()), *self._state()]
        except QueueUnavailable:
            yield _gauge("strata_redis_up", {(): 0.0})
            return
        yield _gauge("strata_redis_up", {(): 1.0})
        yield from found

    def _state(self) -> Iterator[Metric]:
        yield from self._backlog()
        queue = self.jobs.queue
        yield _gauge("strata_queue_chunks", {(group,): queue.broker.depth(group) for group in GROUPS})
        heartbeats = queue.heartbeats.live()
        yield from _workers(heartbeats)
        yield from _resources(heartbeats)
        try:
            loaded = loaded_workers(self.profile(), heartbeats)
        except ProfileError:  # the file was removed or has a fault
            return
        yield _gauge("strata_profile_workers", {(group,): number for group, (_, number) in loaded.items()})

    def _backlog(self) -> Iterator[Metric]:
        """What is still to be computed, from the counts of all unfinished jobs."""
        parts = self.jobs.backlogs()
        yield _gauge("strata_jobs_unfinished", {(): sum(jobs for jobs, _ in parts.values())})
        by_group = [(group, priority, parts[priority][1][group]) for priority in PRIORITIES for group in GROUPS]
        images = {(group, priority): one.images for group, priority, one in by_group if group != GROUPS[0]}
        yield _gauge("strata_backlog_images", images)
        ready: Count[tuple[str, ...]] = Count()
        for group, _, one in by_group:
            ready[(group,)] += one.ready
        yield _gauge("strata_backlog_ready_images", {key: ready[key] for key in ready if key != (GROUPS[0],)})
        shards = {(priority,): one.shards for group, priority, one in by_group if group == GROUPS[0]}
        yield _gauge("strata_backlog_shards", shards)
        ages = {(group, priority): one.oldest_seconds or 0.0 for group, priority, one in by_group}
        yield _gauge("strata_backlog_oldest_age_seconds", ages)


def loaded_workers(profile: Profile, heartbeats: Iterable[Heartbeat]) -> dict[str, tuple[str, int]]:
    """By group with models: the fingerprint of a profile's stages, and how many ready workers have them loaded."""
    ready = [heartbeat for heartbeat in heartbeats if heartbeat.ready]
    found = {}
    for group in GROUPS[1:]:
        wanted = profile.model_copy(update={"texts": TextSettings()}).fingerprint(group)
        number = sum(any((one.group, one.fingerprint) == (group, wanted) for one in beat.loaded) for beat in ready)
        found[group] = wanted, number
    return found


def _workers(heartbeats: Iterable[Heartbeat]) -> Iterator[Metric]:
    workers: Count[tuple[str, ...]] = Count({(group, state): 0 for group in GROUPS for state in _STATES})
    held: Count[tuple[str, ...]] = Count({("store",): 0, ("shard",): 0})
    for heartbeat in heartbeats:
        for group in set(heartbeat.groups) & set(GROUPS):
            workers[(group, _STATES[not heartbeat.ready])] += 1
        held.update((one.stage,) for one in heartbeat.held_up)
    yield _gauge("strata_workers", workers)
    yield _gauge("strata_chunks_held_up", held)


def _resources(heartbeats: Iterable[Heartbeat]) -> Iterator[Metric]:
    """Memory of workers and GPUs by host: a worker's own name would be a new label after each restart."""
    memory: Count[tuple[str, ...]] = Count()
    used, total, reserved = dict[tuple[str, ...], float](), dict[tuple[str, ...], float](), Count[tuple[str, ...]]()
    busy = dict[tuple[str, ...], float]()
    for heartbeat in heartbeats:
        memory[(heartbeat.host,)] += heartbeat.resident_bytes
        for gpu in heartbeat.gpus:
            key = heartbeat.host, str(gpu.device)
            used[key] = max(used.get(key, 0.0), gpu.used_bytes)
            total[key] = gpu.total_bytes
            reserved[key] += gpu.reserved_bytes
            if gpu.utilization is not None:
                busy[key] = max(busy.get(key, 0.0), gpu.utilization)
    yield _gauge("strata_worker_resident_memory_bytes", {key: memory[key] for key in memory if key[0]})
    yield _gauge("strata_gpu_memory_used_bytes", used)
    yield _gauge("strata_gpu_memory_total_bytes", total)
    yield _gauge("strata_gpu_memory_reserved_bytes", reserved)
    yield _gauge("strata_gpu_utilization_ratio", busy)


def _gauge(name: str, values: Values) -> GaugeMetricFamily:
    family = FAMILIES[name]
    metric = GaugeMetricFamily(name, family.help, labels=family.labels)
    for labels, value in values.items():
        metric.add_metric(labels, value)
    return metric


def summed(sums: Mapping[str, float]) -> Iterator[Metric]:
    """All metrics that processes add up, from the fields of `field_of`. A field that is not known is passed over.

    A counter without labels begins at 0, so that its first increase is seen.
    """
    found: dict[str, dict[tuple[str, ...], float]] = defaultdict(dict)
    for field, number in sums.items():
        name, *values = field.split(BETWEEN)
        if name in SUMMED:
            found[name][tuple(values)] = number
    for name, family in SUMMED.items():
        if family.kind == "histogram":
            yield _histogram(family, found[name])
            continue
        metric = CounterMetricFamily(name, family.help, labels=family.labels)
        for labels, number in (found[name] or ({} if family.labels else {(): 0.0})).items():
            if len(labels) == len(family.labels):
                metric.add_metric(labels, number)
        yield metric


def _histogram(family: Family, fields: Mapping[tuple[str, ...], float]) -> HistogramMetricFamily:
    metric = HistogramMetricFamily(family.name, family.help, labels=family.labels)
    bounds = [f"{bound:g}" for bound in family.buckets] + [INFINITE]
    for labels in sorted({values[:-1] for values in fields if len(values) == len(family.labels) + 1}):
        counts, total = [], 0.0
        for bound in bounds:
            total += fields.get((*labels, bound), 0.0)
            counts.append((bound, total))
        metric.add_metric(labels, counts, fields.get((*labels, SUM), 0.0))
    return metric
