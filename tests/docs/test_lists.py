"""Lists of layers and stages that pages write by hand: each is complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from strata.core.layers import LAYERS
from strata.core.registry import STAGES
from strata.data.exports.formats import FORMATS
from strata.snapshots.selection.axes import DEFAULT_AXES

DOCS = Path(__file__).parent.parent.parent / "docs"
MAKERS = [spec.name for spec in STAGES if spec.makes_layer]


@pytest.mark.parametrize(
    ("page", "before", "after", "names"),
    [
        ("index.md", "| layer | ", " |\n", list(LAYERS)),
        ("index.md", "| stage | ", " |\n", [spec.name for spec in STAGES]),
        ("how-to/snapshot-and-train.md", "Layers: ", ". ", list(LAYERS)),
        ("how-to/snapshot-and-train.md", "Formats: ", ". ", list(FORMATS)),
        ("how-to/snapshot-and-train.md", "Without `--by` the features are ", ". ", [a.feature for a in DEFAULT_AXES]),
        ("how-to/your-own-profile.md", "At least one stage must produce a layer (", ")", MAKERS),
    ],
)
def test_a_list_is_complete(page: str, before: str, after: str, names: list[str]) -> None:
    _, found, rest = (DOCS / page).read_text().partition(before)
    assert found, f"{page} has no list {before!r}"
    listed = re.findall(r"`([\w-]+)`", rest.partition(after)[0])
    assert sorted(listed) == sorted(names), f"{page}: {before!r}"
