"""Reading and decoding every sample of a mixture's sources before a training: which ones cannot be used, and why."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from strata import images
from strata.addresses import without_secrets
from strata.data.mixture_checks import SourceCheck, left_out_lines
from strata.data.mixture_files import Locations, MixtureFile
from strata.data.mixtures import Mixture
from strata.data.prefetch import prefetch_map
from strata.data.samples import MAX_PIXELS, Skipped
from strata.data.sources.samples import RawSample, SampleError, SampleSource
from strata.data.substitutes import SourceAway, Substitutes

RUN = 16  # samples that are read together
THREADS = 16  # concurrent reads
PAUSES = (1.0, 2.0, 4.0)  # seconds before each further attempt to read from a storage that is away
KNOWN_IMAGES = 100_000  # whose result is kept, because several samples may have one image

Show = Callable[[str, int, int], object]


@dataclass(frozen=True)
class Fault:
    """What is wrong with a sample. used: it is trained on nevertheless, since only the end of its image is missing.

    reason: one line. uri: of the image or of the file with the entry, without secrets; "" if not known.
    """

    source: str
    key: str
    uri: str
    reason: str
    used: bool = False


class _Decoding:
    """Reads and decodes all samples of one source, in threads."""

    def __init__(self, name: str, source: SampleSource, pauses: Sequence[float]) -> None:
        self.name, self.source = name, source
        self._substitutes = Substitutes(Mixture.of(source, "", name), 0, pauses)
        # a digest of an image's bytes -> why it cannot be decoded, and what of it is missing
        self._known: dict[bytes, tuple[str, str]] = {}

    def faults(self) -> Iterator[list[Fault]]:
        """The faults of each RUN of samples, in order. Raises SourceAway."""
        count = len(self.source)
        runs = (range(start, min(start + RUN, count)) for start in range(0, count, RUN))
        read = prefetch_map(self._read, runs, THREADS)
        return prefetch_map(self._faults, read, os.cpu_count() or 1)

    def _read(self, run: range) -> list[tuple[int, RawSample | SampleError]]:
        try:
            return list(zip(run, self.source.read(run), strict=True))
        except SampleError:
            # one of them is broken: read each alone
            return [(number, self._read_alone(number)) for number in run]

    def _read_alone(self, number: int) -> RawSample | SampleError:
        try:
            return self._substitutes.read(0, number)
        except SampleError as error:
            return error

    def _faults(self, run: Sequence[tuple[int, RawSample | SampleError]]) -> list[Fault]:
        return [fault for number, raw in run if (fault := self._fault(number, raw)) is not None]

    def _fault(self, number: int, raw: RawSample | SampleError) -> Fault | None:
        if isinstance(raw, SampleError):
            return self._named(number, raw)
        found = [self._decoded(data) for data in raw.images]
        # what cannot be decoded at all comes before what is only incomplete
        broken = next((reason for reason, _ in found if reason), "")
        missing = next((line for _, line in found if line), "")
        reason = broken or missing
        return self._named(number, self.source.explain(number, reason), used=not broken) if reason else None

    def _named(self, number: int, error: SampleError, used: bool = False) -> Fault:
        one = Skipped.of(self.name, number, error)
        return Fault(one.source, one.key, one.uri, one.reason, used)

    def _decoded(self, data: bytes) -> tuple[str, str]:
        """Why an image cannot be decoded, and what of it is missing, each "" for nothing."""
        digest = hashlib.blake2b(data, digest_size=16).digest()
        outcome = self._known.get(digest)
        if outcome is None:
            try:
                outcome = ("", images.decode(data, MAX_PIXELS).info.get(images.MISSING, ""))
            except images.ImageError as error:
                outcome = (str(error), "")
            if len(self._known) >= KNOWN_IMAGES:
                self._known.clear()
            self._known[digest] = outcome
        return outcome


def check_decoding(
    file: MixtureFile,
    locations: Locations,
    checks: Sequence[SourceCheck],
    show: Show,
    pauses: Sequence[float] = PAUSES,
) -> Iterator[Fault]:
    """Read and decode every sample of every source that can be opened; yield what is wrong, in order.

    checks: of `check_mixture`; they get the numbers that were found, and a problem if a sample cannot be used. show:
    called with a source's name and how many of its samples are done. pauses: as for SampleReader.
    """
    for settings, check in zip(file.sources, checks, strict=True):
        if check.supply is None:
            continue
        source = locations.open(settings)
        decoding = _Decoding(settings.name, source, pauses)
        check.broken = check.incomplete = 0
        try:
            for index, faults in enumerate(decoding.faults()):
                show(settings.name, min((index + 1) * RUN, check.supply), check.supply)
                check.broken += sum(not fault.used for fault in faults)
                check.incomplete += sum(fault.used for fault in faults)
                yield from faults
        except SourceAway as error:
            check.problem = without_secrets(str(error).removeprefix(f"{settings.name}: "))
            continue
        # the entries and files that were found before are among the samples that cannot be used
        if check.broken:
            check.problem = f"{check.broken:,} of {check.supply:,} samples cannot be used"
        notes = left_out_lines(source)
        if check.incomplete:
            notes.append(f"samples with an image whose end is missing, which are used: {check.incomplete:,}")
        check.note = "; ".join(notes) or None
