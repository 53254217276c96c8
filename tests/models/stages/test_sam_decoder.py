"""SAM's decoder in our order of computation beside transformers' own, on tiny checkpoints with random weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForMaskGeneration

from models.stages.sam.decoder import PointDecoder
from tests.models.tiny import tiny_models
from tests.models.tiny.tiny_models import make


@pytest.fixture(scope="module", params=[tiny_models.sam, tiny_models.sam2], ids=["sam", "sam2"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    maker: Callable[..., None] = request.param
    folder: Path = make(maker, tmp_path_factory.mktemp("sam"))
    model = AutoModelForMaskGeneration.from_pretrained(folder, dtype=torch.float32).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.3, generator=generator)
    return model


def _asked(model: Any, count: int) -> tuple[Any, torch.Tensor]:
    """Features of two images, and points."""
    side = model.prompt_encoder.input_image_size
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        maps = model.get_image_embeddings(torch.randn(2, 3, side, side, generator=generator))
    return maps, torch.rand(count, 2, generator=generator) * side


def _own_way(model: Any, maps: Any, index: int, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    one = slice(index, index + 1)
    answer = model(
        input_points=points[None, :, None],
        input_labels=torch.ones(1, len(points), 1, dtype=torch.int64),
        image_embeddings=maps[one] if isinstance(maps, torch.Tensor) else [level[one] for level in maps],
    )
    return answer.pred_masks[0].flatten(0, 1), answer.iou_scores[0].flatten()


@torch.no_grad()
@pytest.mark.parametrize("count", [1, 2, 7])
def test_logits_and_estimates_are_those_of_the_library(model: Any, count: int) -> None:
    maps, points = _asked(model, count)
    logits, estimates = _own_way(model, maps, 1, points)
    decoder = PointDecoder(model)
    # the whole masks, and those above thresholds between the estimates and beyond all of them
    between = estimates.sort().values.unfold(0, 2, 1).mean(dim=1).tolist()
    assert any(one > 0 for one in between)
    for least in (0.0, *(one for one in between if one > 0), 1e9):
        chosen = estimates > least if least else torch.ones_like(estimates, dtype=torch.bool)
        found, scores = decoder(decoder.features(maps, 1), points, least)
        assert found.shape == logits[chosen].shape
        assert torch.allclose(scores, estimates[chosen], atol=1e-5)
        # relative to the largest logits: sums in another order
        assert torch.allclose(found, logits[chosen], atol=2e-6 * float(logits.abs().max()))
    # the model itself, whose first layer is now another one, answers as before
    again, same = _own_way(model, maps, 1, points)
    assert torch.allclose(again, logits, atol=2e-6 * float(logits.abs().max()))
    assert torch.allclose(same, estimates, atol=1e-5)


@torch.no_grad()
def test_less_is_computed_for_each_point(model: Any) -> None:
    maps, points = _asked(model, 16)
    decoder = PointDecoder(model)
    features = decoder.features(maps, 0)

    def operations(call: Callable[[], Any]) -> float:
        with FlopCounterMode(display=False) as counter:
            call()
        return float(counter.get_total_flops())

    plain, shared, none = (
        operations(lambda: _own_way(model, maps, 0, points)),
        operations(lambda: decoder(features, points, 0.0)),
        operations(lambda: decoder(features, points, 1e9)),
    )
    assert none < shared < 0.9 * plain, (none, shared, plain)
