"""The proof of a profile: what `strata models prove` has found of its models, on one machine, for its fingerprints."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

IMAGES = (427_000, 3_300_000)  # the described images of the Monkey paper (arXiv 2311.06607), and those of CC3M


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, protected_namespaces=())


class Check(_Part):
    """One thing that was asked of a stage. value: what was measured; it must lie between least and most.

    stage: a stage of the profile, or "pipeline". value is null where there was nothing to measure, because the stage
    failed; detail then says why, and else which pictures are at fault.
    """

    stage: str
    name: str
    passed: bool
    value: float | None = None
    least: float | None = None
    most: float | None = None
    detail: str = ""


class StageFigures(_Part):
    """What a stage costs on this machine. memory_bytes: of the GPU if there is one, else of the process.

    images_per_second: whole images with their crops, as the pipeline calls the stage; null if it was not measured.
    """

    load_seconds: float
    images_per_second: float | None = None
    memory_bytes: int = 0


class Proof(_Part):
    """The checks of a profile. It holds for these fingerprints only: with other settings the profile has no proof.

    device: what computed, such as "NVIDIA H100 80GB HBM3" or "CPU"; machine: the system, its cores and its memory;
    versions: of Strata, Python and the packages that compute. days: for so many images, with one process like this.
    """

    profile: str
    passed: bool
    time: datetime
    fingerprints: dict[str, str]
    device: str
    machine: dict[str, str]
    versions: dict[str, str]
    checks: list[Check]
    stages: dict[str, StageFigures] = Field(default_factory=dict)
    images_per_second: float | None = None
    days: dict[int, float] = Field(default_factory=dict)

    @property
    def failed(self) -> list[str]:
        """The checks that have not passed, each as "stage name"."""
        return [f"{check.stage} {check.name}" for check in self.checks if not check.passed]
