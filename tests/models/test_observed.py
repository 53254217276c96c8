"""Who watches a pipeline is told the layers so far, after each stage, in pixels of the whole image."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from models.observed import watched
from models.pipeline import VisionPipeline
from strata.core import LAYERS, Record
from tests.models.test_stages import SETTINGS, pipeline_of, record, striped


def _watched(
    pipeline: VisionPipeline, numbers: Sequence[int], size: tuple[int, int] | None = None
) -> list[list[Record]]:
    """What the watcher was told of images, and at last the records."""
    told: list[list[Record]] = []
    batch = []
    for number in numbers:
        image = striped(number)[0]
        width, height = size or image.size
        batch.append((record(str(number)).model_copy(update={"width": width, "height": height}), image))
    with watched(lambda records: told.append(list(records))):
        found = pipeline.run(batch)
    return [*told, found]


def _layers(found: Record) -> set[str]:
    return {name for name in LAYERS if getattr(found, name) is not None}


def test_layers_grow_to_those_of_the_record() -> None:
    told = _watched(pipeline_of(SETTINGS), [1, 2, 3])
    assert len(told) > 4
    for before, after in itertools.pairwise(told):
        assert [one.key for one in before] == [one.key for one in after] == ["1", "2", "3"]
        assert all(_layers(one) <= _layers(other) for one, other in zip(before, after, strict=True))
    assert _layers(told[0][0]) < _layers(told[-1][0])
    # what was told last has the entries of the record
    for last, found in zip(told[-2], told[-1], strict=True):
        assert (last.caption, last.regions, last.objects) == (found.caption, found.regions, found.objects)


def test_boxes_are_those_of_the_whole_image() -> None:
    image = striped(3)[0]
    # the image was shrunk where it was decoded: the record has its own size
    told = _watched(pipeline_of(SETTINGS), [3], (image.width * 4, image.height * 4))
    boxes = [[region.box for region in one[0].regions] for one in told if one[0].regions]
    assert len(boxes) > 1 and all(found == boxes[-1] for found in boxes)
    assert all((one[0].width, one[0].height) == (image.width * 4, image.height * 4) for one in told)


def test_nobody_is_told_outside_of_the_block() -> None:
    told: list[Sequence[Record]] = []
    with watched(told.append):
        pass
    pipeline_of(SETTINGS).run([(record("1"), striped(1)[0])])
    assert told == []
