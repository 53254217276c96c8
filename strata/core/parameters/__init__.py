"""The built-in back ends of the stages, and their parameter classes: the keys of `[stages.NAME.parameters]`.

The classes import no model code, so that the API can validate a profile. Validators check values and combinations; what
depends on weights or a device is checked when the back end loads. Each stage has a module. `chat` has the parameters of
the back ends that ask a chat server, `vllm` of those that run its engine, `back_ends` the table of all back ends, and
`texts` what texts are written.
"""

from __future__ import annotations

from strata.core.parameters.back_ends import BUILT_IN, KINDS, WEIGHTS, BackEnd
from strata.core.parameters.base import Parameters, PromptParameters
from strata.core.parameters.captioner import (
    Blip2CaptionerParameters,
    CaptionerParameters,
    FlorenceCaptionerParameters,
    QwenVLParameters,
    ScenePrompts,
)
from strata.core.parameters.chat import (
    ChatCaptionerParameters,
    ChatComposerParameters,
    ChatParameters,
    ChatVerifierParameters,
)
from strata.core.parameters.composer import (
    CountingComposerParameters,
    QwenVLComposerParameters,
    TransformersComposerParameters,
)
from strata.core.parameters.detector import FlorenceDetectorParameters, LabelDetectorParameters, SsdDetectorParameters
from strata.core.parameters.features import AestheticParameters, FacesParameters, SharpnessParameters
from strata.core.parameters.languages import LANGUAGES, language_asked
from strata.core.parameters.matcher import OpenClipParameters, YesParameters
from strata.core.parameters.ocr import OcrParameters
from strata.core.parameters.segmenter import (
    ClassicalSegmenterParameters,
    GrabCutParameters,
    SamParameters,
    SegmenterParameters,
)
from strata.core.parameters.tagger import ImageNetTaggerParameters, OpenClipTaggerParameters
from strata.core.parameters.templates import (
    RECORD_FIELDS,
    fields_of,
    filled,
    longest_filled,
    metadata_fields,
)
from strata.core.parameters.texts import LAYERED, VARIANTS, TextFields, TextSettings, VariantName
from strata.core.parameters.verifier import VerifierParameters
from strata.core.parameters.vllm import (
    VllmCaptionerParameters,
    VllmComposerParameters,
    VllmMatcherParameters,
    VllmParameters,
    VllmVerifierParameters,
)

__all__ = [
    "BUILT_IN",
    "KINDS",
    "LANGUAGES",
    "LAYERED",
    "RECORD_FIELDS",
    "VARIANTS",
    "WEIGHTS",
    "AestheticParameters",
    "BackEnd",
    "Blip2CaptionerParameters",
    "CaptionerParameters",
    "ChatCaptionerParameters",
    "ChatComposerParameters",
    "ChatParameters",
    "ChatVerifierParameters",
    "ClassicalSegmenterParameters",
    "CountingComposerParameters",
    "FacesParameters",
    "FlorenceCaptionerParameters",
    "FlorenceDetectorParameters",
    "GrabCutParameters",
    "ImageNetTaggerParameters",
    "LabelDetectorParameters",
    "OcrParameters",
    "OpenClipParameters",
    "OpenClipTaggerParameters",
    "Parameters",
    "PromptParameters",
    "QwenVLComposerParameters",
    "QwenVLParameters",
    "SamParameters",
    "ScenePrompts",
    "SegmenterParameters",
    "SharpnessParameters",
    "SsdDetectorParameters",
    "TextFields",
    "TextSettings",
    "TransformersComposerParameters",
    "VariantName",
    "VerifierParameters",
    "VllmCaptionerParameters",
    "VllmComposerParameters",
    "VllmMatcherParameters",
    "VllmParameters",
    "VllmVerifierParameters",
    "YesParameters",
    "fields_of",
    "filled",
    "language_asked",
    "longest_filled",
    "metadata_fields",
]
