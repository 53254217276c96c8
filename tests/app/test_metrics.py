"""`/metrics`: what it shows agrees with the envelopes of jobs, its labels are bounded, and who may read it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from app.metrics.page import summed
from strata.queue import Heartbeat
from strata.queue.queue import Queue
from strata.telemetry import FAMILIES, Counters, field_of
from strata.telemetry.counters import MOST_VALUES, OTHER
from tests.fakes import jpeg, wait_for_end, write_shard
from tests.secrets import SECRET
from tests.service import Service, running_service

Samples = dict[str, dict[frozenset[tuple[str, str]], float]]


def scraped(service: Service) -> Samples:
    """All samples of the page: by name, then by labels."""
    response = service.client.get("/metrics")
    assert response.status_code == 200 and response.headers["content-type"].startswith("text/plain; version=")
    samples: Samples = {}
    for family in text_string_to_metric_families(response.text):
        assert family.name in FAMILIES and family.documentation == FAMILIES[family.name].help
        for sample in family.samples:
            samples.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    return samples


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples.get(name, {}).get(frozenset(labels.items()), 0.0)


def test_its_rows_are_those_of_the_jobs_envelope(queue: Queue, tmp_path: Path) -> None:
    with running_service(queue, tmp_path) as service:
        shard = write_shard(tmp_path / "shards" / "0.tar", [jpeg(), b"no image", jpeg()])
        job = str(service.submit(shard).json()["id"])
        wait_for_end(service.jobs, job)
        counts = service.jobs.view(job).request_counts
        samples = scraped(service)
        rows = samples["strata_rows_total"]
        for status in ("succeeded", "filtered", "failed"):
            found = sum(n for key, n in rows.items() if {("group", "llm"), ("status", status)} <= key)
            assert found == getattr(counts, status)
        assert value(samples, "strata_jobs_created_total", kind="batch") == 1
        assert value(samples, "strata_jobs_ended_total", kind="batch", status="completed") == 1
        assert value(samples, "strata_backlog_images", group="llm", priority="lo") == 0
        assert value(samples, "strata_redis_up") == value(samples, "strata_store_up") == 1
        # a second job over the same shard computes nothing: the sums stay
        wait_for_end(service.jobs, service.submit(shard).json()["id"])
        assert scraped(service)["strata_rows_total"] == rows
        # a retried row counts again, though the job has it once; what was counted of a deleted job stays
        service.jobs.retry(job)
        wait_for_end(service.jobs, job)
        again = scraped(service)["strata_rows_total"]
        assert service.jobs.view(job).request_counts == counts and counts.failed == 1
        failed = {key: n for key, n in again.items() if {("group", "llm"), ("status", "failed")} <= key}
        assert list(failed.values()) == [2.0]
        assert again == {**rows, **{key: 2.0 for key in rows if ("status", "failed") in key}}
        assert service.client.delete(f"/v1/jobs/{job}").status_code == 204
        assert scraped(service)["strata_rows_total"] == again


def test_it_shows_what_is_still_to_be_done_and_by_whom(queue: Queue, tmp_path: Path) -> None:
    with running_service(queue, tmp_path, workers=False) as service:
        service.caption(jpeg(), wait=None)
        beat = Heartbeat(name="w", pid=1, groups=["vision"], ready=True, chunks=[], host="h", resident_bytes=7)
        queue.heartbeats.publish(beat, 600)
        samples = scraped(service)
        assert value(samples, "strata_backlog_images", group="vision", priority="hi") == 1
        assert value(samples, "strata_backlog_images", group="vision", priority="lo") == 0
        assert value(samples, "strata_backlog_oldest_age_seconds", group="vision", priority="hi") > 0
        assert value(samples, "strata_workers", group="vision", state="ready") == 1
        assert value(samples, "strata_workers", group="llm", state="ready") == 0
        assert value(samples, "strata_worker_resident_memory_bytes", host="h") == 7
        listed = service.client.get("/v1/workers").json()["workers"]
        assert [(one["name"], one["ready"], one["groups"]) for one in listed] == [("w", True, ["vision"])]


def test_requests_are_told_by_templates(queue: Queue, tmp_path: Path) -> None:
    with running_service(queue, tmp_path, workers=False) as service:
        for path in ("/v1/jobs/secret-name", "/v1/jobs/other-name?x=1", "/nowhere/at/all", "/healthz"):
            service.client.get(path)
        service.client.request("BREW", "/healthz")
        seen = scraped(service)["strata_http_request_duration_seconds_count"]
        labels = {tuple(dict(key)[name] for name in ("method", "route", "status")): n for key, n in seen.items()}
        assert labels[("GET", "other", "4xx")] == 1 and labels[("GET", "/healthz", "2xx")] == 1
        assert {route for _, route, _ in labels} >= {"/v1/jobs/{job_id}"} and not any(
            "name" in route for _, route, _ in labels
        )
        assert {method for method, _, _ in labels} == {"GET", "other"}


@pytest.mark.parametrize(
    ("setting", "headers", "status"),
    [
        ("auto", {}, 401),  # the test's client is none of this machine
        ("auto", {"Authorization": f"Bearer {SECRET}"}, 200),
        ("key", {}, 401),
        ("open", {}, 200),
        ("off", {"Authorization": f"Bearer {SECRET}"}, 404),
    ],
)
def test_who_may_read_it(queue: Queue, tmp_path: Path, setting: str, headers: dict[str, str], status: int) -> None:
    with running_service(queue, tmp_path, workers=False, api_key=SECRET, metrics=setting) as service:
        assert service.client.get("/metrics", headers=headers).status_code == status


def test_it_answers_without_redis(queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_service(queue, tmp_path, workers=False) as service:
        from strata.errors import QueueUnavailable

        def away() -> None:
            raise QueueUnavailable("away")

        monkeypatch.setattr(queue.sums, "read", away)
        samples = scraped(service)
        assert value(samples, "strata_redis_up") == 0 and "strata_rows_total" not in samples


@given(st.lists(st.floats(0, 1000), max_size=30))
def test_a_histogram_is_the_same_after_its_way_through_fields(values: list[float]) -> None:
    counters = Counters()
    for one in values:
        counters.observe("strata_stage_duration_seconds", one, "captioner")
    (family,) = [one for one in summed(counters.drain()) if one.name == "strata_stage_duration_seconds"]
    bounds = {s.labels["le"]: s.value for s in family.samples if s.name.endswith("_bucket")}
    for bound, count in bounds.items():
        assert count == sum(one <= float(bound) for one in values)
    if values:
        assert bounds["+Inf"] == len(values)


@given(st.text(max_size=100))
def test_labels_are_plain_and_few(text: str) -> None:
    field = field_of("strata_rows", "llm", "failed", text)
    assert field.count("|") == 3 and field.isascii() and len(field) < 100


def test_a_process_tells_a_bounded_number_of_values() -> None:
    fields = {field_of("strata_retries", f"cause-{number}") for number in range(3 * MOST_VALUES)}
    assert len(fields) <= MOST_VALUES + 1 and f"strata_retries|{OTHER}" in fields


def test_sums_outlive_those_who_added_to_them(queue: Queue) -> None:
    queue.sums.add({"strata_retries|storage": 1.5})
    queue.sums.add({"strata_retries|storage": 1.0, "of another version": 1.0})
    (family,) = [one for one in summed(queue.sums.read()) if one.name == "strata_retries"]
    assert [(sample.labels, sample.value) for sample in family.samples] == [({"cause": "storage"}, 2.5)]


def test_what_could_not_be_told_is_told_later() -> None:
    counters, told = Counters(), list[float]()
    counters.add("strata_job_retries")

    def fail(_: object) -> None:
        raise OSError

    with pytest.raises(OSError):
        counters.tell(fail)
    counters.add("strata_job_retries", by=2)
    for _ in range(2):
        counters.tell(lambda sums: told.append(sum(sums.values())))
    assert told == [3, 0]


def test_names_follow_the_conventions() -> None:
    for family in FAMILIES.values():
        assert family.name.startswith("strata_") and not family.name.endswith("_total") and family.help.endswith(".")
        assert not set(family.labels) & {"le", "quantile", "job", "instance"}  # Prometheus sets them
        assert (family.kind == "histogram") == bool(family.buckets)
