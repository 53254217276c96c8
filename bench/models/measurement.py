"""The options and the result of one process of the comparison."""

from __future__ import annotations

from dataclasses import dataclass, field

WARM_UP, WARM_UP_OURS = 2, 16  # images


@dataclass(frozen=True)
class Options:
    """What to measure, from the command line."""

    profile: str
    images: int
    original_images: int
    architectures: bool
    scale: str
    device: str
    micro_batch: int | None
    processes: int


@dataclass
class Measurement:
    """The result of one process: the seconds of each way that it ran, from the common start to its end."""

    images: int
    items: dict[str, int] = field(default_factory=dict)
    original: float | None = None
    passes: dict[str, float] = field(default_factory=dict)
    ours: float | None = None
    stages: dict[str, float] = field(default_factory=dict)
    bare: dict[str, tuple[float, int]] = field(default_factory=dict)  # seconds, batch size
    busy: dict[str, float] = field(default_factory=dict)
    on_gpu: bool = False
