"""`bench.models.changes`: a change of speed changes no result."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.models.changes import CHANGES, Change, copy_features, items_of, keep_static, measured, one_by_one
from models.building import build_stage
from models.items import CaptionRequest, Detection, Segment
from strata.core import StageSettings
from tests.models.tiny import tiny_models
from tests.models.tiny.tiny_models import make

REGIONS = "a red car<loc_100><loc_200><loc_500><loc_800>an owl<loc_0><loc_10><loc_300><loc_400>"
Way = tuple[Callable[[Any], None], str, str, Callable[..., None], dict[str, Any]]
WAYS: dict[str, Way] = {
    "copies": (copy_features, "segmenter", "sam", tiny_models.sam, {"points_per_side": 4}),
    "copies of SAM 2": (copy_features, "segmenter", "sam", tiny_models.sam2, {"points_per_side": 4}),
    "one by one": (one_by_one, "detector", "florence2", partial(tiny_models.florence, answer=REGIONS), {}),
    "static": (keep_static, "detector", "florence2", partial(tiny_models.florence, answer=REGIONS), {}),
    "static, crops": (keep_static, "captioner", "qwen3_vl", tiny_models.qwen3_vl, {"scene_prompt": "?"}),
}


def _told(results: list[Any]) -> list[Any]:
    """What results say, as a flat list: texts, and numbers; of masks their shapes and the share of their pixels."""
    told: list[Any] = []
    for value in results:
        if isinstance(value, np.ndarray):
            told += [value.shape, float(value.mean())]
        elif isinstance(value, Segment):
            told += _told([value.score, value.mask])  # one pixel may move the box
        elif isinstance(value, Detection):
            told += _told([value.phrase, value.score, *value.box])
        elif isinstance(value, list):
            told += _told([len(value), *value])
        else:
            told.append(value)
    return told


@pytest.mark.parametrize("way", WAYS)
def test_no_change_changes_a_result(way: str, tmp_path: Path) -> None:
    change, name, backend, maker, parameters = WAYS[way]
    own = dict(parameters)
    if name == "captioner":
        own |= {"crop_prompt": "?", "scene_tokens": 6, "crop_tokens": 6, "min_pixels": 4096, "max_pixels": 65536}
    if name == "detector":
        own |= {"max_new_tokens": 60}
    settings = StageSettings(backend=backend, model=f"local:{make(maker, tmp_path)}", revision="", parameters=own)
    pictures = [Image.new("RGB", size, "red") for size in ((90, 60), (64, 64), (50, 70))]
    pictures[0].paste("white", (20, 10, 50, 40))
    items: list[Any] = [CaptionRequest(one, "crop") for one in pictures] if name == "captioner" else pictures

    def results(make_change: Callable[[Any], None] | None) -> list[Any]:
        stage: Any = build_stage(name, settings)
        stage.load()
        if make_change is not None:
            make_change(stage)
        return _told(stage.run(items))

    found = results(None)
    assert len(found) >= 3
    # edges of masks lie where logits are nil, which rounding decides
    for one, other in zip(results(change), found, strict=True):
        assert one == (pytest.approx(other, abs=0.005) if isinstance(other, float) else other)


def test_what_is_counted(tmp_path: Path) -> None:
    folder = make(partial(tiny_models.florence, answer=REGIONS), tmp_path)
    settings = StageSettings(
        backend="florence2", model=f"local:{folder}", revision="", parameters={"max_new_tokens": 8}
    )
    counts = []
    for change in (None, one_by_one):
        stage: Any = build_stage("detector", settings)
        stage.load()
        if change is not None:
            change(stage)
        found = measured(stage, items_of(Change("", "", "detector"), 4), rounds=1)
        assert found.ms > 0 and found.kernels == found.busy == 0
        counts.append(found.operations)
    assert counts[0] < counts[1]
    assert {change.profile for change in CHANGES} <= {"paper", "small", "modern"}
