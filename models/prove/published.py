"""Numbers that transformers' own tests and conversion scripts give for the published weights, on their pictures.

The pictures are not free to carry. A user who has them puts them into a folder, under the names of their addresses, and
names it with `--images`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from models.base import Stage
from models.items import Pair
from models.prove.checks import at_least, failed
from strata.core import Check

NEAR = 0.02  # half precision and another GPU change a probability by up to 0.01 (the tolerance of the scripts)


@dataclass(frozen=True)
class Published:
    """A number of a model. asks: a phrase for a matcher; points (x, y) for a segmenter.

    mask: which of the three masks of a segmenter has the number as its score. source: where it is given.
    """

    model: str
    stage: str
    picture: str
    asks: str | tuple[tuple[int, int], ...]
    value: float
    source: str
    mask: int = 0


_TESTS = "transformers tests/models"
_SCRIPTS = "transformers src/transformers/models"
_TRUCK = ((500, 375),)
PUBLISHED = (
    Published(
        "hub:Salesforce/blip2-itm-vit-g",
        "matcher",
        "demo.jpg",
        "A woman and her dog sitting in a beach",
        0.9762,
        f"{_TESTS}/blip_2/test_modeling_blip_2.py, test_inference_itm",
    ),
    *(
        Published(
            f"hub:facebook/sam2.1-hiera-{size}",
            "segmenter",
            "truck.jpg",
            _TRUCK,
            value,
            f"{_SCRIPTS}/sam2/convert_sam2_to_hf.py",
            mask,
        )
        for size, value, mask in (
            ("tiny", 0.9647, 1),
            ("small", 0.9664, 0),
            ("base-plus", 0.9775, 1),
            ("large", 0.9648, 0),
        )
    ),
    Published(
        "hub:facebook/sam-vit-huge",
        "segmenter",
        "car.png",
        ((400, 650), (800, 650)),
        0.9936,
        f"{_SCRIPTS}/sam/convert_sam_to_hf.py",
        2,
    ),
)


def published_checks(name: str, model: str, stage: Stage[Any, Any], folder: Path | None) -> list[Check]:
    """The checks of a loaded stage against the published numbers of its model, for the pictures that are there."""
    known = [one for one in PUBLISHED if one.stage == name and one.model == model]
    return [_check(one, stage, folder / one.picture) for one in known if folder and (folder / one.picture).is_file()]


def missing_pictures(models: Sequence[str], folder: Path | None) -> list[str]:
    """The pictures with published numbers for these models that are not in the folder, sorted."""
    needed = {one.picture for one in PUBLISHED if one.model in models}
    return sorted(name for name in needed if folder is None or not (folder / name).is_file())


def _check(one: Published, stage: Stage[Any, Any], path: Path) -> Check:
    try:
        image = Image.open(path).convert("RGB")
        value = _value(one, stage, image)
    except Exception as error:  # of the picture, or of the model: it is the result of the check
        return failed(one.stage, "published", f"{path.name}: {type(error).__name__}: {error}")
    about = f"{path.name}: {value:.4f}, published {one.value:.4f} ({one.source})"
    check = at_least(one.stage, "published", value, round(one.value - NEAR, 4), [about])
    return check.model_copy(update={"passed": abs(value - one.value) <= NEAR, "most": round(one.value + NEAR, 4)})


def _value(one: Published, stage: Stage[Any, Any], image: Image.Image) -> float:
    if isinstance(one.asks, str):
        (result,) = stage.compute(stage.prepare([Pair(image, one.asks)]))
        return float(result)
    scores: list[float] = stage.scores_at(image, one.asks)  # type: ignore[attr-defined]  # all segmenters above have it
    return scores[one.mask]
