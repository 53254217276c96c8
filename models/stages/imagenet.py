"""EfficientNet-Lite with ImageNet's 1000 classes: the tagger of whole images, and a matcher that judges kinds.

The weights are Google's EfficientNet-Lite2 (Apache-2.0), with the names of the package efficientnet-lite-pytorch; the
architecture is timm's, whose tensors have other names. Every image and crop is resized to one square, whatever its
shape: a centre crop, as in the evaluation of such models, would cut off what a long box holds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from timm.data.imagenet_info import ImageNetInfo
from torch import Tensor

from models.base import MatcherStage, Stage
from models.devices import best_device
from models.items import Pair
from models.kinds.coco import kind_of
from models.stages.clip import require_file
from models.weights.cache import locate
from strata.core import ImageNetTaggerParameters, Parameters, StageSettings
from strata.core.layers import Tag

ARCHITECTURE = "tf_efficientnet_lite2"
SIDE = 260  # pixels: the resolution that EfficientNet-Lite2 was trained for
_BLOCK = re.compile(r"_blocks\.(\d+)\.(\w+)\.(.+)")
_OUTER = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
# the layers of a block without expansion, which only the first stage has, and of all other blocks
_SEPARABLE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_INVERTED = {
    **{"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"},
    **{"_project_conv": "conv_pwl", "_bn2": "bn3"},
}


class Classifier:
    """The network. Its probabilities are the softmax over the 1000 classes, in float32."""

    def __init__(self, settings: StageSettings) -> None:
        """Load the weights. Raises WeightsMissing, and ValueError unless they are those of the architecture."""
        folder = locate(settings)
        require_file(folder, "model.safetensors")
        self._model: Any = timm.create_model(ARCHITECTURE, pretrained=False)
        try:
            self._model.load_state_dict(renamed(load_file(folder / "model.safetensors"), self._model.blocks))
        except (KeyError, IndexError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"{folder} holds no weights of {ARCHITECTURE}: {reason}") from error
        self._model.eval().to(best_device())

    @staticmethod
    def pixels(images: Sequence[Image.Image]) -> Tensor:
        """Images of any size: float (images, 3, 260, 260), -1 to 1."""
        resized = [image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC) for image in images]
        whole = torch.from_numpy(np.stack([np.asarray(image) for image in resized])).permute(0, 3, 1, 2)
        return whole.to(best_device()).float() / 127.5 - 1

    @torch.inference_mode()
    def probabilities(self, pixels: Tensor) -> Tensor:
        """The probability of each class, a mean over the picture and its mirror image: (images, 1000).

        Raises ArithmeticError on NaN, from broken weights.
        """
        both: Tensor = self._model(torch.cat([pixels, pixels.flip(3)])).softmax(dim=1)
        found = (both[: len(pixels)] + both[len(pixels) :]) / 2
        if found.isnan().any():
            raise ArithmeticError("the classifier's probability is not a number (NaN)")
        return found


class ImageNetTagger(Stage[Image.Image, list[Tag]]):
    """Tags are the first words of ImageNet's classes, such as "Egyptian cat"."""

    name: ClassVar[str] = "tagger"

    def __init__(self, settings: StageSettings) -> None:
        super().__init__(settings)
        self.parameters = ImageNetTaggerParameters.model_validate(settings.parameters)

    def load(self) -> None:
        """Raises WeightsMissing and ValueError."""
        self._classifier = Classifier(self.settings)
        self._words = class_words()

    def prepare(self, batch: Sequence[Image.Image]) -> Tensor:
        """The images' pixels."""
        return Classifier.pixels(batch)

    def compute(self, batch: Tensor) -> list[list[Tag]]:
        """The classes of each image that are probable enough, the most probable first."""
        best = self._classifier.probabilities(batch).topk(self.parameters.max_tags, dim=1)
        rows = zip(best.values.tolist(), best.indices.tolist(), strict=True)
        return [
            [
                Tag(word=self._words[index], score=min(score, 1.0))
                for score, index in zip(*row, strict=True)
                if score >= self.parameters.threshold
            ]
            for row in rows
        ]


class KindMatcher(MatcherStage):
    """The probability that a crop belongs to one of the ImageNet classes that support the phrase's kind.

    None for a phrase that names no kind of COCO, or one for which ImageNet has no class, such as a person: this matcher
    cannot judge it.
    """

    name: ClassVar[str] = "matcher"

    def __init__(self, settings: StageSettings) -> None:
        super().__init__(settings)
        Parameters.model_validate(settings.parameters)  # it has no parameters: refuses any

    def load(self) -> None:
        """Raises WeightsMissing and ValueError."""
        self._classifier = Classifier(self.settings)

    def prepare(self, batch: Sequence[Pair]) -> tuple[list[tuple[int, ...]], Tensor | None]:
        """The classes of each pair's kind, and the pixels of the crops that have any."""
        kinds = [kind_of(pair.phrase) for pair in batch]
        classes = [kind.classes if kind else () for kind in kinds]
        crops = [pair.crop for pair, own in zip(batch, classes, strict=True) if own]
        return classes, Classifier.pixels(crops) if crops else None

    def compute(self, batch: tuple[list[tuple[int, ...]], Tensor | None]) -> list[float | None]:
        """The probability of each pair, 0..1, or None."""
        classes, pixels = batch
        rows = iter(self._classifier.probabilities(pixels) if pixels is not None else ())
        return [min(1.0, float(next(rows)[list(own)].sum())) if own else None for own in classes]


def class_words() -> list[str]:
    """The first word of each ImageNet class, in their order: WordNet's first lemma."""
    info = ImageNetInfo()
    return [info.index_to_description(i).partition(",")[0] for i in range(info.num_classes())]


def renamed(tensors: Mapping[str, Tensor], blocks: Any) -> dict[str, Tensor]:
    """The tensors under timm's names. blocks: the stages of the timm model, each a sequence of blocks.

    Raises KeyError and IndexError for names that are none of efficientnet-lite-pytorch's.
    """
    # there the blocks are numbered through, in timm they are counted in each stage
    places = [f"blocks.{i}.{j}" for i, stage in enumerate(blocks) for j in range(len(stage))]
    found = {}
    for name, tensor in tensors.items():
        block = _BLOCK.fullmatch(name)
        if block is None:
            layer, _, rest = name.partition(".")
            found[f"{_OUTER[layer]}.{rest}"] = tensor
        else:
            number, layer, rest = int(block[1]), block[2], block[3]
            layers = _INVERTED if f"_blocks.{number}._expand_conv.weight" in tensors else _SEPARABLE
            found[f"{places[number]}.{layers[layer]}.{rest}"] = tensor
    return found
