"""The matcher on vLLM's engine: the probability that its answer to "does this picture show …?" begins with yes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import ClassVar

from models.items import Pair
from models.stages.qwen_vl import asked_of, first_tokens
from models.stages.vllm.engine import Answer, Question
from models.stages.vllm.stage import VllmStage
from strata.core import StageSettings, VllmMatcherParameters


class VllmMatcher(VllmStage[Pair, float | None]):
    """As `QwenVLMatcher`: the softmax over the first tokens of "yes" and "no" in their usual spellings.

    The engine returns the log-probabilities of exactly these tokens, so that none is missing among its likeliest ones.
    The crop comes before the question: pairs with the same crop share its part of the prefix cache.
    """

    name: ClassVar[str] = "matcher"

    def __init__(self, settings: StageSettings) -> None:
        self._own = VllmMatcherParameters.model_validate(settings.parameters)
        super().__init__(settings, self._own)

    def load(self) -> None:
        """Also find the tokens of both words. Raises ValueError if they begin with the same token."""
        super().load()
        yes, no = (first_tokens(self._engine.tokenizer, word) for word in ("yes", "no"))
        self._yes, self._no = sorted(yes - no), sorted(no - yes)
        if not (self._yes and self._no):
            raise ValueError(f"matcher {self.settings.model}: its tokenizer has no tokens of yes and no")

    def _question(self, item: Pair) -> Question:
        text = self._own.question.replace("{}", asked_of(item.phrase))
        return self._chat([], [item.crop], text, 1, scored=(*self._yes, *self._no))

    def _result(self, item: Pair, answer: Answer | None) -> float | None:
        assert answer is not None
        yes, no = (_sum_of(answer.scores[token] for token in tokens) for tokens in (self._yes, self._no))
        return 1 / (1 + math.exp(min(700.0, no - yes)))


def _sum_of(logarithms: Iterable[float]) -> float:
    """The logarithm of the sum of numbers that are given by their logarithms."""
    values = list(logarithms)
    top = max(values)
    return top + math.log(sum(math.exp(value - top) for value in values)) if math.isfinite(top) else top
