"""The writers on vLLM's engine: captioner and composer. They ask what those of chat servers ask (`models.chat.asking`).

With `crops_per_request` above 1 several crops of one image are one request, whose answer is a JSON list of phrases in
the crops' order. Where that list is missing or has another length, its crops are asked about one by one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from models.chat.asking import CaptionQuestions, ComposeQuestions
from models.items import CaptionRequest, ComposeRequest, Failure, Written
from models.stages.vllm.engine import Answer, Question
from models.stages.vllm.stage import VllmStage
from strata.core import StageSettings, Usage, VllmCaptionerParameters, VllmComposerParameters

Unit = CaptionRequest | tuple[CaptionRequest, ...]  # what one question is about
_LIST_TOKENS = 4  # of an entry in a JSON list, beside the phrase's own
_SEVERAL = (
    "Here are {count} pictures. Answer for each of them, in their order, as if it stood alone, with a JSON list of "
    "{count} texts and nothing else. What is asked of each picture:\n{prompt}"
)


class VllmCaptioner(CaptionQuestions[Question], VllmStage[Any, str]):
    """Captions of whole images and crops."""

    name: ClassVar[str] = "captioner"

    def __init__(self, settings: StageSettings) -> None:
        self._own = VllmCaptionerParameters.model_validate(settings.parameters)
        self.prompts, self.text_language = self._own, self._own.language
        VllmStage.__init__(self, settings, self._own)

    def run(self, batch: Sequence[CaptionRequest]) -> list[str | Failure]:
        """As `Stage.run`; neighbouring crops of one image may be asked about together."""
        units = list(_units(batch, self._own.crops_per_request))
        texts, used = self._asked(units)
        # what has no usable list is asked again, one by one
        alone = [request for unit in units if isinstance(unit, tuple) for request in unit if id(request) not in texts]
        if alone:
            again, more = self._asked(alone)
            texts, used = texts | again, {key: used.get(key, Usage()) + more.get(key, Usage()) for key in used | more}
        self.usage = [used.pop(id(request), Usage()) for request in batch]
        return [texts[id(request)] for request in batch]

    def _asked(self, units: Sequence[Unit]) -> tuple[dict[int, str | Failure], dict[int, Usage]]:
        """The texts and the usage of requests, by their ids; no texts of a unit whose answer cannot be used."""
        results = VllmStage.run(self, units)
        texts: dict[int, str | Failure] = {}
        used: dict[int, Usage] = {}
        for unit, result, usage in zip(units, results, self.usage, strict=True):
            requests = unit if isinstance(unit, tuple) else (unit,)
            used[id(requests[0])] = usage
            for request, text in zip(requests, _texts_of(unit, result), strict=False):
                texts[id(request)] = text
        return texts, used

    def _question(self, item: Unit) -> Question:
        if isinstance(item, CaptionRequest):
            return CaptionQuestions._question(self, item)
        count, p = len(item), self._own
        schema = {"type": "array", "items": {"type": "string"}, "minItems": count, "maxItems": count}
        text = _SEVERAL.format(count=count, prompt=p.crop_prompt)
        limit = count * (p.crop_tokens + _LIST_TOKENS)
        return self._chat([], [request.image for request in item], text, limit, schema=schema)

    def _result(self, item: Unit, answer: Answer | None) -> str:
        return _written(answer)


class VllmComposer(ComposeQuestions[Question], VllmStage[ComposeRequest, str]):
    """Descriptions from the notes, with the image if the profile says so."""

    name: ClassVar[str] = "composer"

    def __init__(self, settings: StageSettings) -> None:
        own = VllmComposerParameters.model_validate(settings.parameters)
        self._set(settings, own)
        VllmStage.__init__(self, settings, own)

    def _result(self, item: ComposeRequest, answer: Answer | None) -> str:
        return _written(answer)


def _written(answer: Answer | None) -> str:
    return Written(answer.text, answer.cut) if answer is not None else ""


def _units(batch: Sequence[CaptionRequest], most: int) -> Iterator[Unit]:
    """The requests, in order, with neighbouring crops of one image in tuples of at most `most`."""
    together: list[CaptionRequest] = []
    for request in batch:
        joins = together and request.of is together[0].of and len(together) < most
        if together and not (joins and request.kind == "crop"):
            yield tuple(together) if len(together) > 1 else together[0]
            together = []
        if request.kind == "crop" and request.of is not None and most > 1:
            together.append(request)
        else:
            yield request
    if together:
        yield tuple(together) if len(together) > 1 else together[0]


def _texts_of(unit: Unit, result: str | Failure) -> Sequence[str | Failure]:
    """A text for each request of a unit; none if the answer about several cannot be used."""
    if isinstance(unit, CaptionRequest):
        return [result]
    if isinstance(result, Failure):
        return []
    try:
        found = json.loads(result)
    except (ValueError, RecursionError):
        return []
    whole = isinstance(found, list) and len(found) == len(unit) and all(isinstance(one, str) for one in found)
    return [Written(one) for one in found] if whole else []
