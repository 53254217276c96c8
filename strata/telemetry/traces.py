"""Traces: spans from a request to the parts of its job, sent by OpenTelemetry where OTEL_EXPORTER_OTLP_ENDPOINT says.

Without that variable nothing of OpenTelemetry is imported. Its own variables set the rest: headers, sampling, the name
of the service. A span has ids and numbers, no names of files, and of an error its type alone.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

import strata

log = logging.getLogger(__name__)

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
FLUSH_MS = 2000  # to send the last spans at the end of a process
_HEADER = "traceparent"  # W3C Trace Context
Given = ParamSpec("Given")
Result = TypeVar("Result")
Note = Callable[..., None]  # sets attributes of a span; `name` replaces its name

_provider: Any = None


def begin_traces(part: str) -> bool:
    """Send the spans of this process from now on, if an endpoint is set and OpenTelemetry is installed; whether so.

    part: the service's name is `strata-PART`, unless OpenTelemetry's variables name it.
    """
    global _provider
    if not any(os.environ.get(name, "").strip() for name in ENDPOINTS):
        return False
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        log.warning("%s is set, but no traces are sent: `pip install strata[otel]` is missing", ENDPOINTS[0])
        return False
    named = "OTEL_SERVICE_NAME" in os.environ or "service.name" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    own = {} if named else {"service.name": f"strata-{part}"}
    provider = TracerProvider(resource=Resource.create({**own, "service.version": strata.__version__}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _provider = provider
    return True


def end_traces() -> None:
    """Send what is left, and send nothing more."""
    global _provider
    provider, _provider = _provider, None
    if provider is not None:
        provider.force_flush(FLUSH_MS)
        provider.shutdown()


def is_traced() -> bool:
    """Whether this process sends spans."""
    return _provider is not None


@contextmanager
def span(name: str, parents: Sequence[str] = (), server: bool = False, **attributes: str | float) -> Iterator[Note]:
    """A span around the block, and a function that sets attributes of it.

    parents: of other processes, as `current_trace` told them; the first valid one is the parent, the others are linked.
    Without any it is the current span. server: whether the span is the answer to a request.
    """
    if _provider is None:
        yield _ignore
        return
    from opentelemetry.trace import Link, SpanKind, Status, StatusCode, get_current_span

    contexts = [context for text in dict.fromkeys(parents) if (context := _context_of(text)) is not None]
    links = [Link(get_current_span(context).get_span_context()) for context in contexts[1:]]
    kind = SpanKind.SERVER if server else SpanKind.INTERNAL
    # errors are not recorded as they are: their texts may quote an address with a key
    with _provider.get_tracer("strata").start_as_current_span(
        name,
        context=contexts[0] if contexts else None,
        kind=kind,
        attributes=attributes,
        links=links,
        record_exception=False,
        set_status_on_exception=False,
    ) as current:
        try:
            yield functools.partial(_note, current)
        except BaseException as error:
            current.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise


def _note(current: Any, name: str = "", **attributes: str | float) -> None:
    if name:
        current.update_name(name)
    current.set_attributes(attributes)


def _ignore(name: str = "", **attributes: str | float) -> None:
    pass


def current_trace() -> str:
    """The current span as a `traceparent` of W3C Trace Context, for another process; empty if there is none."""
    if _provider is None:
        return ""
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get(_HEADER, "")


def _context_of(traceparent: str) -> Any:
    """The context of another process; None if the text is none."""
    from opentelemetry.trace import get_current_span
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    context = TraceContextTextMapPropagator().extract({_HEADER: traceparent})
    return context if get_current_span(context).get_span_context().is_valid else None


def carried(act: Callable[Given, Result]) -> Callable[Given, Result]:
    """The function, which runs within the current span also in another thread."""
    if _provider is None:
        return act
    from opentelemetry.context import attach, detach, get_current

    context = get_current()

    @functools.wraps(act)
    def act_within(*args: Given.args, **named: Given.kwargs) -> Result:
        token = attach(context)
        try:
            return act(*args, **named)
        finally:
            detach(token)

    return act_within
