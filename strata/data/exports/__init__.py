"""Exports of snapshots in the formats of training tools. `exporting.py` is the walk, `formats.py` has the writers."""

from __future__ import annotations

from strata.data.exports.exporting import ExportError, Request, export
from strata.data.exports.formats import FORMATS, ExportSample, Form, qwen_box

__all__ = ["FORMATS", "ExportError", "ExportSample", "Form", "Request", "export", "qwen_box"]
