"""Descriptions in one process, without a service, a queue or a store: `from strata import describe`.

Read `describer.py` first. `images.py` says what may be given, `described.py` what is returned; `datasets.py` describes
data sets of Hugging Face. The models are computed by `workers.describing`, which is imported with the first image.
"""

from __future__ import annotations

from strata.describing.datasets import BatchDescriber
from strata.describing.described import DescribedImage, DescribedImages, DescriptionFailed
from strata.describing.describer import Describer, describe, shared

__all__ = [
    "BatchDescriber",
    "DescribedImage",
    "DescribedImages",
    "Describer",
    "DescriptionFailed",
    "describe",
    "shared",
]
