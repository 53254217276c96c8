"""Traces: a collector on loopback gets spans of a request, and of the chunks and parts of its job, as one trace."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from strata.queue.queue import Queue
from strata.telemetry import begin_traces, carried, current_trace, end_traces, is_traced, span
from tests.fakes import jpeg, wait_for_end, write_shard
from tests.secrets import SECRET
from tests.service import running_service

NAME = "a-name-for-nobody"
BROUGHT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Collector:
    """Takes OTLP over HTTP in protobuf. spans: all that have come; services: the names of their services."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.services: set[str] = set()

    def take(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            own = {one.key: one.value.string_value for one in resource.resource.attributes}
            self.services.add(own["service.name"])
            self.spans += [one for scope in resource.scope_spans for one in scope.spans]

    def named(self, name: str) -> Span:
        found = [one for one in self.spans if one.name == name]
        assert len(found) == 1, [one.name for one in self.spans]
        return found[0]


@contextmanager
def collecting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """Send the spans of the block to a collector, which has all of them after it."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces" and self.headers["Content-Type"] == "application/x-protobuf"
            collector.take(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    try:
        assert begin_traces("test")
        yield collector
    finally:
        end_traces()
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_request_and_the_parts_of_its_job_are_one_trace(
    queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with collecting(monkeypatch) as collector, running_service(queue, tmp_path) as service:
        headers = {"Prefer": "wait=120", "traceparent": BROUGHT}
        answer = service.client.post("/v1/captions", files={"file": ("a.jpg", jpeg())}, headers=headers)
        assert answer.status_code == 200
    request, vision, llm = (collector.named(name) for name in ("POST /v1/captions", "compute vision", "compute llm"))
    assert collector.services == {"strata-test"}
    # the caller's trace is gone on with
    assert request.trace_id.hex() == BROUGHT.split("-")[1] and request.parent_span_id.hex() == BROUGHT.split("-")[2]
    for compute in (vision, llm):
        assert (compute.trace_id, compute.parent_span_id) == (request.trace_id, request.span_id)
    parts = [one for one in collector.spans if one.name == "write part"]
    assert {one.parent_span_id for one in parts} == {vision.span_id, llm.span_id} and len(parts) == 2
    told = {one.key: one.value for one in request.attributes}
    assert told["http.route"].string_value == "/v1/captions" and told["http.response.status_code"].int_value == 200


def test_the_shards_of_a_job_and_what_the_scheduler_does_are_in_its_trace(
    queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with collecting(monkeypatch) as collector, running_service(queue, tmp_path) as service:
        shard = write_shard(tmp_path / "shards" / f"{NAME}.tar", [jpeg()] * 3)
        answer = service.client.post(
            "/v1/batches", json={"input": {"shards": [shard]}}, headers={"traceparent": BROUGHT}
        )
        wait_for_end(service.jobs, answer.json()["id"])
    request, indexed = collector.named("POST /v1/batches"), collector.named("index shard")
    queued = [one for one in collector.spans if one.name == "queue chunks"]
    assert {one.key: one.value for one in queued[-1].attributes}["group"].string_value == "vision"
    for one in (indexed, *queued, collector.named("compute vision"), collector.named("write end")):
        assert (one.trace_id, one.parent_span_id) == (request.trace_id, request.span_id)
    # the name of a shard is told to no collector
    assert not any(NAME.encode() in one.SerializeToString() for one in collector.spans)


def test_spans_follow_one_another_through_threads_and_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    with collecting(monkeypatch) as collector:
        with span("outer"):
            outer = current_trace()
            with ThreadPoolExecutor(1) as threads, span("inner"):
                threads.submit(carried(_leaf)).result()
        with pytest.raises(ValueError, match="key"), span("broken", ["no trace", outer, BROUGHT]):
            raise ValueError(f"the key {SECRET}")
    inner, leaf, broken = (collector.named(name) for name in ("inner", "leaf", "broken"))
    assert leaf.parent_span_id == inner.span_id and inner.parent_span_id.hex() == outer.split("-")[2]
    # of several parents the first valid one is it, and the others are linked; of an error the type is told
    assert broken.parent_span_id.hex() == outer.split("-")[2] and len(broken.links) == 1
    assert broken.status.message == "ValueError" and SECRET.encode() not in broken.SerializeToString()


def _leaf() -> None:
    with span("leaf", items=3):
        pass


def test_without_an_endpoint_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    assert not begin_traces("test") and not is_traced()
    with span("nothing") as note:
        note("still nothing", items=1)
        assert current_trace() == "" and carried(_leaf) is _leaf
