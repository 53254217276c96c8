"""Exports of snapshots in the formats of training tools.

`exporting.py` is the walk, `formats.py` the table of formats; `conversations.py`, `tables.py` and `shards.py` have the
writers.
"""

from __future__ import annotations

from strata.data.exports.exporting import ExportError, ExportSamples, Request, export
from strata.data.exports.formats import FORMATS, Form
from strata.data.exports.provenance import PROVENANCE
from strata.data.exports.samples import ExportSample
from strata.data.exports.tables import DATA

__all__ = ["DATA", "FORMATS", "PROVENANCE", "ExportError", "ExportSample", "ExportSamples", "Form", "Request", "export"]
