"""What the store does with records that Parquet cannot hold, and when its files were written."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import SecretStr

from strata.core import Chunk, ImageReference, Record, Status, WebhookTarget
from strata.core.layers import TextLine
from strata.keys import Scope, StoredKeys
from strata.store import Store
from strata.store.filesystem import _time_of
from strata.webhooks import Outbox
from tests.fakes import FAKE_PROFILE
from tests.webhooks.receiver import SECRET


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


def test_the_time_of_a_file_in_any_listing(store: Store) -> None:
    moment = datetime(2026, 11, 28, 12, tzinfo=UTC)
    stamp = moment.timestamp()
    listings: list[dict[str, object]] = [
        {"mtime": stamp},
        {"LastModified": moment},
        {"updated": "2026-11-28T12:00:00Z"},
        {"created": stamp},
    ]
    assert [_time_of(info) for info in listings] == [stamp] * 4
    assert _time_of({"size": 1}) == _time_of({"updated": "yesterday"}) == float("inf")
    for name in ("old", "new"):
        store.put(store.path("uploads", name[0], name), b"x")
    os.utime(store.path("uploads", "o", "old"), (stamp, stamp))
    assert store.written_before(stamp + 1, "uploads") == ["uploads/o/old"]
    assert store.written_before(stamp, "nothing") == []


@pytest.fixture
def generous() -> Iterator[None]:
    """New files may be read and written by everybody."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("generous")
def test_files_with_a_secret_are_the_owners_alone(store: Store) -> None:
    """All files of the store are looked at, so that the next one with a secret of these is found too."""
    job, target = "0" * 22, WebhookTarget(url="https://example.org/hook", secret=SecretStr(SECRET))
    keys, outbox = StoredKeys(store), Outbox(store)
    _, secret = keys.create("a", [Scope.READ])
    secrets = [secret.encode(), keys.signing_secret(), SECRET.encode()]
    outbox.prepare(job, target)

    def secret_files() -> dict[str, int]:
        files = [path for path in Path(store.root).rglob("*") if path.is_file()]
        assert any(stat.S_IMODE(path.stat().st_mode) == 0o666 for path in files)
        found = [path for path in files if any(one in path.read_bytes() for one in secrets)]
        return {path.name: stat.S_IMODE(path.stat().st_mode) for path in found}

    expected = {"signing-secret": 0o600, "webhook.json": 0o600}
    assert secret_files() == expected
    # files of an earlier version: when a process first reads, or writes, them
    for path in Path(store.root).rglob("*"):
        path.chmod(0o777 if path.is_dir() else 0o666)
    assert StoredKeys(store).signing_secret() == keys.signing_secret()
    for change in (lambda: outbox.end(job, 1), lambda: outbox.send_again(job)):
        Path(store.path("jobs", job, "webhook.json")).chmod(0o644)
        change()
        assert secret_files() == expected
