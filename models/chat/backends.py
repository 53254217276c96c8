"""The back ends for chat servers: captioner and composer over `models.chat.client`."""

from __future__ import annotations

import base64
import io
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from PIL import Image

from models.base import GROUP_OF
from models.chat.asking import CaptionQuestions, ComposeQuestions, shrunk
from models.chat.client import ChatClient
from models.chat.questions import ChatAnswer, Question, prompt_bound
from models.deadlines import DEADLINES, Activity
from models.items import CaptionRequest, ComposeRequest, Failure, Written
from models.writers import WriterStage
from strata.core import ChatCaptionerParameters, ChatComposerParameters, ChatParameters, StageSettings, Usage
from strata.errors import StrataError

ChatItem = TypeVar("ChatItem", CaptionRequest, ComposeRequest)
JPEG_QUALITY = 90  # of 100
PROBE = "Answer with the one word: yes."  # the text of the question that tests the server


class NoAnswer(StrataError, RuntimeError):
    """The server has no usable answer to this question, although it answers others."""


def chat_client(settings: StageSettings, parameters: ChatParameters, probe: Question, stage: str) -> ChatClient:
    """The client of a stage's server. Raises ValueError if settings.model is none."""
    kind, _, url = settings.model.partition(":")
    if kind != "server" or not url.startswith(("http://", "https://")):
        raise ValueError(f"{settings.model!r} is no chat server: expected server:http://HOST:PORT/v1")
    return ChatClient(url, parameters, probe, stage)


class _ChatStage(WriterStage[ChatItem], Generic[ChatItem]):
    """Base class of the back ends. All questions of a batch are sent in parallel, whatever the batch size.

    settings.model is "server:URL", with the URL up to and including /v1.
    """

    parameters: ChatParameters

    def __init__(self, settings: StageSettings, parameters: ChatParameters, with_image: bool) -> None:
        super().__init__(settings)
        self.parameters = parameters
        # the probe has an image if the questions have one: a server may refuse all images
        grey = Image.new("RGB", (64, 64), "grey") if with_image else None
        self._client = chat_client(settings, parameters, self._build_question([], PROBE, grey, 1), self.name)

    def load(self) -> None:
        """Open the connection pool. It sends no request yet."""
        self._client.open()

    def compute(self, batch: Sequence[ChatItem]) -> list[str]:
        """A text for each item, in order. Raises NoAnswer for the first item without one."""
        texts = []
        for result in self.run(batch):
            if isinstance(result, Failure):
                raise NoAnswer(result.detail)
            texts.append(result)
        return texts

    def run(self, batch: Sequence[ChatItem]) -> list[str | Failure]:
        """As `Stage.run`. Each item is a request of its own, so the batch is not halved after a failure."""
        # ask all questions at once; an item without a question gets an empty text
        questions = [self._question(item) for item in batch]
        asked = [question for question in questions if question is not None]
        with DEADLINES.watch(Activity(GROUP_OF[self.name], self.name, self._client.seconds_at_most(len(asked)))):
            answers = iter(self._client.ask(asked))
        # an answer with a fault becomes a Failure; its tokens were paid, so they count too
        results: list[str | Failure] = []
        usage: list[Usage] = []
        for question in questions:
            answer = next(answers) if question is not None else ChatAnswer("", None, False, Usage())
            usage.append(answer.usage)
            failure = answer.fault and Failure(self.name, NoAnswer.__name__, answer.fault, answer.transient)
            results.append(failure or Written(answer.text, answer.cut))
        self.usage = usage
        return results

    @property
    def varies(self) -> bool:
        """Whether a second text can differ: not where the server chooses the temperature."""
        return self.parameters.temperature != "default"

    def probe_item(self) -> None:
        """None: the client asks the server a test question after an error, and a probe at the start would be paid."""

    def bound(self, item: ChatItem) -> tuple[Usage, Usage]:
        """As `Stage.bound`. It does not depend on the image. A text may be asked for twice (`models.writers`)."""
        question = self._question(item)
        return (question.bound, self._client.upper_bound(question) * 2) if question else (Usage(), Usage())

    def release(self) -> None:
        """Drop the kept answers."""
        self._client.clear()

    def keep(self) -> Usage:
        """As `Stage.keep`."""
        return self._client.keep()

    @abstractmethod
    def _question(self, item: ChatItem) -> Question | None:
        """The question for an item; None if there is nothing to ask, and the text is empty."""

    def _build_question(
        self, messages: Sequence[dict[str, Any]], text: str, image: Image.Image | None, max_tokens: int
    ) -> Question:
        """Build a question: the messages, then a user message with the image, if any, and the text."""
        texts = [*(message["content"] for message in messages), text]
        content: Any = text
        if image is not None:
            url = {"url": _data_url(image, self.parameters)}
            content = [{"type": "image_url", "image_url": url}, {"type": "text", "text": text}]
        bound = prompt_bound(texts, int(image is not None), self.parameters)
        temperature = self.variation or None
        return Question([*messages, {"role": "user", "content": content}], max_tokens, bound, temperature)


def _data_url(image: Image.Image, parameters: ChatParameters) -> str:
    """Encode the image as a `data:` URL, reduced to the parameters' longest side."""
    buffer = io.BytesIO()
    shrunk(image, parameters.longest_side).save(buffer, parameters.image_format, quality=JPEG_QUALITY)
    return f"data:image/{parameters.image_format};base64,{base64.b64encode(buffer.getvalue()).decode()}"


class OpenAICaptioner(CaptionQuestions[Question], _ChatStage[CaptionRequest]):
    """Captions of whole images and crops by a server whose model accepts images."""

    def __init__(self, settings: StageSettings) -> None:
        own = ChatCaptionerParameters.model_validate(settings.parameters)
        self.prompts, self.text_language = own, own.language
        super().__init__(settings, own, with_image=True)


class OpenAIComposer(ComposeQuestions[Question], _ChatStage[ComposeRequest]):
    """Descriptions by a server."""

    def __init__(self, settings: StageSettings) -> None:
        own = ChatComposerParameters.model_validate(settings.parameters)
        self._set(settings, own)
        super().__init__(settings, own, own.with_image)
