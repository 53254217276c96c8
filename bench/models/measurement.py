"""What one process of the comparison is asked to measure, and what it measured."""

from __future__ import annotations

from dataclasses import dataclass, field

WARM_UP, WARM_UP_OURS = 2, 16  # images


@dataclass(frozen=True)
class Options:
    """What to measure, as the command line says."""

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
    """What one process measured: seconds from the common start to its end, of each way that it ran."""

    images: int
    items: dict[str, int] = field(default_factory=dict)
    original: float | None = None
    passes: dict[str, float] = field(default_factory=dict)
    ours: float | None = None
    stages: dict[str, float] = field(default_factory=dict)
    bare: dict[str, tuple[float, int]] = field(default_factory=dict)  # seconds, batch size
    busy: dict[str, float] = field(default_factory=dict)
    on_gpu: bool = False
