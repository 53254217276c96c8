"""Evaluations: how good the texts of a job or a snapshot are, with truth, with references, or without both.

It needs records alone, and no model; `models/evaluation` asks models. Read `evaluation.py` first.
"""

from __future__ import annotations
