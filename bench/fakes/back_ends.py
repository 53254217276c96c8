"""The back ends "fake" and "null" of bench/profiles, registered by bench/plugins as a plug-in's are.

`bench.fakes.worker` does without their stages, a real worker can run them. They look at no pixels.
"""

from __future__ import annotations

from strata.core import KINDS, BackEnd, Parameters, SegmenterParameters

_STAGES = {
    "captioner": "FakeCaptioner",
    "detector": "FakeDetector",
    "segmenter": "FakeSegmenter",
    "ocr": "FakeOcr",
    "matcher": "FakeMatcher",
    "composer": "FakeComposer",
}

BACK_ENDS = [
    BackEnd(
        stage, name, SegmenterParameters if stage == "segmenter" else Parameters, f"bench.fakes.stages:{code}", KINDS
    )
    for stage, code in _STAGES.items()
    for name in ("fake", "null")
]
