"""The table of all metrics of `GET /metrics`, named as Prometheus wants it: base units, and `_total` for counters."""

from __future__ import annotations

from typing import Literal, NamedTuple

# seconds of one call of a model on a batch: a matcher on a GPU takes milliseconds, a chat server minutes
CALL_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
BATCH_ITEMS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class Family(NamedTuple):
    """One metric. name: without the ending `_total` of a counter; buckets: the upper bounds of a histogram's.

    where: "sums" if all processes add to it, so that every API process shows the same numbers of the installation;
    "state" if it is read from Redis when it is asked for; "process" if it is of the API process that answers.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    where: Literal["sums", "state", "process"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


_TABLE = (
    # counted in the step that finishes a chunk
    Family("strata_rows", "counter", "sums", "Rows written to parts.", ("group", "status", "reason")),
    Family("strata_rows_reused", "counter", "sums", "Rows of chunks that were copied from earlier parts.", ("group",)),
    Family("strata_chunks_finished", "counter", "sums", "Chunks whose part is written.", ("group",)),
    Family("strata_tokens", "counter", "sums", "Tokens of model servers.", ("stage", "direction")),
    Family("strata_model_requests", "counter", "sums", "Requests to model servers.", ("stage",)),
    Family("strata_money", "counter", "sums", "Cost at the prices of the profile, in their currency.", ("profile",)),
    Family("strata_verifier_sentences", "counter", "sums", "Sentences that the verifier checked."),
    Family("strata_verifier_cuts", "counter", "sums", "Sentences that the verifier cut or shortened.", ("reason",)),
    # counted in each process
    Family(
        "strata_stage_duration_seconds", "histogram", "sums", "Calls of a model on a batch.", ("stage",), CALL_SECONDS
    ),
    Family("strata_stage_batch_items", "histogram", "sums", "Items of such a batch.", ("stage",), BATCH_ITEMS),
    Family("strata_guard_rejections", "counter", "sums", "Texts that a guard rejected.", ("stage", "reason")),
    Family("strata_retries", "counter", "sums", "Repeated calls to what was away.", ("cause",)),
    Family("strata_job_retries", "counter", "sums", "Jobs that were run again."),
    Family("strata_chunks_reclaimed", "counter", "sums", "Chunks taken over from a lost worker.", ("group",)),
    Family("strata_chunks_stepped_aside", "counter", "sums", "Chunks that wait for a stage.", ("group", "stage")),
    Family("strata_deadlines_exceeded", "counter", "sums", "Workers ended because a call hung.", ("part",)),
    Family("strata_jobs_created", "counter", "sums", "Jobs that were accepted.", ("kind",)),
    Family("strata_jobs_ended", "counter", "sums", "Jobs that have ended.", ("kind", "status")),
    # read when they are asked for
    Family("strata_redis_up", "gauge", "state", "Whether Redis answers; without it only `process` metrics are shown."),
    Family("strata_store_up", "gauge", "state", "Whether the store can be used."),
    Family("strata_jobs_unfinished", "gauge", "state", "Jobs that are computed or wait."),
    Family("strata_backlog_images", "gauge", "state", "Images still to be computed.", ("group", "priority")),
    Family("strata_backlog_ready_images", "gauge", "state", "Those that the group before has done.", ("group",)),
    Family("strata_backlog_shards", "gauge", "state", "Shards still to be indexed.", ("priority",)),
    Family("strata_backlog_oldest_age_seconds", "gauge", "state", "Age of the oldest job.", ("group", "priority")),
    Family("strata_queue_chunks", "gauge", "state", "Chunks in the queue, waiting or in work.", ("group",)),
    Family("strata_workers", "gauge", "state", "Workers that report.", ("group", "state")),
    Family("strata_profile_workers", "gauge", "state", "Ready workers with the default profile loaded.", ("group",)),
    Family("strata_chunks_held_up", "gauge", "state", "Chunks whose worker waits for a storage.", ("storage",)),
    Family("strata_worker_resident_memory_bytes", "gauge", "state", "Memory of the workers of a host.", ("host",)),
    Family("strata_gpu_memory_used_bytes", "gauge", "state", "Used by all processes.", ("host", "device")),
    Family("strata_gpu_memory_total_bytes", "gauge", "state", "Memory of the GPU.", ("host", "device")),
    Family("strata_gpu_memory_reserved_bytes", "gauge", "state", "Reserved by the workers.", ("host", "device")),
    Family("strata_gpu_utilization_ratio", "gauge", "state", "Share of the time in use.", ("host", "device")),
    # of the process that answers
    Family("strata_build_info", "gauge", "process", "Always 1.", ("version", "python")),
    Family(
        "strata_http_request_duration_seconds",
        "histogram",
        "process",
        "Requests until the end of the answer; waits and streams included.",
        ("method", "route", "status"),
        REQUEST_SECONDS,
    ),
    Family("strata_http_requests_in_flight", "gauge", "process", "Requests that are not answered yet."),
)
FAMILIES = {family.name: family for family in _TABLE}
SUMMED = {name: family for name, family in FAMILIES.items() if family.where == "sums"}
