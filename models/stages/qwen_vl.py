"""The captioner's back end for Qwen3-VL: one batched, greedy chat turn for the whole images, and one for the crops."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from transformers import AutoProcessor, Qwen3VLForConditionalGeneration

from models.crops import widened
from models.devices import features, load_model
from models.generation import search_settings, were_cut
from models.guards import Asked
from models.items import CaptionRequest, Failure, Written
from models.shared import shared_model
from models.weights.cache import locate
from models.writers import CaptionerStage
from strata.core import QwenVLParameters, StageSettings

MOST_STRETCHED = 100  # ratio of long to short side; Qwen's image processor refuses more than 200
Prepared = tuple[list[int], int, Any]  # of one kind: indices in the batch, token limit, the input of `generate`


class QwenVLCaptioner(CaptionerStage):
    """Qwen3-VL of any size. Images of similar size are computed together, so that they need little padding."""

    name: ClassVar[str] = "captioner"

    def __init__(self, settings: StageSettings) -> None:
        super().__init__(settings)
        self.parameters = QwenVLParameters.model_validate(settings.parameters)

    def load(self) -> None:
        """Raises WeightsMissing."""
        self._processor: Any = AutoProcessor.from_pretrained(locate(self.settings))
        self._processor.tokenizer.padding_side = "left"  # so that all generated texts start at the same position
        self._shared = shared_model(self.settings, load_qwen_vl)
        self._model, self.turn = self._shared.model, self._shared.turn

    def asked(self, item: CaptionRequest) -> Asked:
        """The prompt, which the text must not repeat, and its language."""
        prompt = self.parameters.scene_prompt if item.kind == "scene" else self.parameters.crop_prompt
        return Asked.by(prompt, "text" if item.kind == "scene" else "phrase")

    def run(self, batch: Sequence[CaptionRequest]) -> list[str | Failure]:
        """As `Stage.run`; requests of one kind and similar area are computed together."""
        # sort, run, and put the results back into the order of the batch
        order = sorted(range(len(batch)), key=lambda i: (batch[i].kind, batch[i].image.width * batch[i].image.height))
        answers = super().run([batch[i] for i in order])
        by_index = dict(zip(order, answers, strict=True))
        return [by_index[i] for i in range(len(batch))]

    def prepare(self, batch: Sequence[CaptionRequest]) -> list[Prepared]:
        """Make the model's input for the requests of each kind: the kinds differ in prompt and token limit."""
        chosen = self.parameters
        kinds = (("scene", chosen.scene_prompt, chosen.scene_tokens), ("crop", chosen.crop_prompt, chosen.crop_tokens))
        prepared: list[Prepared] = []
        for kind, prompt, limit in kinds:
            indices = [i for i, request in enumerate(batch) if request.kind == kind]
            if indices:
                prepared.append((indices, limit, self._inputs([batch[i].image for i in indices], prompt)))
        return prepared

    def compute(self, batch: list[Prepared]) -> list[str]:
        """A text for each request, in order, without surrounding white space; one model call for each kind."""
        texts: dict[int, str] = {}
        for indices, limit, inputs in batch:
            texts |= zip(indices, self._answer(inputs, limit), strict=True)
        return [texts[i] for i in sorted(texts)]

    def _inputs(self, images: list[Image.Image], prompt: str) -> Any:
        """Make the input of `generate`, a BatchFeature on the model's device."""
        # the template only marks the image's position; the processor inserts as many tokens as its size needs
        content = [{"type": "image"}, {"type": "text", "text": prompt}]
        messages = [{"role": "user", "content": content}]
        chat = self._processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return features(
            self._processor,
            self._model,
            [widened(image, MOST_STRETCHED) for image in images],
            text=[chat] * len(images),
            size={"shortest_edge": self.parameters.min_pixels, "longest_edge": self.parameters.max_pixels},
            padding=True,
        )

    @torch.inference_mode()
    def _answer(self, inputs: Any, limit: int) -> list[str]:
        ids = self._model.generate(**inputs, max_new_tokens=limit, **search_settings(self.variation))
        # a decoder-only model returns its input first
        new = ids[:, inputs["input_ids"].shape[1] :]
        texts = self._processor.batch_decode(new, skip_special_tokens=True)
        return [Written(text, cut) for text, cut in zip(texts, were_cut(new, self._model), strict=True)]


def load_qwen_vl(folder: Path) -> Any:
    """Load a Qwen3-VL checkpoint of any size."""
    return load_model(Qwen3VLForConditionalGeneration, folder)
