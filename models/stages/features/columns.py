"""The result of a stage of the group `features` for an item: its columns with their values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Columns = Mapping[str, Any]
