"""Calls of the service, written once for both clients: as generators of steps, which each client performs in its way.

A call yields a step (send a request, sleep, read the next event) and gets its answer; what it returns is the result.
`Client` performs the steps with `httpx.Client`, `AsyncClient` with `httpx.AsyncClient`. The decorators `call` and
`stream` make methods of such generators, with the types that they have in each client.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, overload

import httpx
from httpx_sse import aconnect_sse, connect_sse

P = ParamSpec("P")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Request:
    """Send a request. Its answer is the response, whatever its status."""

    method: str
    path: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Sleep:
    """Wait for so many seconds."""

    seconds: float


@dataclass(frozen=True)
class OpenEvents:
    """Open a stream of server-sent events. Its answer is an Opened; of an error response the body is read."""

    path: str
    headers: dict[str, str]


@dataclass(frozen=True)
class Opened:
    """An open stream of events. events: an iterator of a Client, or an asynchronous one of an AsyncClient."""

    response: httpx.Response
    events: Any


@dataclass(frozen=True)
class NextEvent:
    """Read the next event of a stream. Its answer is None at the stream's end."""

    of: Opened


@dataclass(frozen=True)
class Item(Generic[Result]):
    """Give the caller of a `stream` one of its items. Its answer is None."""

    value: Result


Step = Request | Sleep | OpenEvents | NextEvent
Steps = Generator[Step, Any, Result]
Items = Generator[Step | Item[Result], Any, None]
Next = Callable[[], Any]  # goes on with a generator of steps: with the answer of the last one, or with its error


class Performer:
    """Performs the steps of calls, and waits in between."""

    def __init__(self, http: httpx.Client, sleep: Callable[[float], None]) -> None:
        self._http, self._sleep = http, sleep

    def call(self, steps: Steps[Result]) -> Result:
        """Perform a call's steps to its end, and return its result. Raises what the call raises."""
        act: Next = functools.partial(next, steps)
        with ExitStack() as opened:
            while True:
                try:
                    step = act()
                except StopIteration as end:
                    result: Result = end.value
                    return result
                act = self._after(steps, step, opened)

    def stream(self, steps: Items[Result]) -> Iterator[Result]:
        """Perform a call's steps, and yield its items. What was opened is closed at the end."""
        act: Next = functools.partial(next, steps)
        with ExitStack() as opened:
            while (step := _next_or_none(act)) is not None:
                if isinstance(step, Item):
                    yield step.value
                act = self._after(steps, step, opened)

    def _after(self, steps: Generator[Any, Any, Any], step: Any, opened: ExitStack) -> Next:
        try:
            return functools.partial(steps.send, self._answer(step, opened))
        except Exception as error:  # the call may handle it, such as a lost connection
            return functools.partial(steps.throw, error)

    def _answer(self, step: Any, opened: ExitStack) -> Any:
        match step:
            case Request(method, path, arguments):
                return self._http.request(method, path, **arguments)
            case Sleep(seconds):
                self._sleep(seconds)
            case OpenEvents(path, headers):
                opened.close()  # the one before has ended or is broken
                source = opened.enter_context(connect_sse(self._http, "GET", path, headers=headers))
                if source.response.is_error:
                    source.response.read()
                return Opened(source.response, source.iter_sse())
            case NextEvent(of):
                return next(of.events, None)
        return None


