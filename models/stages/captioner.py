"""Captioner: a text for a whole image, or the phrase of one object's crop, by Florence-2 or BLIP-2.

Other back ends: Qwen3-VL in `models.stages.qwen_vl`, and "openai", a chat server, in `models.chat.backends`.

A text depends on the other items of its batch only through rounding: sums in another order differ in their last bits,
and if two tokens have nearly the same probability, the other one may be chosen. In float32 this is rare, and the tests
expect equal texts; in bfloat16 about one text in some hundreds differs by a word.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from PIL import Image
from transformers import (
    AutoProcessor,
    Blip2ForConditionalGeneration,
    Blip2Processor,
)

from models.devices import features, load_model
from models.generation import search_settings, were_cut
from models.items import CaptionRequest, Written
from models.shared import shared_model
from models.stages.florence import FlorenceTask, load_florence
from models.weights.cache import locate
from models.writers import CaptionerStage
from strata.core import Blip2CaptionerParameters, CaptionerParameters, FlorenceCaptionerParameters, StageSettings

Kind = Literal["scene", "crop"]
KINDS: tuple[Kind, ...] = ("scene", "crop")
Prepared = tuple[Kind, list[int], Any]  # requests of one kind: their indices in the batch, the input of `generate`


class _Captioner(CaptionerStage):
    """Base class of the back ends: one model call for the whole images of a batch, and one for its crops."""

    name: ClassVar[str] = "captioner"
    least_tokens: ClassVar[int | None] = None  # of a text
    parameters: CaptionerParameters

    def __init__(self, settings: StageSettings) -> None:
        super().__init__(settings)
        self._model: Any = None
        self._processor: Any = None

    def prepare(self, batch: Sequence[CaptionRequest]) -> list[Prepared]:
        """Make the model's input for the requests of each kind.

        The kinds are not mixed, because in one call the short phrases would be decoded until the longest caption ends.
        """
        prepared: list[Prepared] = []
        for kind in KINDS:
            indices = [i for i, request in enumerate(batch) if request.kind == kind]
            if indices:
                prepared.append((kind, indices, self._inputs([batch[i].image for i in indices], kind)))
        return prepared

    @torch.inference_mode()
    def compute(self, batch: list[Prepared]) -> list[str]:
        """A text for each request, in order, without surrounding white space."""
        texts: dict[int, str] = {}
        for kind, indices, inputs in batch:
            texts |= zip(indices, self._answer(inputs, kind), strict=True)
        return [texts[i] for i in sorted(texts)]

    def _answer(self, inputs: Any, kind: Kind) -> list[str]:
        # no sampling at first: the same image gives the same text
        p = self.parameters
        ids = self._model.generate(
            **inputs,
            max_new_tokens=p.scene_tokens if kind == "scene" else p.crop_tokens,
            min_new_tokens=self.least_tokens,
            **search_settings(self.variation, self._beams(kind)),
        )
        new = self._new(ids, inputs)
        texts = self._processor.batch_decode(new, skip_special_tokens=True)
        return [Written(text.strip(), cut) for text, cut in zip(texts, were_cut(new, self._model), strict=True)]

    @abstractmethod
    def _inputs(self, images: list[Image.Image], kind: Kind) -> Any:
        """Make the input of `generate`, a BatchFeature on the model's device."""

    def _new(self, ids: torch.Tensor, inputs: Any) -> torch.Tensor:
        """The generated tokens alone, (N, L): an encoder-decoder model returns one start token before them."""
        return ids[:, 1:]

    def _beams(self, kind: Kind) -> int:
        return 1


class FlorenceCaptioner(_Captioner):
    """Florence-2 of any size, among them the demo's bundled model."""

    def __init__(self, settings: StageSettings) -> None:
        super().__init__(settings)
        self.parameters: FlorenceCaptionerParameters = FlorenceCaptionerParameters.model_validate(settings.parameters)

    def load(self) -> None:
        """Raises WeightsMissing."""
        self._processor = AutoProcessor.from_pretrained(locate(self.settings))
        # a detector with the same weights uses the same model
        self._shared = shared_model(self.settings, load_florence)
        self._model, self.turn = self._shared.model, self._shared.turn
        tasks = {"scene": self.parameters.scene_task, "crop": self.parameters.crop_task}
        self._tasks = {kind: FlorenceTask(self._processor, self._model, task) for kind, task in tasks.items()}

    def _inputs(self, images: list[Image.Image], kind: Kind) -> Any:
        return self._tasks[kind].inputs(images)


class Blip2Captioner(_Captioner):
    """BLIP-2 with a decoder-only or an encoder-decoder language model (OPT, Flan-T5)."""

    # LAVIS asks for `min_length=1` (lavis/models/blip2_models/blip2_opt.py): a text does not begin with its end
    least_tokens: ClassVar[int | None] = 1

    def __init__(self, settings: StageSettings) -> None:
        super().__init__(settings)
        self.parameters: Blip2CaptionerParameters = Blip2CaptionerParameters.model_validate(settings.parameters)

    def load(self) -> None:
        """Raises WeightsMissing."""
        folder = locate(self.settings)
        self._processor = Blip2Processor.from_pretrained(folder)
        self._model = load_model(Blip2ForConditionalGeneration, folder)
        # the processor needs it to insert the image tokens; processors saved before transformers 4.47 do not have it
        self._processor.num_query_tokens = self._model.config.num_query_tokens

    def _inputs(self, images: list[Image.Image], kind: Kind) -> Any:
        prompt = self.parameters.scene_prompt if kind == "scene" else self.parameters.crop_prompt
        text = [prompt] * len(images) if prompt else None  # None: the text is generated from the image alone
        return features(self._processor, self._model, images, text=text)

    def _beams(self, kind: Kind) -> int:
        return self.parameters.scene_beams if kind == "scene" else 1

    def _new(self, ids: torch.Tensor, inputs: Any) -> torch.Tensor:
        config = self._model.config
        if config.text_config.is_encoder_decoder:
            return super()._new(ids, inputs)
        # a decoder-only model returns its input first: the image tokens, then the prompt or one start token
        input_length = inputs["input_ids"].shape[1] if "input_ids" in inputs else config.num_query_tokens + 1
        return ids[:, input_length:]
