"""Images in the text of a request: base64 in both alphabets, with or without padding, and `data:` URLs."""

from __future__ import annotations

import base64
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.images.inline import MAX_ESCAPES, inline_image
from tests.fakes import jpeg
from tests.service import Service, problem

CAPTIONS = "/v1/captions"
ENCODINGS = (base64.b64encode, base64.urlsafe_b64encode)
HEADS = ["data:image/png;base64,", "DATA:;base64,", " data:image/svg+xml;charset=utf-8; BASE64 ,", "data:;base64\n,"]


@given(st.binary(max_size=200), st.integers(0, 1), st.booleans(), st.sampled_from(["", *HEADS]), st.integers(1, 80))
def test_base64_in_every_form(data: bytes, encoding: int, padded: bool, head: str, width: int) -> None:
    text = ENCODINGS[encoding](data).decode()
    text = text if padded else text.rstrip("=")
    lines = "\r\n ".join(text[start : start + width] for start in range(0, len(text), width))
    assert inline_image(head + lines) == data


@given(st.binary(max_size=200), st.sampled_from(["data:,", "data:image/png,", "Data:text/plain;charset=utf-8,"]))
def test_a_data_url_that_is_percent_encoded(data: bytes, head: str) -> None:
    assert inline_image(head + quote_from_bytes(data, safe="") + "#fragment") == data
    # base64 whose signs are percent-encoded
    encoded = quote_from_bytes(base64.b64encode(data), safe="")
    assert inline_image(f"data:image/png;base64,{encoded}") == data


@given(st.text(max_size=60), st.sampled_from(["", "data:", "data:;base64,", "data:image/png;base64"]))
def test_any_other_text_is_bytes_or_a_reason(text: str, head: str) -> None:
    try:
        assert isinstance(inline_image(head + text), bytes)
    except ValueError as error:
        assert str(error) and "\n" not in str(error)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("*no*", "not valid base64"),
        ("aGVsbG8=aGVsbG8=", "not valid base64"),
        ("aGVsbG8==", "not valid base64"),
        ("a", "not valid base64"),
        ("aaaa+a_a", "mixes the two alphabets"),
        ("ü", "not ASCII"),
        ("data:image/png;base64", "comma"),
        ("data:image/png;base64,*no*", "not valid base64"),
        ("data:image/png,ü", "not ASCII"),
        ("data:," + "%00" * (MAX_ESCAPES + 1), "send it as base64"),
    ],
)
def test_what_cannot_be_read_is_told(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        inline_image(text)


@pytest.mark.parametrize("field", ["image_base64", "image_url"])
def test_a_data_url_is_an_image_in_both_fields(idle_service: Service, field: str) -> None:
    url = "data:image/png;base64," + base64.urlsafe_b64encode(jpeg()).decode().rstrip("=")
    assert idle_service.client.post(CAPTIONS, json={field: url}).status_code == 202
    body = problem(idle_service.client.post(CAPTIONS, json={field: "data:image/png;base64,*"}), 422, "invalid-request")
    assert body["errors"][0]["location"] == ["body", field]
    problem(idle_service.client.post(CAPTIONS, json={field: "data:,"}), 422, "invalid-image")
    text = f"data:text/html;base64,{base64.b64encode(b'<html>').decode()}"
    problem(idle_service.client.post(CAPTIONS, json={field: text}), 422, "invalid-image")


def test_only_an_address_that_is_fetched_has_a_bound(idle_service: Service) -> None:
    noise = bytes(range(256)) * 40
    image = jpeg() + noise  # what follows the end of a JPEG is no part of it
    url = "data:image/jpeg;base64," + base64.b64encode(image).decode()
    assert len(url) > 4096
    assert idle_service.client.post(CAPTIONS, json={"image_url": url}).status_code == 202
    far = {"image_url": "https://example.org/" + "a" * 4096}
    assert "4096" in problem(idle_service.client.post(CAPTIONS, json=far), 422, "invalid-request")["detail"]
