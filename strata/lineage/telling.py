"""Telling a command's run: an event at its beginning, and one at its end."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from strata.addresses import without_secrets
from strata.lineage.receivers import Receiver, open_receiver
from strata.lineage.runs import Run, State, parents_of


@contextmanager
def told_run(place: str | None, name: str, tell: Callable[[str], object]) -> Iterator[Run]:
    """Tell the run of a command: its beginning, and how the block has ended, with the data sets that it has noted.

    place: a URL or a file; None: what the environment says, and if it says nothing, nobody is told. tell: is called
    with one line if the events cannot be sent; the block goes on. Raises InvalidInput for a place that cannot be used.
    """
    receiver, run = open_receiver(place, tell), Run(name, parents=parents_of(os.environ))
    if receiver is None:
        run.told = False
        yield run
        return
    try:
        _send(receiver, run, "START")
        yield run
    except BaseException as error:
        end: State = "ABORT" if isinstance(error, KeyboardInterrupt) else "FAIL"
        _send(receiver, run, end, " ".join(str(error).split()) or type(error).__name__)
        raise
    else:
        _send(receiver, run, "COMPLETE")
    finally:
        receiver.close()


def _send(receiver: Receiver, run: Run, state: State, error: str = "") -> None:
    moment = datetime.now(UTC)
    # a copy: the run goes on while the event is made in the receiver's thread
    told = replace(run, inputs=list(run.inputs), outputs=list(run.outputs), tags=dict(run.tags))

    def make() -> Any:
        from strata.lineage.events import event_of

        return event_of(told, state, moment, without_secrets(error))

    receiver.send(make)
