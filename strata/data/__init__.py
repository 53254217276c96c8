"""Training data: samples of snapshots and of other data sets, mixtures of them, their reader, and exports.

It imports `strata.core`, `strata.store`, `strata.shards` and `strata.snapshots`, but no queue and no jobs. Read
`reader.py` first, whose docstring has an example.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from strata.data.decoding_check import Fault, check_decoding
from strata.data.exports import Request, export
from strata.data.mixture_checks import SourceCheck, check_mixture, task_shares
from strata.data.mixture_files import Locations, MixtureFile, open_mixture
from strata.data.mixtures import Mixture
from strata.data.picture_hashes import PictureHasher, hash_pictures, picture_files
from strata.data.samples import MAX_PIXELS, Place, Sample, Skipped
from strata.data.sources.samples import SampleError
from strata.data.sources.snapshots import snapshot_source
from strata.data.sources.tables import default_cache
from strata.data.substitutes import SkipLimit, SourceAway, TooManySkipped

if TYPE_CHECKING:
    from strata.data.reader import SampleReader

__all__ = [
    "MAX_PIXELS",
    "Fault",
    "Locations",
    "Mixture",
    "MixtureFile",
    "PictureHasher",
    "Place",
    "Request",
    "Sample",
    "SampleError",
    "SampleReader",
    "SkipLimit",
    "Skipped",
    "SourceAway",
    "SourceCheck",
    "TooManySkipped",
    "check_decoding",
    "check_mixture",
    "default_cache",
    "export",
    "hash_pictures",
    "open_mixture",
    "picture_files",
    "snapshot_source",
    "task_shares",
]


def __getattr__(name: str) -> Any:
    """The reader is imported when it is asked for: it imports torch, which exports and snapshots do not need."""
    if name == "SampleReader":
        from strata.data.reader import SampleReader

        return SampleReader
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
