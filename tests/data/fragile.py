"""A source some of whose samples cannot be read, and what identifies the samples of a reader of it.

It imports little, because processes that are spawned import it too.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from strata.data.mixtures import Mixture, Share
from strata.data.reader import SampleReader
from strata.data.samples import Sample
from strata.data.sources.missing_files import Missing
from strata.data.sources.samples import Cause, RawSample, SampleError
from strata.data.substitutes import SkipLimit

ANY = SkipLimit(1.0)
_BUFFER = io.BytesIO()
Image.new("RGB", (8, 6), "red").save(_BUFFER, "JPEG")
PICTURE = _BUFFER.getvalue()
BATCH = 4

Seen = tuple[int, str, str, tuple[str, ...]]


@dataclass
class Fragile:
    """Numbers with the same image each. bad: why some cannot be read; damaged: those whose bytes are no image.

    away: the number of reads that find the storage away, or a file that says so while it exists.
    """

    count: int
    bad: dict[int, Cause] = field(default_factory=dict)
    damaged: frozenset[int] = frozenset()
    away: int = 0
    reads: int = 0
    identity: str = "fragile"

    def __len__(self) -> int:
        return self.count

    def read(self, numbers: Sequence[int]) -> list[RawSample]:
        """Raise for the first that is bad."""
        self.reads += 1
        if self.away:
            self.away -= 1
            raise SampleError("the server does not answer", cause="storage")
        for number in numbers:
            if number in self.bad:
                raise SampleError(f"file {number} is broken", str(number), f"uri{number}", self.bad[number])
        return [
            RawSample(str(number), (b"?" if number in self.damaged else PICTURE,), [str(number)]) for number in numbers
        ]

    def missing(self) -> Missing:
        """Return that nothing is."""
        return Missing([])

    def problems(self) -> tuple[int, str]:
        """Return none."""
        return 0, ""

    def explain(self, number: int, reason: str) -> SampleError:
        """Name the number."""
        return SampleError(f"file {number}: {reason}", str(number), f"uri{number}")


def seen(batch: Sequence[Sample]) -> list[Seen]:
    """What identifies a sample and what it stands for."""
    return [(one.index, one.source, one.key, tuple(skipped.key for skipped in one.skipped)) for one in batch]


def fragile_mixture(first: int = 40, second: int = 12) -> Mixture:
    """Two sources; every sixth sample of the first is damaged or missing, and most of the second."""
    some = Fragile(first, dict.fromkeys(range(3, first, 12), "absent"), frozenset(range(9, first, 12)))
    most = Fragile(second, dict.fromkeys(range(second - 3), "content"))
    return Mixture([Share("a", "t", some, first, "?"), Share("b", "t", most, second - 2, "?")])


def reader_of(mixture: Mixture, **options: Any) -> SampleReader:
    return SampleReader(mixture, **{"seed": 1, "batch_size": BATCH, "limit": ANY, "pauses": (), **options})
