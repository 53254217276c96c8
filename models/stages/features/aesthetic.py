"""How much people like to look at a picture: LAION's aesthetic predictors, linear functions of a CLIP embedding.

`v1`: R. Beaumont and C. Schuhmann, LAION-Aesthetics V1, 2022, for OpenAI's ViT-L/14 and ViT-B/32: trained on ratings of
generated pictures (SAC). `v2`: C. Schuhmann, improved-aesthetic-predictor, 2022, `sac+logos+ava1-l14-linearMSE`, for
ViT-L/14: with photographs (AVA) and logos besides; LAION chose its aesthetic subsets with it, from 4.5 to 6.5 upwards.
It has five layers without a function between them, so that their product is one linear layer, which is what is kept.
`weights/aesthetic/README.md` says where both come from and under which licence.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from safetensors.numpy import load_file

from models.base import Stage, WeightsMissing
from models.stages.features.columns import Columns
from models.weights.cache import BUNDLED, locate, require_file
from strata.core import AestheticParameters, StageSettings

HEADS = BUNDLED / "aesthetic" / "heads.safetensors"
# OpenAI's towers that the heads were trained on, by an embedding's width, and a patch's and the image's side in pixels
TOWERS = {(768, 14, 224): "vit_l_14", (512, 32, 224): "vit_b_32"}
Vector = np.typing.NDArray[Any]


class LaionAesthetic(Stage[Vector, Columns]):
    """The score of an embedding of OpenAI's CLIP, about 1 to 10.

    The profile's stage `embedding` names the same checkpoint. It costs nothing beside that one, and reads no image.
    rated: after loading, LAION's embeddings for the ratings 0 to 9, from the lowest: (10, width). Their scores rise.
    """

    name: ClassVar[str] = "aesthetic"

    def __init__(self, settings: StageSettings) -> None:
        super().__init__(settings)
        self._head = AestheticParameters.model_validate(settings.parameters).head

    def load(self) -> None:
        """Raises WeightsMissing, also for a checkpoint that the head was not trained on."""
        folder = locate(self.settings)
        require_file(folder, "open_clip_config.json")
        require_file(HEADS.parent, HEADS.name)
        tower = _tower_of(folder)
        tensors = load_file(HEADS)
        if f"{self._head}.{tower}.weight" not in tensors:
            raise WeightsMissing(f"LAION's head {self._head} is not for {self.settings.model}; v1 is")
        self._weight, self._bias = (tensors[f"{self._head}.{tower}.{part}"] for part in ("weight", "bias"))
        self.rated: Vector = tensors[f"rated.{tower}"]

    def probe_item(self) -> Vector:
        """LAION's embedding for the rating 5."""
        probe: Vector = self.rated[5]
        return probe

    def prepare(self, batch: Sequence[Vector]) -> Vector:
        """The embeddings with length 1: (images, width). Raises ValueError for those of another width."""
        vectors = np.stack(batch).astype(np.float32)
        if vectors.shape[1:] != self._weight.shape:
            raise ValueError(
                f"the embedding has {vectors.shape[1]} numbers, {self.settings.model} makes {len(self._weight)}"
            )
        unit: Vector = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit

    def compute(self, batch: Vector) -> list[Columns]:
        """The score of each embedding."""
        return [{"aesthetic": float(score)} for score in batch @ self._weight + self._bias[0]]


def _tower_of(folder: Path) -> str:
    """Which of OpenAI's towers a checkpoint of open_clip is.

    The same architecture was trained by others, on whose embeddings the heads say nothing. OpenAI's models alone have
    the approximation of GELU that `quick_gelu` names. Raises WeightsMissing.
    """
    try:
        config = json.loads((folder / "open_clip_config.json").read_text(encoding="utf-8"))["model_cfg"]
        vision = config["vision_cfg"]
        tower = TOWERS.get((config["embed_dim"], vision.get("patch_size"), vision.get("image_size")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsMissing(f"{folder}/open_clip_config.json cannot be used: {type(error).__name__}") from error
    if tower is None or not config.get("quick_gelu"):
        raise WeightsMissing(
            f"LAION's heads are for OpenAI's CLIP ViT-L/14 and ViT-B/32 of 224 pixels; {folder} has another model"
        )
    return tower
