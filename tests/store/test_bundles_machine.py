"""Bundling as a state machine: compactions that are killed at any step, that meet writers, readers and each other."""

from __future__ import annotations

import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pyarrow.dataset
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from strata.core.records import Record
from strata.store.bundles import Compaction, OpenBundle
from strata.store.part_format import BrokenPart, Source
from strata.store.part_paths import LOCK, Bundle, Part
from strata.store.store import Store
from tests.store.test_attempts_machine import IMAGE, Died, chunk_of

NUMBERS = range(3)
FOLDER = f"parts/{Part.of_chunk(chunk_of(0)).folder}"
CHANGES = ("put", "remove", "move")  # of the store's files; a process may die before each
numbers = st.sampled_from(NUMBERS)
steps = st.integers(0, 12)


class BundlesMachine(RuleBasedStateMachine):
    """The model: for each chunk the texts of its attempts that count, and the attempt that is needed.

    A part's only row tells in its text which writing it comes from.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.store = Store(self.folder.name)  # keeps what it knows of bundles
        self.rows: dict[tuple[int, int], str] = {}
        self.written: defaultdict[tuple[int, int], set[str]] = defaultdict(set)
        self.needed = dict.fromkeys(NUMBERS, 0)
        self.writings = 0
        for number in NUMBERS:
            self.write_next(number)

    def teardown(self) -> None:
        self.folder.cleanup()

    def _newest(self, number: int) -> int:
        return max((attempt for held, attempt in self.rows if held == number), default=-1)

    def _write(self, store: Store, number: int, attempt: int) -> None:
        text = str(self.writings + 1)
        store.write_records(chunk_of(number, attempt), [Record(key=str(number), image=IMAGE, alt_text=text)])
        self.writings += 1
        self.written[number, attempt].add(text)
        # the part of an attempt is the same whoever writes it: the one that was first bundled stays
        self.rows[number, attempt] = store.read_record(chunk_of(number, attempt), 0).alt_text or ""

    @rule(number=numbers)
    def write_next(self, number: int) -> None:
        self._write(self.store, number, max(self._newest(number) + 1, self.needed[number]))

    @rule(number=numbers)
    def write_again(self, number: int) -> None:
        if self._newest(number) >= self.needed[number]:
            self._write(self.store, number, self._newest(number))

    @rule(undo=st.booleans())
    def compact(self, undo: bool) -> None:
        compaction = Compaction(self.store)
        compaction.run(list(compaction.plans()), undo, lambda _: None)
        assert not self._is_locked()
        assert bool(self.store.attempts(chunk_of(0)).bundles) <= (not undo)

    @rule(undo=st.booleans(), left=steps)
    def compact_and_die(self, undo: bool, left: int) -> None:
        def die(done: int) -> None:
            if done >= left:
                raise Died

        with suppress(Died):
            self._compact(undo, die)

    @rule(undo=st.booleans())
    def compact_while_others_read(self, undo: bool) -> None:
        self._compact(undo, lambda _: self._look())

    @rule(undo=st.booleans(), other=st.booleans())
    def two_compactions_at_once(self, undo: bool, other: bool) -> None:
        second = Store(self.folder.name)
        self._compact(undo, lambda _: self._compact(other, lambda _: None, second))

    @rule(undo=st.booleans(), at=steps, number=numbers, more=st.integers(0, 1))
    def compact_while_another_writes(self, undo: bool, at: int, number: int, more: int) -> None:
        """The newest attempt again, or the next one. It waits while its bundle is being changed, and tries again."""
        attempt = max(self._newest(number) + more, self.needed[number])
        waits: list[int] = []

        def write(done: int) -> None:
            if done == at:
                try:
                    self._write(Store(self.folder.name), number, attempt)
                except OSError:
                    waits.append(number)

        self._compact(undo, write)
        for each in waits:
            self._write(self.store, each, attempt)
        # an attempt that is written again after it was read for the bundle: either writing may stay, as they are equal
        # in all but this model's texts
        if (number, attempt) in self.rows:
            found = self.store.read_record(chunk_of(number, attempt), 0).alt_text or ""
            assert found in self.written[number, attempt]
            self.rows[number, attempt] = found

    def _compact(self, undo: bool, before: Callable[[int], None], store: Store | None = None) -> None:
        """Compact, and call before ahead of each change of a file, with the number of changes so far."""
        files, done = store or Store(self.folder.name), 0

        def hooked(act: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any) -> Any:
                nonlocal done
                before(done)
                done += 1
                return act(*arguments)

            return call

        hooks: Any = {name: hooked(getattr(files, name)) for name in CHANGES}
        with mock.patch.multiple(files, **hooks):
            compaction = Compaction(files)
            compaction.run(list(compaction.plans()), undo, lambda _: None)

    @rule()
    def plan(self) -> None:
        """Whoever plans a job tidies the folder, also what a dead compaction has left."""
        self.store.tidy(Part.of_chunk(chunk_of(0)), self.store.attempts(chunk_of(0)))
        assert not self._is_locked()

    @precondition(lambda self: not self._is_locked())
    @rule(number=numbers, by_reader=st.booleans())
    def break_newest(self, number: int, by_reader: bool) -> None:
        newest = self.store.newest(chunk_of(number))
        if newest is None:
            return
        name = self.store.attempts(newest).found[number][newest.attempt][0]
        path, part = Path(self.store.path(FOLDER, name)), Part.of_chunk(newest)
        data = bytearray(path.read_bytes())
        bundle = Bundle.find(f"{FOLDER}/{name}")
        source = Source(part, bundle.path if bundle else part.path)
        data[OpenBundle(bundle, bytes(data), source).span(source)[0] + 20 if bundle else 20] ^= 1
        path.write_bytes(data)
        with pytest.raises(BrokenPart) as found:
            self.store.read_records(newest)
        assert (self.store if by_reader else Store(self.folder.name)).set_aside(found.value)
        del self.rows[number, newest.attempt]
        self.needed[number] = newest.attempt

    def _is_locked(self) -> bool:
        return Path(self.store.path(FOLDER, LOCK)).exists()

    def _look(self) -> None:
        """What others see now: of each chunk the newest attempt, once."""
        for store in (self.store, Store(self.folder.name)):
            for number, needed in self.needed.items():
                newest, expected = store.newest(chunk_of(number)), self._newest(number)
                assert (newest.attempt if newest else -1) == (expected if expected >= needed else -1)
                if newest is not None:
                    assert store.read_record(newest, 0).alt_text == self.rows[number, newest.attempt]
                    assert store.read_footer(newest).counts == Counter(succeeded=1)
        if self._is_locked():
            with pytest.raises(pa.ArrowInvalid):
                self._plain()
        else:
            there = {number for number, needed in self.needed.items() if self._newest(number) >= needed}
            assert not there or Counter(self._plain()) == Counter(map(str, there))

    def _plain(self) -> list[str]:
        data = pyarrow.dataset.dataset(self.store.path("parts", "llm"), format="parquet")
        return list(map(str, data.to_table(columns=["key"]).column("key").to_pylist()))

    @invariant()
    def everything_is_there_once(self) -> None:
        self._look()

    @invariant()
    def every_attempt_is_readable_as_it_was_written(self) -> None:
        for (number, attempt), text in self.rows.items():
            assert self.store.read_record(chunk_of(number, attempt), 0).alt_text == text


TestBundles = BundlesMachine.TestCase
TestBundles.settings = settings(max_examples=12, stateful_step_count=12, deadline=None)
