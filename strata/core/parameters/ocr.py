"""Parameters of the OCR's back end."""

from __future__ import annotations

from pydantic import Field

from strata.core.parameters.base import Parameters


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
