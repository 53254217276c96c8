"""The back ends for chat servers: captioner and composer over `models.chat.client`."""

from __future__ import annotations

import base64
import io
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, TypeVar

from PIL import Image

from models.base import GROUP_OF, Stage
from models.chat.client import ChatClient
from models.chat.questions import ChatAnswer, Question, prompt_bound
from models.deadlines import DEADLINES, Activity
from models.evidence import sentences_of
from models.items import CaptionRequest, ComposeRequest, Failure
from models.prompts import load_prompt
from strata.core import ChatCaptionerParameters, ChatComposerParameters, ChatParameters, StageSettings, Usage
from strata.errors import StrataError

ChatItem = TypeVar("ChatItem", CaptionRequest, ComposeRequest)
JPEG_QUALITY = 90  # of 100
PROBE = "Answer with the one word: yes."  # the text of the question that tests the server


class NoAnswer(StrataError, RuntimeError):
    """The server has no usable answer to this question, although it answers others."""


class _ChatStage(Stage[ChatItem, str], Generic[ChatItem]):
    """Base class of the back ends. All questions of a batch are sent in parallel, whatever the batch size.

    settings.model is "server:URL", with the URL up to and including /v1.
    """

    parameters: ChatParameters

    def __init__(self, settings: StageSettings, parameters: ChatParameters, with_image: bool) -> None:
        super().__init__(settings)
        self.parameters = parameters
        kind, _, url = settings.model.partition(":")
        if kind != "server" or not url.startswith(("http://", "https://")):
            raise ValueError(f"{settings.model!r} is no chat server: expected server:http://HOST:PORT/v1")
        # the probe has an image if the questions have one: a server may refuse all images
        grey = Image.new("RGB", (64, 64), "grey") if with_image else None
        self._client = ChatClient(url, parameters, self._build_question([], PROBE, grey, 1), self.name)

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
            fault = answer.fault or self._fault(answer)
            failure = Failure(self.name, NoAnswer.__name__, fault, answer.transient) if fault else None
            results.append(failure or self._text(answer))
        self.usage = usage
        return results

    def probe_item(self) -> None:
        """None: the client asks the server a test question after an error, and a probe at the start would be paid."""

    def bound(self, item: ChatItem) -> tuple[Usage, Usage]:
        """As `Stage.bound`. The bound does not depend on the image."""
        question = self._question(item)
        return (question.bound, self._client.upper_bound(question)) if question else (Usage(), Usage())

    def release(self) -> None:
        """Drop the kept answers."""
        self._client.clear()

    @abstractmethod
    def _question(self, item: ChatItem) -> Question | None:
        """The question for an item; None if there is nothing to ask, and the text is empty."""

    def _text(self, answer: ChatAnswer) -> str:
        return answer.text

    def _fault(self, answer: ChatAnswer) -> str | None:
        """What is wrong with an answer of a successful response; None if it is usable."""
        return None

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
        return Question([*messages, {"role": "user", "content": content}], max_tokens, bound)


def _data_url(image: Image.Image, parameters: ChatParameters) -> str:
    """Encode the image as a `data:` URL, reduced to the parameters' longest side; it is never enlarged."""
    scale = min(1.0, parameters.longest_side / max(image.size))
    if scale < 1:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, parameters.image_format, quality=JPEG_QUALITY)
    return f"data:image/{parameters.image_format};base64,{base64.b64encode(buffer.getvalue()).decode()}"


class OpenAICaptioner(_ChatStage[CaptionRequest]):
    """Captions of whole images and crops by a server whose model accepts images."""

    name: ClassVar[str] = "captioner"

    def __init__(self, settings: StageSettings) -> None:
        self._own_parameters = ChatCaptionerParameters.model_validate(settings.parameters)
        super().__init__(settings, self._own_parameters, with_image=True)

    def _question(self, item: CaptionRequest) -> Question:
        p = self._own_parameters
        if item.kind == "scene":
            return self._build_question([], p.scene_prompt, item.image, p.scene_tokens)
        return self._build_question([], p.crop_prompt, item.image, p.crop_tokens)


class OpenAIComposer(_ChatStage[ComposeRequest]):
    """Descriptions by a server. A description at the token limit is cut after its last complete sentence."""

    name: ClassVar[str] = "composer"

    def __init__(self, settings: StageSettings) -> None:
        self._own_parameters = ChatComposerParameters.model_validate(settings.parameters)
        self._prompt = load_prompt(
            self._own_parameters.prompt, self._own_parameters.prompt_sha256, settings.prompt_text
        )
        super().__init__(settings, self._own_parameters, self._own_parameters.with_image)

    def _question(self, item: ComposeRequest) -> Question | None:
        p = self._own_parameters
        image = item.image if p.with_image else None
        notes = self._prompt.notes(item.record, p.max_notes)
        if not notes and image is None:
            return None
        # the prompt's last message is the user's; the image, if any, goes into it
        *before, last = self._prompt.messages(notes or "There are no notes on this picture.")
        return self._build_question(before, last["content"], image, p.max_new_tokens)

    def _text(self, answer: ChatAnswer) -> str:
        return " ".join(_complete_sentences(answer.text)) if answer.cut else answer.text

    def _fault(self, answer: ChatAnswer) -> str | None:
        if answer.cut and not _complete_sentences(answer.text):
            return f"the description has no complete sentence within {self._own_parameters.max_new_tokens} tokens"
        return None


def _complete_sentences(text: str) -> list[str]:
    """The sentences of a truncated text, without an incomplete last one."""
    sentences = sentences_of(text)
    ended = bool(sentences) and sentences[-1].rstrip("\"”')").endswith((".", "!", "?"))
    return sentences if ended else sentences[:-1]
