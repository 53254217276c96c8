"""The back ends for chat servers of the stages that write text: captioner and composer over `models.chat.client`."""

from __future__ import annotations

import base64
import io
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, TypeVar

from PIL import Image

from models.base import CaptionRequest, ComposeRequest, Failure, Stage
from models.chat.client import ChatClient
from models.chat.questions import ChatAnswer, Question, prompt_bound
from models.evidence import sentences_of
from models.prompts import load_prompt
from strata.core import ChatCaptionerParameters, ChatComposerParameters, ChatParameters, StageSettings, Usage
from strata.errors import StrataError

ChatItem = TypeVar("ChatItem", CaptionRequest, ComposeRequest)
JPEG_QUALITY = 90
PLAIN = "ChatAnswer with the one word: yes."


class NoAnswer(StrataError, RuntimeError):
    """The server gave no usable answer to this question, though it answers others."""


class _ChatStage(Stage[ChatItem, str], Generic[ChatItem]):
    """Base of the back ends: all questions of a batch are sent in parallel, whatever the batch size.

    settings.model is "server:URL", with the URL up to and including /v1.
    """

    parameters: ChatParameters

    def __init__(self, settings: StageSettings, parameters: ChatParameters, with_image: bool) -> None:
        super().__init__(settings)
        self.parameters = parameters
        kind, _, url = settings.model.partition(":")
        if kind != "server" or not url.startswith(("http://", "https://")):
            raise ValueError(f"{settings.model!r} is no chat server: expected server:http://HOST:PORT/v1")
        grey = Image.new("RGB", (64, 64), "grey") if with_image else None
        self._client = ChatClient(url, parameters, self._asking([], PLAIN, grey, 1))

    def load(self) -> None:
        """Open the connection pool; nothing is sent yet."""
        self._client.open()

    def compute(self, batch: Sequence[ChatItem]) -> list[str]:
        """A text for each item. Raises NoAnswer for the first that has none."""
        texts = []
        for result in self.run(batch):
            if isinstance(result, Failure):
                raise NoAnswer(result.detail)
            texts.append(result)
        return texts

    def run(self, batch: Sequence[ChatItem]) -> list[str | Failure]:
        """As `Stage.run`; each question is a request of its own, so a failing one needs no halving."""
        # an item without a question has an empty answer
        questions = [self._question(item) for item in batch]
        answers = iter(self._client.ask([question for question in questions if question is not None]))
        # answers with a fault become failures; their tokens count all the same
        results: list[str | Failure] = []
        usage: list[Usage] = []
        for question in questions:
            answer = next(answers) if question is not None else ChatAnswer("", None, False, Usage())
            usage.append(answer.usage)
            fault = answer.fault or self._fault(answer)
            results.append(Failure(self.name, NoAnswer.__name__, fault) if fault else self._text(answer))
        self.usage = usage
        return results

    def bound(self, item: ChatItem) -> tuple[Usage, Usage]:
        """As `Stage.bound`. The image of an item is not needed."""
        question = self._question(item)
        return (question.bound, self._client.worst(question)) if question else (Usage(), Usage())

    def release(self) -> None:
        """Forget the answers."""
        self._client.forget()

    @abstractmethod
    def _question(self, item: ChatItem) -> Question | None:
        """The question for an item; None if there is nothing to ask: then its text is empty."""

    def _text(self, answer: ChatAnswer) -> str:
        return answer.text

    def _fault(self, answer: ChatAnswer) -> str | None:
        """What is wrong with an answer that the server gave as a success; None if nothing is."""
        return None

    def _asking(
        self, messages: Sequence[dict[str, Any]], text: str, image: Image.Image | None, max_tokens: int
    ) -> Question:
        """A question: the messages, then one of the user with the image, if any, and the text."""
        texts = [*(message["content"] for message in messages), text]
        content: Any = text
        if image is not None:
            url = {"url": _data_url(image, self.parameters)}
            content = [{"type": "image_url", "image_url": url}, {"type": "text", "text": text}]
        bound = prompt_bound(texts, int(image is not None), self.parameters)
        return Question([*messages, {"role": "user", "content": content}], max_tokens, bound)


def _data_url(image: Image.Image, parameters: ChatParameters) -> str:
    """The image as a `data:` URL, reduced to the parameters' longest side, never enlarged."""
    scale = min(1.0, parameters.longest_side / max(image.size))
    if scale < 1:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, parameters.image_format, quality=JPEG_QUALITY)
    return f"data:image/{parameters.image_format};base64,{base64.b64encode(buffer.getvalue()).decode()}"


class OpenAICaptioner(_ChatStage[CaptionRequest]):
    """Captions of whole images and crops from a server whose model takes images."""

    name: ClassVar[str] = "captioner"

    def __init__(self, settings: StageSettings) -> None:
        self._asked = ChatCaptionerParameters.model_validate(settings.parameters)
        super().__init__(settings, self._asked, with_image=True)

    def _question(self, item: CaptionRequest) -> Question:
        p = self._asked
        if item.kind == "scene":
            return self._asking([], p.scene_prompt, item.image, p.scene_tokens)
        return self._asking([], p.crop_prompt, item.image, p.crop_tokens)


class OpenAIComposer(_ChatStage[ComposeRequest]):
    """Descriptions from a server. One that reaches the token limit is cut after its last whole sentence."""

    name: ClassVar[str] = "composer"

    def __init__(self, settings: StageSettings) -> None:
        self._asked = ChatComposerParameters.model_validate(settings.parameters)
        self._prompt = load_prompt(self._asked.prompt, self._asked.prompt_sha256, settings.prompt_text)
        super().__init__(settings, self._asked, self._asked.with_image)

    def _question(self, item: ComposeRequest) -> Question | None:
        p = self._asked
        image = item.image if p.with_image else None
        notes = self._prompt.notes(item.record, p.max_notes)
        if not notes and image is None:
            return None
        *before, last = self._prompt.messages(notes or "There are no notes on this picture.")
        return self._asking(before, last["content"], image, p.max_new_tokens)

    def _text(self, answer: ChatAnswer) -> str:
        return " ".join(_whole(answer.text)) if answer.cut else answer.text

    def _fault(self, answer: ChatAnswer) -> str | None:
        if answer.cut and not _whole(answer.text):
            return f"the description has no whole sentence within {self._asked.max_new_tokens} tokens"
        return None


def _whole(text: str) -> list[str]:
    """The sentences of a text that was cut off, without a last one that is incomplete."""
    sentences = sentences_of(text)
    ended = bool(sentences) and sentences[-1].rstrip("\"”')").endswith((".", "!", "?"))
    return sentences if ended else sentences[:-1]
