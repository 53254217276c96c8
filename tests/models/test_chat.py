"""Captioner and composer over chat servers that behave, misbehave, and go away."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from PIL import Image
from pydantic import SecretStr

import models.chat.client as chat_client
import models.chat.server as chat_server
from bench.fakes.scripted_server import HANG_UP, Reply, good, is_plain, scripted
from models.base import StageRefused, StageUnavailable, StageUnfit
from models.chat.backends import OpenAICaptioner, OpenAIComposer
from models.chat.questions import ChatAnswer, Question, read_answer
from models.items import CaptionRequest, ComposeRequest, Failure, Rejection
from models.prompts import FOLDER
from models.weights.hashes import sha256_of
from models.writers import write
from strata.core.profiles import StageSettings
from strata.core.records import Caption, ImageReference, Record
from strata.core.usage import Usage
from strata.errors import InvalidInput
from tests.secrets import SECRET

GOOD = good(" A dog\nis here. ")


@pytest.fixture(autouse=True)
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of our own are short; those that a server asks for are kept."""
    monkeypatch.setattr(chat_server, "FIRST_PAUSE", 0.01)


def request(name: str, image: Image.Image | None = None) -> ComposeRequest:
    """An image whose caption is its name."""
    caption = Caption(text=f"A picture of {name}.")
    record = Record(key=name, image=ImageReference(uri="a.jpg", size=1), width=9, height=9, caption=caption)
    return ComposeRequest(record, image)


def composer(url: str, **parameters: Any) -> OpenAIComposer:
    prompt = parameters.get("prompt", "full")
    given = {"served_model": "m", "prompt_sha256": sha256_of(FOLDER / f"{prompt}.toml")} | parameters
    stage = OpenAIComposer(StageSettings(backend="openai", model=f"server:{url}", revision="1", parameters=given))
    stage.load()
    return stage


def captioner(url: str, **parameters: Any) -> OpenAICaptioner:
    given = {"served_model": "m"} | parameters
    stage = OpenAICaptioner(StageSettings(backend="openai", model=f"server:{url}", revision="1", parameters=given))
    stage.load()
    return stage


def asks_of(name: str, body: dict[str, Any]) -> bool:
    return f"of {name}." in json.dumps(body)


def in_turn(*replies: Reply) -> Callable[[dict[str, Any]], Reply]:
    """One after the other, the last one for ever; probes are answered well."""
    left = list(replies)
    return lambda body: GOOD if is_plain(body) else left.pop(0) if len(left) > 1 else left[0]


def test_a_question_and_its_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", SECRET)
    with scripted(lambda body: good(" A dog\nis here. ", read=40, written=7)) as server:
        stage = composer(server.url, api_key_variable="MY_KEY", request={"top_p": 0.5}, max_new_tokens=9)
        empty = ComposeRequest(Record(key="0", image=ImageReference(uri="a", size=1)))
        assert write(stage, [request("one"), empty]) == ["A dog is here.", ""]
    (body,) = server.bodies
    assert (body["model"], body["temperature"], body["max_tokens"], body["top_p"]) == ("m", 0, 9, 0.5)
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert server.headers[0]["Authorization"] == f"Bearer {SECRET}"
    assert list(stage.usage) == [Usage(prompt_tokens=40, completion_tokens=7, requests=1), Usage()]


def test_many_requests_are_in_flight_and_answers_keep_their_places() -> None:
    together = threading.Barrier(4, timeout=120)

    def answer(body: dict[str, Any]) -> Reply:
        server.lock.release()
        try:
            together.wait()  # breaks if fewer than four are in flight
        finally:
            server.lock.acquire()
        return good(body["messages"][-1]["content"])

    with scripted(answer) as server:
        names = [f"number {n} {' '.join('abcdefghijkl'[:n])}" for n in range(12)]
        texts = write(composer(server.url, concurrency=4), [request(name) for name in names])
    assert [name in str(text) for name, text in zip(names, texts, strict=True)] == [True] * 12
    assert len(server.bodies[0]["messages"][-1]["content"]) > len(server.bodies[-1]["messages"][-1]["content"])