class AsyncPerformer:
    """As Performer, without blocking the event loop while it waits."""

    def __init__(self, http: httpx.AsyncClient, sleep: Callable[[float], Awaitable[None]]) -> None:
        self._http, self._sleep = http, sleep

    async def call(self, steps: Steps[Result]) -> Result:
        """Perform a call's steps to its end, and return its result. Raises what the call raises."""
        act: Next = functools.partial(next, steps)
        async with AsyncExitStack() as opened:
            while True:
                try:
                    step = act()
                except StopIteration as end:
                    result: Result = end.value
                    return result
                act = await self._after(steps, step, opened)

    async def stream(self, steps: Items[Result]) -> AsyncIterator[Result]:
        """Perform a call's steps, and yield its items. What was opened is closed at the end."""
        act: Next = functools.partial(next, steps)
        async with AsyncExitStack() as opened:
            while (step := _next_or_none(act)) is not None:
                if isinstance(step, Item):
                    yield step.value
                act = await self._after(steps, step, opened)

    async def _after(self, steps: Generator[Any, Any, Any], step: Any, opened: AsyncExitStack) -> Next:
        try:
            return functools.partial(steps.send, await self._answer(step, opened))
        except Exception as error:
            return functools.partial(steps.throw, error)

    async def _answer(self, step: Any, opened: AsyncExitStack) -> Any:
        match step:
            case Request(method, path, arguments):
                return await self._http.request(method, path, **arguments)
            case Sleep(seconds):
                await self._sleep(seconds)
            case OpenEvents(path, headers):
                await opened.aclose()
                source = await opened.enter_async_context(aconnect_sse(self._http, "GET", path, headers=headers))
                if source.response.is_error:
                    await source.response.aread()
                return Opened(source.response, source.aiter_sse())
            case NextEvent(of):
                return await anext(of.events, None)
        return None


def last_of(items: Items[Result]) -> Steps[Result]:
    """The steps of a stream as those of a call, which returns the last item. Raises LookupError if there is none."""
    last: list[Result] = []
    act: Next = functools.partial(next, items)
    while True:
        try:
            step = act()
        except StopIteration:
            if not last:
                raise LookupError("no item") from None
            return last[0]
        if isinstance(step, Item):
            last = [step.value]
            act = functools.partial(items.send, None)
            continue
        try:
            act = functools.partial(items.send, (yield step))
        except Exception as error:
            act = functools.partial(items.throw, error)


def _next_or_none(act: Next) -> Any:
    try:
        return act()
    except StopIteration:
        return None


class Synchronous:
    """A client whose calls block. `_performer` performs their steps."""

    _performer: Performer


class Asynchronous:
    """A client whose calls are awaited. `_performer` performs their steps."""

    _performer: AsyncPerformer


class call(Generic[P, Result]):
    """Makes a method of a generator of steps: it returns the result, or an awaitable of it."""

    def __init__(self, steps: Callable[Concatenate[Any, P], Steps[Result]]) -> None:
        self.steps = steps
        functools.update_wrapper(self, steps)  # type: ignore[arg-type]

    @overload
    def __get__(self, client: None, owner: type) -> Self: ...
    @overload
    def __get__(self, client: Synchronous, owner: type) -> Callable[P, Result]: ...
    @overload
    def __get__(self, client: Asynchronous, owner: type) -> Callable[P, Coroutine[Any, Any, Result]]: ...
    def __get__(self, client: Any, owner: type) -> Any:
        return self if client is None else _bound(self.steps, client, client._performer.call)


class stream(Generic[P, Result]):
    """Makes a method of a generator of steps and items: it returns an iterator of these, or an asynchronous one."""

    def __init__(self, steps: Callable[Concatenate[Any, P], Items[Result]]) -> None:
        self.steps = steps
        functools.update_wrapper(self, steps)  # type: ignore[arg-type]

    @overload
    def __get__(self, client: None, owner: type) -> Self: ...
    @overload
    def __get__(self, client: Synchronous, owner: type) -> Callable[P, Iterator[Result]]: ...
    @overload
    def __get__(self, client: Asynchronous, owner: type) -> Callable[P, AsyncIterator[Result]]: ...
    def __get__(self, client: Any, owner: type) -> Any:
        return self if client is None else _bound(self.steps, client, client._performer.stream)


def _bound(steps: Callable[..., Any], client: Any, perform: Callable[..., Any]) -> Callable[..., Any]:
    """The method of a client, with the documentation and the parameters of the generator."""

    @functools.wraps(steps)
    def method(*arguments: Any, **named: Any) -> Any:
        return perform(steps(client, *arguments, **named))

    signature = inspect.signature(steps)
    method.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])  # type: ignore[attr-defined]
    return method
