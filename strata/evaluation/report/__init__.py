"""`strata report`: one HTML page on a job or a snapshot. `page.py` puts it together."""

from __future__ import annotations
