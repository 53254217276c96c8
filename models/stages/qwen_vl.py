"""The back ends for Qwen3-VL: captioner, composer, and "yes", a matcher.

The captioner takes one batched, greedy chat turn for the whole images, and one for the crops. The composer writes from
the notes, without the image. The matcher asks whether a crop shows a phrase. All use one loaded model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from PIL import Image
from transformers import AutoProcessor, Qwen3VLForConditionalGeneration

from models.base import MatcherStage
from models.crops import widened
from models.devices import features, load_model
from models.generation import search_settings, were_cut
from models.guards import Asked
from models.items import CaptionRequest, Failure, Pair, Written
from models.shared import shared_model
from models.stages.composer import TransformersComposer
from models.stages.matcher import probabilities
from models.weights.cache import locate
from models.writers import CaptionerStage
from strata.core import (
    QwenVLComposerParameters,
    QwenVLParameters,
    StageSettings,
    TransformersComposerParameters,
    YesParameters,
)

Item = TypeVar("Item")
Result = TypeVar("Result")
Prepared = tuple[list[int], int, Any]  # of one kind: indices in the batch, token limit, the input of `generate`


class _QwenVL:
    """What the back ends share: the model, and the input for images with their texts."""

    settings: StageSettings
    turn: Any
    _model: Any
    _processor: Any

    def load(self) -> None:
        """Raises WeightsMissing."""
        self._processor = AutoProcessor.from_pretrained(locate(self.settings))
        self._processor.tokenizer.padding_side = "left"  # so that all generated texts start at the same position
        self._shared = shared_model(self.settings, load_qwen_vl)
        self._model, self.turn = self._shared.model, self._shared.turn

    def _chats(self, images: Sequence[Image.Image], prompts: Sequence[str], pixels: tuple[int, int]) -> Any:
        """Make the model's input for a chat turn with each image and its prompt, a BatchFeature on the model's device.

        pixels: the least and the most of an image.
        """
        # the template only marks the image's position; the processor inserts as many tokens as its size needs
        turns = [[{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}] for text in prompts]
        template = self._processor.apply_chat_template
        return features(
            self._processor,
            self._model,
            [widened(image) for image in images],
            text=[template(turn, add_generation_prompt=True, tokenize=False) for turn in turns],
            size={"shortest_edge": pixels[0], "longest_edge": pixels[1]},
            padding=True,
        )


class QwenVLCaptioner(_QwenVL, CaptionerStage):
    """Qwen3-VL of any size. Images of similar size are computed together, so that they need little padding."""

    name: ClassVar[str] = "captioner"

    def __init__(self, settings: StageSettings) -> None:
        super().__init__(settings)
        self.parameters = QwenVLParameters.model_validate(settings.parameters)

    def asked(self, item: CaptionRequest) -> Asked:
        """The prompt, which the text must not repeat, and its language."""
        prompt = self.parameters.scene_prompt if item.kind == "scene" else self.parameters.crop_prompt
        return Asked.by(prompt, "text" if item.kind == "scene" else "phrase")

    def run(self, batch: Sequence[CaptionRequest]) -> list[str | Failure]:
        """As `Stage.run`; requests of one kind and similar area are computed together."""
        return run_sorted(super().run, batch, lambda request: (request.kind, _area(request.image)))

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
        """Make the input of `generate`."""
        return self._chats(images, [prompt] * len(images), (self.parameters.min_pixels, self.parameters.max_pixels))

    @torch.inference_mode()
    def _answer(self, inputs: Any, limit: int) -> list[str]:
        ids = self._model.generate(**inputs, max_new_tokens=limit, **search_settings(self.variation))
        # a decoder-only model returns its input first
        new = ids[:, inputs["input_ids"].shape[1] :]
        texts = self._processor.batch_decode(new, skip_special_tokens=True)
        return [Written(text, cut) for text, cut in zip(texts, were_cut(new, self._model), strict=True)]


class QwenVLComposer(_QwenVL, TransformersComposer):
    """Qwen3-VL as a chat model of text: it gets the notes, not the image."""

    def _checked(self, settings: StageSettings) -> TransformersComposerParameters:
        own = QwenVLComposerParameters.model_validate(settings.parameters)
        return TransformersComposerParameters(**own.model_dump(), grounded=False, precision="bfloat16")

    def load(self) -> None:
        """Raises WeightsMissing."""
        super().load()
        self._tokenizer = self._processor.tokenizer


class QwenVLMatcher(_QwenVL, MatcherStage):
    """The probability that Qwen3-VL's answer to "does this picture show …?" begins with yes.

    It is the softmax over the first tokens of "yes" and "no" in their usual spellings, so that how likely any other
    answer is does not count. (VQAScore, arXiv 2404.01291, takes the probability of "Yes" among all tokens.)
    """

    name: ClassVar[str] = "matcher"

    def __init__(self, settings: StageSettings) -> None:
        super().__init__(settings)
        self.parameters = YesParameters.model_validate(settings.parameters)

    def load(self) -> None:
        """Raises WeightsMissing, and ValueError for a tokenizer in which yes and no begin with the same token."""
        super().load()
        yes, no = (first_tokens(self._processor.tokenizer, word) for word in ("yes", "no"))
        self._yes, self._no = sorted(yes - no), sorted(no - yes)
        if not (self._yes and self._no):
            raise ValueError(f"matcher {self.settings.model}: its tokenizer has no tokens of yes and no")

    def run(self, batch: Sequence[Pair]) -> list[float | Failure | None]:
        """As `Stage.run`; pairs of similar area are computed together."""
        return run_sorted(super().run, batch, lambda pair: _area(pair.crop))

    def prepare(self, batch: Sequence[Pair]) -> Any:
        """Make the model's input for the pairs, a BatchFeature."""
        chosen = self.parameters
        questions = [chosen.question.replace("{}", asked_of(pair.phrase)) for pair in batch]
        return self._chats([pair.crop for pair in batch], questions, (chosen.min_pixels, chosen.max_pixels))

    @torch.inference_mode()
    def compute(self, batch: Any) -> list[float | None]:
        """The probability of each pair, 0..1."""
        # padding is on the left, so that the last position is that of each answer's first token
        logits = self._model(**batch, logits_to_keep=1, use_cache=False).logits[:, -1].float()
        yes, no = logits[:, self._yes].logsumexp(-1), logits[:, self._no].logsumexp(-1)
        return probabilities(torch.sigmoid(yes - no))


def run_sorted(
    run: Callable[[Sequence[Item]], list[Result]], batch: Sequence[Item], key: Callable[[Item], Any]
) -> list[Result]:
    """Run the items of a batch in the order of their keys; returns the results in the order of the batch."""
    order = sorted(range(len(batch)), key=lambda i: key(batch[i]))
    results = dict(zip(order, run([batch[i] for i in order]), strict=True))
    return [results[i] for i in range(len(batch))]


def _area(image: Image.Image) -> int:
    """In square pixels."""
    return image.width * image.height


def first_tokens(tokenizer: Any, word: str) -> set[int]:
    """The tokens that a word begins with in its usual spellings: "yes", "Yes", "YES", and each after a space."""
    spellings = [space + spelled for space in ("", " ") for spelled in (word, word.capitalize(), word.upper())]
    return {tokenizer(spelling, add_special_tokens=False).input_ids[0] for spelling in spellings}


def asked_of(phrase: str) -> str:
    """A phrase within a question: without the full stop that some captioners write."""
    return " ".join(phrase.split()).rstrip(".")


def load_qwen_vl(folder: Path) -> Any:
    """Load a Qwen3-VL checkpoint of any size."""
    return load_model(Qwen3VLForConditionalGeneration, folder)
