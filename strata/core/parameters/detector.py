"""Parameters of the detector's back ends."""

from __future__ import annotations

from pydantic import Field

from strata.core.parameters.base import Parameters


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