@pytest.mark.parametrize("date", [False, True])
def test_retry_after_is_honoured_by_every_request(date: bool) -> None:
    asked_at: list[float] = []

    def answer(body: dict[str, Any]) -> Reply:
        asked_at.append(time.monotonic())
        moment = datetime.now(UTC) + timedelta(seconds=2)
        value = format_datetime(moment.replace(microsecond=0), usegmt=True) if date else "1"
        return Reply("slow down", 429, {"Retry-After": value}) if len(asked_at) == 1 else GOOD

    with scripted(answer) as server:
        stage = composer(server.url, concurrency=1)
        texts: list[str | Failure] = []
        while not texts:
            with suppress(StageUnavailable):  # on a slow machine the wait is longer than the client's patience
                texts = write(stage, [request("one"), request("two")])
    assert texts == ["A dog is here."] * 2
    assert asked_at[1] - asked_at[0] >= 0.9  # a date has whole seconds
    assert sum(usage.requests for usage in stage.usage) == len(asked_at) - 1  # being put off costs nothing


def test_a_long_retry_after_is_kept_between_calls_too() -> None:
    with scripted(in_turn(Reply("", 429, {"Retry-After": "3000"}))) as server:
        stage = composer(server.url)
        for _ in range(3):
            with pytest.raises(StageUnavailable, match=r"asks to wait for \d+ s"):
                write(stage, [request("one")])
    assert len(server.bodies) == 1


@pytest.mark.parametrize("value", ["9" * 400, "soon", "-5", "Fri, 31 Dec 9999 23:59:59 -2359"])
def test_a_hostile_retry_after_is_no_crash(value: str) -> None:
    with scripted(in_turn(Reply("", 429, {"Retry-After": value}), GOOD)) as server:
        try:
            assert write(composer(server.url), [request("one")]) == ["A dog is here."]
        except StageUnavailable as error:
            assert "asks to wait for 3600 s" in str(error)


def read(body: bytes) -> ChatAnswer:
    """What is read of a response with this body."""
    return read_answer(httpx.Response(200, content=body), Question([], 100, 100), SecretStr(SECRET))


@pytest.mark.parametrize("end", ["content_filter", "error", "abort", "safety", "function_call"])
def test_a_text_that_the_server_stopped_for_another_reason_is_no_answer(end: str) -> None:
    answer = read(good("A dog is here.", finish=end).body.encode())
    assert (answer.text, answer.fault) == ("", f"the server gave no answer (finish_reason {end})")
    for usual in ("stop", "length", "eos", ""):
        answer = read(good("A dog is here.", finish=usual).body.encode())
        assert (answer.text, answer.fault, answer.cut) == ("A dog is here.", None, usual == "length")


def test_answers_of_unusual_form_are_read() -> None:
    plain = good("A dog is here.").body
    parts = plain.replace(
        '"A dog is here."', '[{"type": "text", "text": "A dog "}, {"type": "text", "text": "is here."}]'
    )
    assert read(parts.encode()).text == "A dog is here."
    assert read(b"\xef\xbb\xbf" + plain.encode()).text == "A dog is here."
    # half of a surrogate pair is no character: it must not reach a file or another request
    halved = read(plain.replace("A dog", "A dog \\ud83d").encode())
    assert halved.fault is None and halved.text.startswith("A dog") and halved.text.encode()
    refused = plain.replace('"content": "A dog is here."', '"content": null, "refusal": "I cannot help with that."')
    assert read(refused.encode()).fault == "the server refused to answer: I cannot help with that."


