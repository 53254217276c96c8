"""What a captioner and a composer ask a chat model, whoever runs it: a server, or an engine in this process.

The classes here know prompts, token limits and languages; `_build_question` of the back end makes of them what its
model reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from PIL import Image

from models.crops import widened
from models.guards import Asked, language_of
from models.items import CaptionRequest, ComposeRequest
from models.prompts import load_prompt
from models.prompts.messages import asked_by, messages_of
from models.writers import WriterStage
from strata.core import (
    ChatComposerParameters,
    ScenePrompts,
    StageSettings,
    VllmComposerParameters,
)

Item = TypeVar("Item", CaptionRequest, ComposeRequest)
Asking = TypeVar("Asking")  # a question in the back end's form
LEAST_SIDE = 28  # pixels; the image processors of Qwen2-VL, which many servers run, refuse less


def shrunk(image: Image.Image, longest_side: int) -> Image.Image:
    """The image as a chat model gets it, at most as large as `longest_side`; its content is never enlarged."""
    image = widened(image)
    scale = min(1.0, longest_side / max(image.size))
    if scale < 1:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.BICUBIC)
    return widened(image, LEAST_SIDE)


class _Questions(WriterStage[Item], Generic[Item, Asking]):
    if TYPE_CHECKING:  # the back end has it; a definition here would come before its own

        def _build_question(
            self, messages: Sequence[dict[str, Any]], text: str, image: Image.Image | None, max_tokens: int
        ) -> Asking:
            """Build a question: the messages, then a user message with the image, if any, and the text."""


class CaptionQuestions(_Questions[CaptionRequest, Asking], Generic[Asking]):
    """The questions of a captioner. prompts, text_language: of its parameters."""

    name: ClassVar[str] = "captioner"
    prompts: ScenePrompts
    text_language: str | None

    def asked(self, item: CaptionRequest) -> Asked:
        """The prompt, which the text must not repeat, and its language."""
        if item.kind == "scene":
            return Asked.by(self.prompts.scene_prompt, "text", self.text_language)
        return Asked.by(self.prompts.crop_prompt, "phrase", self.text_language)

    def _question(self, item: CaptionRequest) -> Asking:
        p = self.prompts
        if item.kind == "scene":
            return self._build_question([], p.scene_prompt, item.image, p.scene_tokens)
        return self._build_question([], p.crop_prompt, item.image, p.crop_tokens)


class ComposeQuestions(_Questions[ComposeRequest, Asking], Generic[Asking]):
    """The questions of a composer."""

    name: ClassVar[str] = "composer"
    composing: ChatComposerParameters | VllmComposerParameters

    def _set(self, settings: StageSettings, composing: ChatComposerParameters | VllmComposerParameters) -> None:
        """Set the parameters and read the prompt. Raises ValueError if there is none."""
        self.composing = composing
        self._prompt = load_prompt(composing.prompt, composing.prompt_sha256, settings.prompt_text)

    @property
    def heeds_errors(self) -> bool:
        """It writes freely."""
        return True

    @property
    def language(self) -> str:
        """That of the parameters, else of the prompt."""
        return self.composing.language or language_of(self._prompt.system)

    def asked(self, item: ComposeRequest) -> Asked | None:
        """The prompt, which the text must not repeat, and its language; None if there is nothing to describe."""
        asks = self._question(item) is not None
        return asked_by(self._prompt, item, self.composing.language) if asks else None

    def _question(self, item: ComposeRequest) -> Asking | None:
        p = self.composing
        image = item.image if p.with_image and not item.original else None
        notes = self._prompt.notes(item.record, p.max_notes)
        if not notes and image is None and not item.original:
            return None
        # the prompt's last message is the user's; the image, if any, goes into it
        *before, last = messages_of(self._prompt, item, notes)
        return self._build_question(before, last["content"], image, p.max_new_tokens)
