"""What the store does with records that Parquet cannot hold."""

from __future__ import annotations

from strata.core import Chunk, ImageReference, Record, Status
from strata.core.layers import TextLine
from strata.store import Store
from tests.fakes import FAKE_PROFILE


def test_a_text_that_is_not_unicode_fails_its_row_and_no_other(store: Store) -> None:
    """A worker that could not write its part would end, start again and end again."""
    image = ImageReference(uri="a.tar", offset=512, size=9)
    line = TextLine(box=(1.0, 1.0, 5.0, 5.0), text="half \ud800 a pair", score=0.9)
    rows = [
        Record(key="1", image=image, width=8, height=8),
        Record(key="2", image=image, width=8, height=8, text=[line], seconds={"ocr": 0.5}),
        Record(key="3", image=image, width=8, height=8, text=[line.model_copy(update={"text": "whole"})]),
    ]
    chunk = Chunk("vision", "fake", FAKE_PROFILE.fingerprint("vision"), "a.tar", "0" * 16, 0, 3)
    counts = store.write_records(chunk, rows)
    assert counts == {"succeeded": 2, "failed": 1}
    written = store.read_records(chunk)
    assert [record.status for record in written] == [Status.SUCCEEDED, Status.FAILED, Status.SUCCEEDED]
    failed = written[1]
    assert failed.failure is not None and failed.failure.error_type == "bad_text" and failed.key == "2"
    assert failed.text is None and failed.seconds == {"ocr": 0.5}
    assert [line.text for line in written[2].text or ()] == ["whole"]
