"""Forms: a file whose name is in `filename*` alone is a file."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.images.forms import with_filename
from tests.fakes import jpeg
from tests.service import Answer, Service, problem


def _post(service: Service, disposition: str, content: bytes) -> Answer:
    head = f"--x\r\nContent-Disposition: form-data; {disposition}\r\n\r\n".encode()
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    return service.client.post("/v1/captions", content=head + content + b"\r\n--x--\r\n", headers=headers)


@pytest.mark.parametrize(
    "disposition",
    [
        "name=file; filename*=UTF-8''na%C3%AFve.jpg",
        "name=\"file\"; filename*=utf-8'en'%E2%82%AC%20rates.jpg",
        "name=\"file\"; FileName*=UTF-8''a.jpg",
        'name="file"; filename="EURO.jpg"; filename*=UTF-8\'\'%e2%82%ac.jpg',
        'filename*0="a"; filename*1=".jpg"; name="file"',
        # what cannot be decoded has no effect: the name is not used
        "name=\"file\"; filename*=UTF-8''%ZZ",
        'name="file"; filename*=nonsense',
        "name=\"file\"; filename*=utf-99''a",
    ],
)
def test_a_file_with_an_extended_name(idle_service: Service, disposition: str) -> None:
    assert _post(idle_service, disposition, jpeg()).status_code == 202


@pytest.mark.parametrize("disposition", ['name="file"', 'name="file"; x="; filename*=a"', "name=file; filenames*=a"])
def test_a_part_without_a_name_is_a_text(idle_service: Service, disposition: str) -> None:
    assert (
        "give the field a filename" in problem(_post(idle_service, disposition, b"a"), 422, "invalid-request")["detail"]
    )


def test_a_part_without_a_field_is_refused(idle_service: Service) -> None:
    problem(_post(idle_service, "filename*=UTF-8''a.jpg", jpeg()), 400, "malformed-request")


@given(st.binary(max_size=80))
def test_any_header_is_read(value: bytes) -> None:
    made = with_filename(value)
    assert made in (value, value + b'; filename="file"')
    assert with_filename(made) == made or made == value


@given(st.text(st.sampled_from("ab;=\"\\ *'"), max_size=30))
def test_what_stands_in_a_quoted_value_is_no_parameter(text: str) -> None:
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    header = f'form-data; name="{quoted}; filename*=a"'.encode()
    assert with_filename(header) == header
