"""Write parts of described images to a store, with chosen contents, for tests of snapshots."""

from __future__ import annotations

from collections.abc import Sequence

from strata.core.chunks import Chunk
from strata.core.records import (
    Caption,
    Description,
    ImageReference,
    Mask,
    ObjectMask,
    Record,
    Region,
    Sentence,
    Status,
    TextLine,
)
from strata.store.part_paths import Part
from strata.store.store import Store

FINGERPRINT = "f" * 16


def described(
    key: str, things: Sequence[str] = (), words: int = 10, text: bool = False, status: Status = Status.SUCCEEDED
) -> Record:
    """A record with one object per thing, the first the largest, and a description with `words` words."""
    sides = range(len(things), 0, -1)
    mask = Mask(size=(9, 9), counts="0")
    return Record(
        key=key,
        image=ImageReference(uri="a.tar", offset=512 * (1 + sum(map(ord, key))), size=99),
        width=64,
        height=48,
        status=status,
        caption=Caption(text="A picture.", match=0.5),
        regions=[Region(box=(0, 0, 60, 40), phrase="the sky", kept=False, match=0.01, reason="low_match")],
        objects=[
            ObjectMask(box=(0, 0, side, side), mask=mask, area=side * side, phrase=f"a red {thing}", match=0.75)
            for thing, side in zip(things, sides, strict=True)
        ],
        text=[TextLine(box=(0, 0, 9, 9), text="EXIT", score=0.9)] if text else [],
        description=Description(
            text=" ".join(["word"] * words),
            sentences=[Sentence(text="One.", evidence=["caption"]), Sentence(text="Two.", evidence=[])],
        ),
    )


def write_part(
    store: Store,
    records: Sequence[Record],
    identity: str = "a" * 16,
    number: int = 0,
    attempt: int = 0,
    fingerprint: str = FINGERPRINT,
    group: str = "llm",
) -> Part:
    """Write a part of these records."""
    chunk = Chunk(group, "fake", fingerprint, "a.tar", identity, number, len(records), attempt)
    store.write_records(chunk, list(records))
    return Part.of_chunk(chunk)
