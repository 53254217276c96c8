"""The rows of a source that people have judged, and what they say of the entries that the rows' sentences rest on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import NamedTuple

from PIL import Image

from strata.core import Record
from strata.evaluation.rows import choose_rows
from strata.images import ImageError, decode
from strata.judgments import Judgment, Judgments, Labels, Subject, current, labels_of
from strata.shards import ImageReader
from strata.snapshots import QueuedRow, find_rows, records_of
from strata.store import Store

ALL = 2**62  # rows: all


class JudgedRows(NamedTuple):
    """judgments: that count, of rows of a source, by time; rows: where these lie.

    other: how many more judgments are of the same images as other versions of a profile (fingerprints) describe them.
    """

    judgments: list[Judgment]
    rows: Mapping[Subject, QueuedRow]
    other: int


def judged_rows(store: Store, source: str) -> JudgedRows:
    """The judgments of the rows of a job, a snapshot, a profile or a fingerprint.

    Raises LostJudgments if some judgments are lost, and what `choose_rows` raises.
    """
    rows = choose_rows(store, source, ALL, 0, lambda done, total: None)
    found = Judgments(store)
    judgments = current(found.of_fingerprints(rows.fingerprints).whole())
    places = find_rows(store, list(rows.chosen), {one.subject for one in judgments})
    # only the rows of the source, which a snapshot has not all of its parts
    chosen = {part.path: set(indices) for part, indices in rows.chosen.items()}
    inside = {subject: row for subject, row in places.items() if row.row in chosen[row.part]}
    # the same shards, described by other versions
    shards = {part.identity for part in rows.chosen}
    others = current(found.of_fingerprints(set(found.fingerprints()) - set(rows.fingerprints)).judgments)
    other = sum(one.identity in shards for one in others)
    return JudgedRows([one for one in judgments if one.subject in inside], inside, other)


class JudgedImage(NamedTuple):
    """A judged record, its image, and what was said of its entries."""

    record: Record
    image: Image.Image
    labels: Labels


def judged_images(
    store: Store, found: JudgedRows, most: int, max_pixels: int, advance: Callable[[int], None]
) -> Iterator[JudgedImage]:
    """The judged records with labels and their images, at most `most`, those that were judged last first.

    An image that cannot be read now is left out. advance: is called with the number of images so far. Raises
    BrokenPart and OSError.
    """
    said: dict[Subject, list[Judgment]] = {}
    for judgment in reversed(found.judgments):
        said.setdefault(judgment.subject, []).append(judgment)
    subjects = list(said)[:most]
    reader = ImageReader(store)
    records = records_of(store, [found.rows[subject] for subject in subjects])
    for number, (subject, record) in enumerate(zip(subjects, records, strict=True), 1):
        labels = labels_of(record.description, said[subject])
        (data,) = reader.read([record.image])
        if not isinstance(data, Exception):
            with suppress(ImageError):
                yield JudgedImage(record, decode(data, max_pixels), labels)
        advance(number)
