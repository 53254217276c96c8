"""Places of rows: the columns part (the number of a part in a list) and row (the index in it), as other forms."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

Ints = np.typing.NDArray[np.int64]


def places_of(rows: pa.Table) -> Ints:
    """The place of each row as one number: the part in the high 32 bits, the row in the low ones."""
    parts = rows.column("part").to_numpy().astype(np.int64)
    return np.asarray(parts << 32 | rows.column("row").to_numpy(), np.int64)


def by_part(rows: pa.Table) -> Iterator[tuple[int, Ints]]:
    """The rows part by part: the number of each part, and the indices in it. rows: sorted by part."""
    numbers, starts = np.unique(rows.column("part").to_numpy(), return_index=True)
    held = np.split(rows.column("row").to_numpy(), starts[1:]) if len(numbers) else []
    yield from zip(numbers.tolist(), held, strict=True)
