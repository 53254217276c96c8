"""The table of the built-in back ends: for each its stage, its parameter class and its code."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from strata.core.parameters.base import Parameters
from strata.core.parameters.captioner import Blip2CaptionerParameters, FlorenceCaptionerParameters, QwenVLParameters
from strata.core.parameters.chat import ChatCaptionerParameters, ChatComposerParameters, ChatVerifierParameters
from strata.core.parameters.composer import (
    CountingComposerParameters,
    QwenVLComposerParameters,
    TransformersComposerParameters,
)
from strata.core.parameters.detector import FlorenceDetectorParameters, LabelDetectorParameters, SsdDetectorParameters
from strata.core.parameters.features import AestheticParameters, FacesParameters, SharpnessParameters
from strata.core.parameters.matcher import OpenClipParameters, YesParameters
from strata.core.parameters.ocr import OcrParameters
from strata.core.parameters.segmenter import ClassicalSegmenterParameters, GrabCutParameters, SamParameters
from strata.core.parameters.tagger import ImageNetTaggerParameters, OpenClipTaggerParameters
from strata.core.parameters.verifier import VerifierParameters
from strata.core.parameters.vllm import (
    VllmCaptionerParameters,
    VllmComposerParameters,
    VllmMatcherParameters,
    VllmVerifierParameters,
)

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
    BackEnd("captioner", "vllm", VllmCaptionerParameters, "models.stages.vllm.writers:VllmCaptioner"),
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
    BackEnd("matcher", "vllm", VllmMatcherParameters, "models.stages.vllm.matcher:VllmMatcher"),
    BackEnd("matcher", "imagenet", Parameters, "models.stages.imagenet:KindMatcher"),
    BackEnd("tagger", "imagenet", ImageNetTaggerParameters, "models.stages.imagenet:ImageNetTagger"),
    BackEnd("tagger", "open_clip", OpenClipTaggerParameters, "models.stages.tagger:OpenClipTagger"),
    BackEnd("composer", "transformers", TransformersComposerParameters, "models.stages.composer:TransformersComposer"),
    BackEnd("composer", "qwen3_vl", QwenVLComposerParameters, "models.stages.qwen_vl:QwenVLComposer"),
    BackEnd(
        "composer", "counting", CountingComposerParameters, "models.stages.composer:CountingComposer", ("builtin",)
    ),
    BackEnd("composer", "openai", ChatComposerParameters, "models.chat.backends:OpenAIComposer", ("server",)),
    BackEnd("composer", "vllm", VllmComposerParameters, "models.stages.vllm.writers:VllmComposer"),
    BackEnd("verifier", "rules", VerifierParameters, "models.verifier.stage:RulesVerifier", ("builtin",)),
    BackEnd("verifier", "openai", ChatVerifierParameters, "models.chat.verifier:OpenAIVerifier", ("server",)),
    BackEnd("verifier", "vllm", VllmVerifierParameters, "models.stages.vllm.verifier:VllmVerifier"),
    # 2: a thumbnail in place of hashes of windows
    BackEnd("hash", "pdq", Parameters, "models.stages.features.pictures:PictureHash", ("builtin",), version=2),
    BackEnd("sharpness", "laplacian", SharpnessParameters, "models.stages.features.pictures:Sharpness", ("builtin",)),
    BackEnd("nsfw", "open_nsfw", Parameters, "models.stages.features.nsfw:OpenNsfw"),
    BackEnd("faces", "libfacedetection", FacesParameters, "models.stages.features.faces:Faces", ("builtin",)),
    BackEnd("embedding", "open_clip", Parameters, "models.stages.features.embeddings:OpenClipEmbedding"),
    BackEnd("embedding", "imagenet", Parameters, "models.stages.features.embeddings:ImageNetEmbedding"),
    BackEnd("text_embedding", "open_clip", Parameters, "models.stages.features.embeddings:OpenClipTextEmbedding"),
    BackEnd("aesthetic", "laion", AestheticParameters, "models.stages.features.aesthetic:LaionAesthetic"),
)
# any matcher can give the second opinion
BUILT_IN = (
    *_BACK_ENDS,
    *(dataclasses.replace(one, stage="second_matcher") for one in _BACK_ENDS if one.stage == "matcher"),
)
