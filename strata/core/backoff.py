"""Growing pauses between attempts."""

from __future__ import annotations

import math


def growing_pause(attempt: int, first: float, longest: float) -> float:
    """Seconds to wait after attempt number `attempt`, counted from 0: `first`, doubled each time, at most `longest`."""
    # beyond this exponent the result is `longest` anyway, and 2.0 ** 1024 would overflow
    doublings = min(attempt, math.ceil(math.log2(longest / first)))
    return min(first * 2.0**doublings, longest)
