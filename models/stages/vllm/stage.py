"""The base of the stages that ask vLLM's engine: one question an item, all of a batch at once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, TypeVar

from PIL import Image

from models.base import Stage, StageBroken
from models.chat.asking import shrunk
from models.items import Failure
from models.stages.vllm.engine import Answer, EngineBroken, Question, shared_engine
from strata.core import StageSettings, Usage, VllmParameters

Item = TypeVar("Item")
Result = TypeVar("Result")
Prepared = list[tuple[Any, Question | None]]  # items with their questions; None: there is nothing to ask


class VllmStage(Stage[Item, Result]):
    """Asks the engine a question for each item. A batch that fails is halved by `Stage.run`, as that of any model."""

    parameters: VllmParameters

    def __init__(self, settings: StageSettings, parameters: VllmParameters) -> None:
        super().__init__(settings)
        self.parameters = parameters
        self._used: dict[int, Usage] = {}  # by the item's id, in the current `run`

    def load(self) -> None:
        """Start the engine, or share that of another stage. Raises WeightsMissing and the errors of `Engine`."""
        self._engine = shared_engine(self.settings, self.parameters)
        self._engine.check_sampling(self.parameters.sampling)
        self.turn = self._engine.turn

    def prepare(self, batch: Sequence[Item]) -> Prepared:
        """The questions; their images are reduced here, in the thread."""
        return [(item, self._question(item)) for item in batch]

    def compute(self, batch: Prepared) -> list[Result]:
        """The results, in order. Raises StageBroken if the engine has failed."""
        questions = [question for _, question in batch if question is not None]
        try:
            answers = iter(self._engine.ask(questions, self.parameters, self.progress) if questions else [])
        except EngineBroken as error:
            raise StageBroken(self.name, str(error)) from error
        results = []
        for item, question in batch:
            answer = next(answers) if question is not None else None
            if answer is not None:
                self._used[id(item)] = self._used.get(id(item), Usage()) + answer.usage
            results.append(self._result(item, answer))
        return results

    def run(self, batch: Sequence[Item]) -> list[Result | Failure]:
        """As `Stage.run`; `usage` has the tokens that the engine has read and written for each item."""
        self._used = {}
        results = super().run(batch)
        self.usage = [self._used.pop(id(item), Usage()) for item in batch]
        return results

    @abstractmethod
    def _question(self, item: Item) -> Question | None:
        """The question for an item; None if there is nothing to ask."""

    @abstractmethod
    def _result(self, item: Item, answer: Answer | None) -> Result:
        """The result of an item. answer: None if there was no question."""

    def _build_question(
        self, messages: Sequence[dict[str, Any]], text: str, image: Image.Image | None, max_tokens: int
    ) -> Question:
        """Build a question: the messages, then a user message with the image, if any, and the text."""
        return self._chat(messages, [] if image is None else [image], text, max_tokens)

    def _chat(
        self, messages: Sequence[dict[str, Any]], images: Sequence[Image.Image], text: str, max_tokens: int, **more: Any
    ) -> Question:
        content: Any = text
        if images:
            side = self.parameters.longest_side
            parts = [{"type": "image_pil", "image_pil": shrunk(image, side).convert("RGB")} for image in images]
            content = [*parts, {"type": "text", "text": text}]
        temperature = getattr(self, "variation", 0.0) or self.parameters.temperature
        return Question([*messages, {"role": "user", "content": content}], max_tokens, temperature, **more)
