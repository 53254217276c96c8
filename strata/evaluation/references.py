"""Texts against references that people wrote, by CAPTURE's way of comparing scene graphs.

Dong et al., "Benchmarking and Improving Detail Image Caption", 2024, arXiv 2405.19092: the objects, attributes and
relations of both texts are matched, each with the most alike one of the other text; the F1 scores are weighed 5, 5, 2.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from strata.core import Record
from strata.errors import InvalidInput
from strata.evaluation.annotations import Names
from strata.evaluation.figures import Counts

WEIGHTS = {"objects": 5, "attributes": 5, "relations": 2}  # of CAPTURE
Alike = Callable[[str, str], float]  # how alike two words are, 0..1
_NAMED_BY = ("key", "file_name", "image", "image_id")  # fields of a line that name its image; the first counts
_TOLD_IN = ("references", "captions", "reference", "caption", "text", "description")


class SceneGraph(NamedTuple):
    """What a text says: things, (thing, attribute), (thing, relation, thing)."""

    objects: frozenset[str] = frozenset()
    attributes: frozenset[tuple[str, str]] = frozenset()
    relations: frozenset[tuple[str, str, str]] = frozenset()

    def merged(self, other: SceneGraph) -> SceneGraph:
        """What either text says."""
        return SceneGraph(
            self.objects | other.objects, self.attributes | other.attributes, self.relations | other.relations
        )


References = Sequence[tuple[Any, list[str]]]  # what names an image, and texts about it


def read_references(path: Path) -> References:
    """What a file has: COCO's captions, or JSON lines with an image and its texts.

    Raises InvalidInput for another file, and OSError.
    """
    try:
        content = path.read_text(encoding="utf-8-sig")
        rows = _coco(content) if content.lstrip().startswith('{"') and '"annotations"' in content else _lines(content)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise InvalidInput(f"{path}: it cannot be read as references: {reason}") from error
    if not rows:
        raise InvalidInput(f"{path}: it has no references")
    return rows


def references_of(path: Path, rows: References, records: Sequence[Record]) -> dict[str, list[str]]:
    """The references of records by their keys. Raises InvalidInput for a file with none of the images."""
    names = Names(records)
    found: defaultdict[str, list[str]] = defaultdict(list)
    for image, texts in rows:
        key = names.of(str(image) if isinstance(image, str) else None, image)
        if key is not None:
            found[key] += texts
    if not found:
        example = records[0].key if records else "none"
        raise InvalidInput(f"{path}: it has references of none of the images, such as {example[:100]!r}")
    return dict(found)


def _coco(content: str) -> list[tuple[Any, list[str]]]:
    """The captions of COCO's form, by the images' files."""
    whole = json.loads(content)
    files = {one["id"]: one.get("file_name", one["id"]) for one in whole.get("images", ())}
    return [(files.get(one["image_id"], one["image_id"]), [str(one["caption"])]) for one in whole["annotations"]]


def _lines(content: str) -> list[tuple[Any, list[str]]]:
    rows = []
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        entry = json.loads(line)
        image = next((entry[name] for name in _NAMED_BY if name in entry), None)
        told = next((entry[name] for name in _TOLD_IN if name in entry), None)
        if image is None or told is None:
            raise ValueError(f"line {number} needs one of {', '.join(_NAMED_BY)} and one of {', '.join(_TOLD_IN)}")
        rows.append((image, [str(text) for text in (told if isinstance(told, list) else [told])]))
    return rows


def against_references(graph: SceneGraph, references: SceneGraph, alike: Alike) -> Counts:
    """CAPTURE's figures of a text's graph. CAPTURE itself is a mean over images, the others are sums of matches."""
    counts: Counts = {}
    weighed = total = 0.0
    for kind, weight in WEIGHTS.items():
        told, wanted = getattr(graph, kind), getattr(references, kind)
        precise = sum(_best(one, wanted, alike) for one in told)
        recalled = sum(_best(one, told, alike) for one in wanted)
        counts[f"reference_{kind}_recalled"] = (recalled, len(wanted))
        counts[f"reference_{kind}_precise"] = (precise, len(told))
        # a kind of which the references tell nothing cannot be compared
        if wanted:
            total += weight
            both = precise / len(told) + recalled / len(wanted) if told else 0.0
            weighed += weight * 2 * (precise / len(told)) * (recalled / len(wanted)) / both if both else 0.0
    if total:
        counts["capture"] = (weighed / total, 1)
    return counts


def _best(one: str | tuple[str, ...], others: Collection[str | tuple[str, ...]], alike: Alike) -> float:
    """How alike the most alike of others is; a pair or triple is as alike as the least alike of its words."""
    words = (one,) if isinstance(one, str) else one
    best = 0.0
    for other in others:
        found = (other,) if isinstance(other, str) else other
        best = max(best, min(alike(mine, theirs) for mine, theirs in zip(words, found, strict=True)))
        if best == 1:
            break
    return best


def told_by(references: Mapping[str, Sequence[str]], parse: Callable[[str], SceneGraph]) -> dict[str, SceneGraph]:
    """The graphs of each image's references together."""
    graphs = {}
    for key, texts in references.items():
        graph = SceneGraph()
        for text in texts:
            graph = graph.merged(parse(text))
        graphs[key] = graph
    return graphs
