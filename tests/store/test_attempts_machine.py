"""Attempts at chunks as a state machine: writers that die between two steps, late writers, and parts that break."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pyarrow.dataset
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from strata.core.chunks import Chunk
from strata.core.records import ImageReference, Record
from strata.store.part_format import BrokenPart
from strata.store.part_paths import Part
from strata.store.store import Store

NUMBERS = st.integers(0, 1)
IMAGE = ImageReference(uri="a.tar", offset=512, size=9)


class Died(Exception):
    """The writer died."""


def chunk_of(number: int, attempt: int = 0) -> Chunk:
    return Chunk("llm", "fake", "f" * 16, "a.tar", "a" * 16, number, 1, attempt)


class AttemptsMachine(RuleBasedStateMachine):
    """The model: for each chunk the row of each attempt that counts, and the attempt that is needed.

    A part's only row tells in its text which writing it comes from.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.store = Store(self.folder.name)
        self.rows: dict[tuple[int, int], str] = {}
        self.needed = {0: 0, 1: 0}
        self.writings = 0
        self.tidied = True

    def teardown(self) -> None:
        self.folder.cleanup()

    def _write(self, number: int, attempt: int) -> None:
        self.writings += 1
        text = str(self.writings)
        # a part that comes late changes nothing; the newest may be written twice
        if attempt >= max(self._newest(number), self.needed[number]):
            self.rows[number, attempt] = text
        self.store.write_records(chunk_of(number, attempt), [Record(key="a", image=IMAGE, alt_text=text)])

    def _newest(self, number: int) -> int:
        return max((attempt for held, attempt in self.rows if held == number), default=-1)

    @rule(number=NUMBERS)
    def write_next(self, number: int) -> None:
        self._write(number, max(self._newest(number) + 1, self.needed[number]))

    @rule(number=NUMBERS, back=st.integers(0, 3))
    def write_late(self, number: int, back: int) -> None:
        attempt = self._newest(number) - back
        if attempt >= 0:
            self._write(number, attempt)

    @rule(number=NUMBERS, steps=st.integers(0, 2))
    def write_and_die(self, number: int, steps: int) -> None:
        """The writer dies after so many moves of older parts."""
        move: Callable[[str, str], None] = self.store.move
        left = steps

        def dying(path: str, target: str) -> None:
            nonlocal left
            if not left:
                raise Died
            left -= 1
            move(path, target)

        with mock.patch.object(self.store, "move", dying):
            try:
                self.write_next(number)
            except Died:
                self.tidied = False

    @rule()
    def tidy(self) -> None:
        attempts = self.store.attempts(chunk_of(0))
        self.store.tidy(Part.of_chunk(chunk_of(0)), attempts)
        self.tidied = True

    @precondition(lambda self: self.tidied)
    @rule(number=NUMBERS, by_reader=st.booleans())
    def break_newest(self, number: int, by_reader: bool) -> None:
        newest = self.store.newest(chunk_of(number))
        if newest is None:
            return
        path = Path(self.store.part_path(newest))
        path.write_bytes(path.read_bytes()[:-1])
        try:
            self.store.read_records(newest) if by_reader else self.store.read_footer(newest)
            raise AssertionError("a broken part was read")
        except BrokenPart as error:
            assert self.store.set_aside(error)
        del self.rows[number, newest.attempt]
        self.needed[number] = newest.attempt

    @invariant()
    def the_newest_attempt_counts(self) -> None:
        for number, needed in self.needed.items():
            newest, expected = self.store.newest(chunk_of(number)), self._newest(number)
            assert (newest.attempt if newest else -1) == (expected if expected >= needed else -1)
            if newest is not None:
                assert self.store.read_record(newest, 0).alt_text == self.rows[number, newest.attempt]

    @invariant()
    def every_attempt_is_readable_as_it_was_written(self) -> None:
        for (number, attempt), text in self.rows.items():
            if self.tidied or attempt == self._newest(number):
                assert self.store.read_record(chunk_of(number, attempt), 0).alt_text == text

    @invariant()
    def plain_readers_see_a_chunk_once(self) -> None:
        there = [number for number in self.needed if self.store.attempts(chunk_of(number)).found.get(number)]
        if self.tidied and there:
            data = pyarrow.dataset.dataset(self.store.path("parts", "llm"))
            assert data.to_table(columns=["alt_text"]).num_rows == len(there)


TestAttempts = AttemptsMachine.TestCase
TestAttempts.settings = settings(max_examples=25, stateful_step_count=25)