BAD = {
    "html": Reply("<html>"),
    "no choices": Reply('{"choices": []}'),
    "truncated JSON": Reply(GOOD.body, cut=30),
    "half a JSON": Reply(GOOD.body[:30]),
    "empty": good(""),
    "null": good(None),
    "only thoughts": good("<think> a dog, so "),
    "hangs up": HANG_UP,
    "error": Reply("out of memory", 500),
    "refused": Reply("the image is broken", 400),
    "another shape": Reply('{"choices": [{"message": {"content": {"x": 1}}}]}'),
    "binary": Reply("\x00\x01\ud7ff"),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_what_is_bad_for_one_image_fails_that_image_after_its_tries(bad: Reply) -> None:
    with scripted(lambda body: bad if asks_of("two", body) else GOOD) as server:
        stage = composer(server.url, retries=2)
        one, two, three = write(stage, [request("one"), request("two"), request("three")])
    assert (one, three) == ("A dog is here.", "A dog is here.")
    assert isinstance(two, Failure)
    assert (two.stage, two.error_type) == ("composer", "NoAnswer") and two.detail
    # no answer, or an error of the server, may pass; a refusal and an answer without use would come again
    assert two.transient == (bad.cut is not None or bad.status >= 500)
    assert sum(asks_of("two", body) for body in server.asked) == (1 if bad.status == 400 else 3)
    bound = stage.bound(request("two"))
    assert stage.usage[1].prompt_tokens <= bound[1].prompt_tokens
    told = "usage" in bad.body and bad.cut is None and bad != BAD["half a JSON"]
    if bad.status == 200 and not told:  # nobody knows what it cost: the most that it can
        assert stage.usage[1].completion_tokens >= 3 * 400


@pytest.mark.parametrize("bad", [BAD["html"], BAD["hangs up"], BAD["error"]], ids=["html", "hangs up", "error"])
def test_a_bad_answer_is_tried_again(bad: Reply) -> None:
    with scripted(in_turn(bad, GOOD)) as server:
        stage = composer(server.url)
        assert write(stage, [request("one")]) == ["A dog is here."]
    assert len(server.asked) == 2
    assert stage.usage[0].completion_tokens == (400 if bad.status == 200 else 0) + 3 + 3  # with the probe


def test_a_server_that_is_away_is_no_images_fault_and_answers_before_are_kept() -> None:
    up = {"one"}

    def answer(body: dict[str, Any]) -> Reply:
        if "all" in up or any(asks_of(name, body) for name in up):
            return GOOD
        return HANG_UP

    with scripted(answer) as server:
        stage = composer(server.url, concurrency=1, retries=1)
        for _ in range(2):
            with pytest.raises(StageUnavailable, match="does not answer a test question"):
                write(stage, [request("one"), request("two"), request("three")])
        up.add("all")
        assert write(stage, [request("one"), request("two"), request("three")]) == ["A dog is here."] * 3
    assert sum(asks_of("one", body) for body in server.bodies) == 1  # not paid for twice
    assert sum(asks_of("two", body) + asks_of("three", body) for body in server.bodies) <= 4
    assert stage.usage[0] == Usage(prompt_tokens=5, completion_tokens=3, requests=1)
    stage.release()
    with scripted(answer) as server:
        assert write(composer(server.url), [request("one")]) == ["A dog is here."]
    assert len(server.bodies) == 1


def test_no_server() -> None:
    stage = composer("http://127.0.0.1:9/v1", retries=1)
    with pytest.raises(StageUnavailable, match="ConnectError"):
        write(stage, [request("one"), request("two")])


@pytest.mark.parametrize("status", [301, 401, 402, 403, 404, 405])
def test_a_wrong_key_or_address_is_no_images_fault(status: int) -> None:
    with (
        scripted(lambda body: Reply("no such model", status)) as server,
        pytest.raises(StageUnavailable, match=f"status {status}: no such model") as caught,
    ):
        write(composer(server.url), [request("one")])
    assert len(server.bodies) == 1
    assert caught.value.stage == "composer" and caught.value.reason == str(caught.value)
    assert isinstance(caught.value, StageRefused) == (status != 402)  # no credit may pass without new settings


@pytest.mark.parametrize("reply", [Reply("", 503), Reply("", 429), Reply("", 500), Reply("?", 400), HANG_UP])
def test_a_server_in_trouble_is_left_after_two_seconds(reply: Reply, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_server, "FIRST_PAUSE", 0.5)  # as it is without the fixture
    with scripted(lambda body: reply) as server:
        stage = composer(server.url, retries=20)
        for _ in range(2):
            started = time.monotonic()
            with pytest.raises(StageUnavailable) as caught:
                write(stage, [request(str(n)) for n in range(4)])
            assert time.monotonic() - started < chat_server.PATIENCE + 1
            assert not isinstance(caught.value, StageRefused)


def test_a_pause_that_the_server_asks_for_is_told() -> None:
    with scripted(in_turn(Reply("", 503, {"Retry-After": "90"}))) as server, pytest.raises(StageUnavailable) as caught:
        write(composer(server.url), [request("one")])
    assert 85 <= caught.value.pause <= 90


def test_a_server_that_did_not_work_is_asked_a_probe_before_any_question() -> None:
    replies = {"now": HANG_UP}
    with scripted(lambda body: replies["now"]) as server:
        stage = composer(server.url, retries=1)
        with pytest.raises(StageUnavailable):
            write(stage, [request("one"), request("two")])
        server.bodies.clear()
        with pytest.raises(StageUnavailable):
            write(stage, [request("one"), request("two")])
        assert server.bodies and not server.asked
        replies["now"] = GOOD
        assert write(stage, [request("one"), request("two")]) == ["A dog is here."] * 2
        stage.release()
        assert write(stage, [request("one")]) == ["A dog is here."]
    assert sum(map(is_plain, server.bodies[-4:])) == 1  # one probe for both questions, and none once it works


def test_a_server_that_hangs_costs_one_timeout_and_one_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_client, "PROBE_SECONDS", 0.2)
    free = threading.Event()

    def hang(body: dict[str, Any]) -> Reply:
        free.wait(120)
        return GOOD

    with scripted(hang) as server:
        stage = composer(server.url, timeout=0.4, concurrency=2)
        for _ in range(2):
            with pytest.raises(StageUnavailable, match="ReadTimeout") as caught:
                write(stage, [request("one"), request("two")])
        spent = caught.value.usage
        free.set()
    assert spent.completion_tokens >= 2 * 400  # both questions were sent, and may have been charged


