"""Parameters of the segmenter's back ends."""

from __future__ import annotations

from pydantic import Field

from strata.core.parameters.base import Parameters


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
