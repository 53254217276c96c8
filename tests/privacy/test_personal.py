"""Personal data in texts are found, and what only looks like them is not; a rule keeps them out of exports."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strata.core.layers import LAYERS
from strata.core.records import Description, TextLine
from strata.data.exports import Form, Request, export
from strata.data.exports.formats import FORMATS
from strata.privacy import personal_data
from strata.snapshots import Selection, Snapshots, read_rows
from strata.store.store import Store
from tests.described import described
from tests.images.marks import MARK, marked
from tests.planted import plant

FOUND = {
    "email": ["anna.berg@example.org", "Write to: info@bakery-miller.co.uk!", "SALES @ EXAMPLE.COM"],
    "phone": ["+49 30 1234567", "CALL 020 7946 0958", "(212) 555-2368", "Tel. 030 123456", "01 42 68 53 00"],
    "account": ["DE89 3704 0044 0532 0130 00", "IBAN GB82WEST12345698765432"],
    "card": ["4111 1111 1111 1111", "5500-0000-0000-0004"],
}
NOTHING = [
    "BAKERY",
    "OPEN 08:00-18:00",
    "12.11.2026",
    "2024-2026",
    "1 000 000 DREAMS",
    "© 2026",
    "price 12,99",
    "isbn 978-3-16-148410-0",
    "DE89 3704 0044 0532 0130 01",
    "4111 1111 1111 1112",
    "look @ me",
    "ratio 16:9 1920x1080",
]


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in FOUND.items() for text in texts])
def test_personal_data_are_found(kind: str, text: str) -> None:
    assert [one.kind for one in personal_data(text)] == [kind]
    assert [one.kind for one in personal_data(f"EXIT\n{text}\nclosed on Sunday")] == [kind]


@pytest.mark.parametrize("text", NOTHING)
def test_what_only_looks_like_them_is_not_found(text: str) -> None:
    assert personal_data(text) == []


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=200))
def test_any_text_can_be_read(text: str) -> None:
    assert all(one.text in text for one in personal_data(text))


@given(st.text(alphabet="0123456789 +-()@.AZaz\n", max_size=80))
def test_any_row_of_digits_can_be_read(text: str) -> None:
    assert all(one.text for one in personal_data(text))


def test_a_rule_leaves_rows_with_personal_data_out_of_every_export(store: Store, tmp_path: Path) -> None:
    secrets = ["anna.berg@example.org", "+49 30 1234567", "020 7946 0958"]
    plain = TextLine(box=(0, 0, 9, 9), text="EXIT", score=0.9)
    signs = [
        plain.model_copy(update={"text": f"CALL {one}", "kept": number % 2 == 0}) for number, one in enumerate(secrets)
    ]
    records = [described(f"k{number}").model_copy(update={"text": [plain, sign]}) for number, sign in enumerate(signs)]
    told = Description(text=f'A sign says "{secrets[0]}".', sentences=[])
    records += [described("told").model_copy(update={"description": told})]
    records += [described("alt").model_copy(update={"alt_text": f"my shop, {secrets[1]}"})]
    records += [described("fine", text=True), described("empty")]
    images = [marked("JPEG") for _ in records]
    assert all(MARK.encode() in image for image in images)
    parts = plant(store, tmp_path, images, records=records)
    counted = read_rows(store, [part.path for part in parts], ["personal"]).table.column("personal").to_pylist()
    assert counted == [1, 1, 1, 1, 1, 0, 0]
    # without a rule nothing is left out; with it the rows are counted and can be read
    assert Snapshots(store).create("all", parts, Selection()).manifest.counts.selected == 7
    made = Snapshots(store).create("fit", parts, Selection(leave_out=(("personal_data", "personal > 0"),)))
    assert made.manifest.counts.left_out == {"personal_data": 5}
    assert [(row.key, row.rule, row.values) for row in made.left_out()] == [
        (key, "personal_data", {"personal": 1}) for key in ("k0", "k1", "k2", "told", "alt")
    ]
    forms: tuple[Form, ...] = tuple(FORMATS)
    for form in forms:
        out = tmp_path / form
        export(store, made, Request(form, LAYERS["description"], "What is it?"), out)
        written = b"".join(_contents(path) for path in sorted(out.rglob("*")) if path.is_file())
        # nor does a picture bring its place and its maker with it
        for secret in (*secrets, MARK):
            assert secret.encode() not in written, form


def _contents(path: Path) -> bytes:
    """The bytes of a file, and of the members of a tar."""
    data = path.read_bytes()
    if path.suffix == ".tar":
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for member in tar.getmembers():
                file = tar.extractfile(member)
                data += file.read() if file else b""
    return data