KEY = f"sk-planted-{SECRET}"


@pytest.mark.parametrize("around", ["\n", " ", "\r\n", "\t "])
def test_white_space_around_a_key_is_not_sent(around: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", around + KEY + around)
    with scripted(lambda body: GOOD) as server:
        assert write(composer(server.url, api_key_variable="MY_KEY"), [request("one")]) == ["A dog is here."]
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("inside", ["\n", " ", "\r\nX-Evil: 1", "ü", "\u2028", "\x7f"])
def test_a_key_that_cannot_be_sent_is_refused_before_anything_is_sent(
    inside: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", f"{KEY[:9]}{inside}{KEY[9:]}")
    with scripted(lambda body: GOOD) as server, pytest.raises(InvalidInput, match="MY_KEY") as caught:
        composer(server.url, api_key_variable="MY_KEY")
    assert KEY[:9] not in str(caught.value) and KEY[9:] not in str(caught.value) and not server.bodies


@pytest.mark.parametrize("status", [200, 400, 401, 429, 500])
@pytest.mark.parametrize("before", [0, 190])
def test_a_key_that_the_server_repeats_is_told_to_nobody(
    status: int, before: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    reply = Reply(f"{'x' * before} Bearer {KEY} {KEY}", status)
    told = []
    with scripted(lambda body: GOOD if status != 401 and is_plain(body) else reply) as server:
        stage = composer(server.url, api_key_variable="MY_KEY", retries=1)
        try:
            told += [one.detail for one in write(stage, [request("one")]) if isinstance(one, Failure)]
        except (StageUnavailable, StageUnfit) as error:
            told += [str(error), repr(error)]
    assert told and all(KEY[:6] not in text for text in [*told, caplog.text])
    assert before or "***" in told[0]


@pytest.mark.parametrize("escape", [str, lambda key: key.replace("/", "\\/"), lambda key: quote(key, safe="")])
def test_a_key_that_the_server_repeats_escaped_is_told_to_nobody(
    escape: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = f"sk-a/b+c={SECRET}"
    monkeypatch.setenv("MY_KEY", key)
    reply = Reply(f'{{"error": "wrong key {escape(key)}"}}', 401)
    with scripted(lambda _: reply) as server, pytest.raises(StageRefused, match=r"wrong key \*\*\*") as caught:
        write(composer(server.url, api_key_variable="MY_KEY"), [request("one")])
    assert SECRET not in str(caught.value)


def test_a_key_in_an_answer_is_no_part_of_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    with scripted(lambda _: good(f"Your key is {KEY}.")) as server:
        texts = write(composer(server.url, api_key_variable="MY_KEY"), [request("one")])
    assert texts == ["Your key is ***."]


def test_who_refuses_everybody_is_at_fault_itself() -> None:
    with (
        scripted(lambda body: Reply("max_tokens is too large", 400)) as server,
        pytest.raises(StageUnavailable, match="it does not answer a test question either: status 400: max_tokens"),
    ):
        write(composer(server.url), [request("one"), request("two")])


def test_a_server_that_only_takes_money_is_not_asked_for_ever() -> None:
    with scripted(lambda body: good("", read=5, written=400)) as server, pytest.raises(StageUnfit, match="empty"):
        write(composer(server.url), [request(str(n)) for n in range(20)])
    assert len(server.bodies) <= 8 + 8 + 4  # those in flight, and the tries of a probe


@pytest.mark.parametrize("body", ["<html>It works!</html>", "", "{}", '{"error": "busy"}', "null", '"text"', "[]"])
def test_a_page_in_place_of_every_answer_is_waited_for(body: str) -> None:
    with scripted(lambda _: Reply(body)) as server:
        stage = composer(server.url)
        with pytest.raises(StageUnavailable, match="not a chat completion"):
            write(stage, [request("one")])
        # the model is back
        server.answer = lambda _: GOOD
        assert write(stage, [request("one")]) == ["A dog is here."]


def test_a_response_that_does_not_end_or_is_too_long_is_no_answer() -> None:
    with scripted(lambda _: Reply("x" * 1000, drip=0.2)) as server:
        began = time.monotonic()
        with pytest.raises(StageUnavailable, match="had not ended after 1 s"):
            write(composer(server.url, timeout=1.0, retries=0), [request("one")])
        assert time.monotonic() - began < 60  # and not the 200 s of the page
    with (
        scripted(lambda _: Reply("x" * (chat_server.MAX_RESPONSE + 1))) as server,
        pytest.raises(StageUnavailable, match="more than"),
    ):
        write(composer(server.url, retries=0), [request("one")])


def test_usage_never_passes_the_bound() -> None:
    with scripted(lambda body: Reply("?") if is_plain(body) or asks_of("one", body) else GOOD) as server:
        stage = composer(server.url, retries=1, concurrency=1)
        with pytest.raises(StageUnavailable, match="not a chat completion"):
            write(stage, [request("one"), request("two")])
    once, whole = stage.bound(request("one"))
    assert whole.completion_tokens == 2 * (2 * 400 + 4 * 400)  # two texts
    assert once.prompt_tokens >= len(server.asked[0]["messages"][-1]["content"])
    assert len(server.bodies) <= whole.requests


def test_equal_questions_are_asked_and_paid_once() -> None:
    with scripted(lambda body: GOOD) as server:
        stage = composer(server.url)
        assert write(stage, [request("one")] * 3) == ["A dog is here."] * 3
    assert len(server.bodies) == 1
    assert [usage.requests for usage in stage.usage] == [1, 0, 0]


def test_a_server_that_counts_nothing_is_counted_at_the_bound() -> None:
    with scripted(lambda body: good("A dog.", read=None)) as server:
        stage = composer(server.url)
        write(stage, [request("one")])
    assert stage.usage[0] == stage.bound(request("one"))[0]
    with scripted(lambda body: Reply(GOOD.body.replace('"prompt_tokens": 5', '"prompt_tokens": -1'))) as server:
        stage = composer(server.url)
        write(stage, [request("one")])
    assert stage.usage[0] == stage.bound(request("one"))[0]


def test_what_is_cut_off_ends_with_a_sentence() -> None:
    cut = good("A dog is here. It sits. It loo", finish="length")
    with scripted(lambda body: cut if asks_of("one", body) else good("A very long", finish="length")) as server:
        first, second = write(composer(server.url), [request("one"), request("two")])
    assert first == "A dog is here. It sits."
    assert isinstance(second, Rejection) and "no whole sentence within its token limit" in second.detail
    assert [body["temperature"] for body in server.asked if asks_of("two", body)] == [0.0, 0.7]
    assert len(server.asked) == 3


def picture_of(body: dict[str, Any]) -> Image.Image:
    """The image in a request."""
    part = next(part for part in body["messages"][-1]["content"] if part["type"] == "image_url")
    kind, _, data = part["image_url"]["url"].partition(";base64,")
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert kind == f"data:image/{str(image.format).lower()}"
    return image


def test_captions_of_scenes_and_crops() -> None:
    def answer(body: dict[str, Any]) -> Reply:
        image = picture_of(body)
        return good(f"size {image.size} {image.getpixel((0, 0))} {body['max_tokens']}")

    with scripted(answer) as server:
        stage = captioner(server.url, image_format="png", longest_side=40, crop_tokens=12)
        requests = [
            CaptionRequest(Image.new("RGB", (80, 60), (n, 0, 0)), "scene" if n % 2 else "crop") for n in range(6)
        ]
        texts = write(stage, requests)
        assert texts == [f"size (40, 30) {(n, 0, 0)} {100 if n % 2 else 12}" for n in range(6)]
        assert len(stage.usage) == 6
        jpeg = captioner(server.url)
        (text,) = write(jpeg, [CaptionRequest(Image.new("RGB", (3000, 2), "white"))])
    assert str(text).startswith("size (1024, 28)")
    assert picture_of(server.bodies[-1]).format == "JPEG"


def test_the_composer_sends_the_image_only_where_it_is_asked_to() -> None:
    image = Image.new("RGB", (40, 30), "blue")
    bare = ComposeRequest(Record(key="0", image=ImageReference(uri="a", size=1)), image)
    with scripted(lambda body: GOOD) as server:
        assert write(composer(server.url), [request("one", image), bare]) == ["A dog is here.", ""]
        assert isinstance(server.bodies[0]["messages"][-1]["content"], str)
        sighted = composer(server.url, prompt="sighted", with_image=True)
        assert write(sighted, [request("one", image), bare]) == ["A dog is here."] * 2
    seen = [body for body in server.bodies[1:] if "no notes" not in json.dumps(body)]
    assert picture_of(seen[0]).size == (40, 30)
    assert seen[0]["messages"][-1]["content"][-1]["text"] == "Caption of the whole picture:\nA picture of one."
    assert sighted.bound(request("one", image))[0].prompt_tokens > 1536


def test_thoughts_are_no_part_of_a_description() -> None:
    with scripted(lambda body: good("<think>\nhm\n</think>\n\nA dog.")) as server:
        assert write(composer(server.url), [request("one")]) == ["A dog."]


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="no chat server"):
        composer("file:///etc")
    with pytest.raises(ValueError, match="image_format"):
        captioner("http://x/v1", image_format="gif")
    with pytest.raises(ValueError, match="max_tokens, n cannot be set"):
        composer("http://x/v1", request={"n": 4, "max_tokens": 9_999})
    with pytest.raises(ValueError, match="has changed"):
        composer("http://x/v1", prompt_sha256="0")
