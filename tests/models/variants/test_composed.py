"""The composer's variants: lengths and languages, by a scripted chat server, the counting and the grounded composer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import models.chat.server as chat_server
from bench.fakes.scripted_server import Reply, good, scripted
from models.demo.grounding import Guide
from models.items import ComposeRequest
from models.pipeline import LlmPipeline
from models.prompts import FOLDER, facts_of, load_prompt, relations_of, small_notes
from models.prompts.lengths import LENGTHS
from models.variants.composed import WARNING
from models.variants.plain import told
from models.weights.hashes import sha256_of
from strata.core import Profile, ProfileError, Record, Status, TextSettings, load_profile
from strata.core.profiles import StageSettings
from tests.models.variants.records import STREET, record

TEXTS = {
    "": 'A red car is at the left. A sign that says "OPEN" is at the top right.',
    "short": "A red car and two dogs are there.",
    "medium": "A red car is at the left. There are two dogs.",
    "long": 'A red car is at the left. There are two dogs. There is a purple whale. A sign says "OPEN".',
}
GERMAN = 'Ein rotes Auto steht auf der linken Seite. Ein Schild mit der Aufschrift "OPEN" ist oben rechts zu sehen.'


@pytest.fixture(autouse=True)
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_server, "FIRST_PAUSE", 0.01)


def profile(url: str, **parameters: Any) -> Profile:
    given = {"served_model": "m", "prompt": "full", "prompt_sha256": sha256_of(FOLDER / "full.toml"), **parameters}
    composer = StageSettings(backend="openai", model=f"server:{url}", revision="1", parameters=given)
    verifier = StageSettings(backend="rules", model="builtin:rules", revision="1")
    return Profile(name="chat", stages={"composer": composer, "verifier": verifier})


def length_of(body: dict[str, Any]) -> str:
    """The length that a request asks for, by its system message."""
    system = body["messages"][0]["content"]
    marks = {"short": "one sentence of at most", "medium": "two or three sentences", "long": "six to ten sentences"}
    return next((name for name, mark in marks.items() if mark in system), "")


def ran(url: str, texts: TextSettings, of: Record = STREET) -> Record:
    pipeline = LlmPipeline(profile(url).with_texts(texts))
    pipeline.load()
    (found,) = pipeline.run([ComposeRequest(of)], texts)
    return found


def test_lengths_are_asked_for_checked_and_paid_for() -> None:
    texts = TextSettings(variants=["long", "short", "medium", "tags"])
    with scripted(lambda body: good(TEXTS[length_of(body)])) as server:
        found = ran(server.url, texts)
        bound = LlmPipeline(profile(server.url)).bound(STREET, texts)["composer"]
        alone = LlmPipeline(profile(server.url)).bound(STREET)["composer"]
    assert found.description and found.description.text == TEXTS[""]
    variants = {one.name: one for one in found.variants or ()}
    assert list(variants) == ["short", "medium", "long", "tags"]
    assert variants["short"].text == TEXTS["short"] and variants["medium"].text == TEXTS["medium"]
    # the verifier has cut the whale, and says so
    assert variants["long"].text == TEXTS["long"].replace("There is a purple whale. ", "")
    checked = variants["long"].verification
    assert checked and [one.reason for one in checked.sentences].count("unsupported_object") == 1
    assert variants["short"].sentences[0].evidence
    # four questions, within the bound; the bound counts the further ones
    assert found.usage["composer"].requests == 4
    assert bound[0].requests == 4 * alone[0].requests and bound[1].prompt_tokens > 4 * alone[0].prompt_tokens
    assert found.usage["composer"].prompt_tokens <= bound[1].prompt_tokens


def test_a_variant_that_is_rejected_twice_is_left_out_with_a_warning() -> None:
    with scripted(lambda body: good("I'm sorry, I can't." if length_of(body) == "short" else TEXTS[""])) as server:
        found = ran(server.url, TextSettings(variants=["short", "medium"]))
    assert found.status is Status.SUCCEEDED and [one.name for one in found.variants or ()] == ["medium"]
    (warning,) = found.warnings
    assert warning.type == WARNING and warning.detail.startswith("short: the model refused")


def is_translation(body: dict[str, Any]) -> bool:
    return "You translate" in body["messages"][0]["content"]


def in_german(*answers: str) -> Any:
    """A server that translates with these answers in turn, and the last one from then on."""
    given = list(answers)

    def answer(body: dict[str, Any]) -> Reply:
        if not is_translation(body):
            return good(TEXTS[length_of(body)])
        assert "into German" in body["messages"][0]["content"]
        return good(given.pop(0) if len(given) > 1 else given[0])

    return answer


def test_a_language_is_written_from_the_verified_text_with_its_evidence() -> None:
    with scripted(in_german(GERMAN)) as server:
        found = ran(server.url, TextSettings(language="de"))
        translated = next(body for body in server.bodies if is_translation(body))
    assert found.description and found.description.text == GERMAN
    assert translated["messages"][-1]["content"] == TEXTS[""]
    evidence = [one.evidence for one in found.description.sentences]
    assert evidence == [["caption", "regions/0"], ["regions/2", "text/0"]]
    assert found.verification and found.verification.text == TEXTS[""]


@pytest.mark.parametrize("wrong", [TEXTS[""], GERMAN.replace("OPEN", "OFFEN")])
def test_the_wrong_language_and_a_translated_quotation_are_written_again(wrong: str) -> None:
    with scripted(in_german(wrong, GERMAN)) as server:
        found = ran(server.url, TextSettings(language="de", variants=[]))
    assert found.description and found.description.text == GERMAN


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [(TEXTS[""], "composer_language"), (GERMAN.replace('"OPEN"', "OPE"), "composer_quotation")],
)
def test_what_is_wrong_twice_is_a_filtered_row(wrong: str, rule: str) -> None:
    with scripted(in_german(wrong)) as server:
        found = ran(server.url, TextSettings(language="de"))
    assert found.status is Status.FILTERED and found.failure and found.failure.error_type == rule


def test_variants_have_their_language() -> None:
    with scripted(in_german(GERMAN)) as server:
        found = ran(server.url, TextSettings(language="de", variants=["short"]))
        english = ran(server.url, TextSettings(language="en", variants=["short"]))
    assert [one.language for one in found.variants or ()] == ["de"]
    assert [(one.language, one.text) for one in english.variants or ()] == [("en", TEXTS["short"])]


def test_what_cannot_be_written_is_refused() -> None:
    chat = profile("http://127.0.0.1:9/v1")
    demo, everyday = (load_profile(name, Path("models/profiles")) for name in ("demo", "everyday"))
    for of, texts, words in (
        (chat, TextSettings(language="de", variants=["tags", "short"]), "'tags' in 'de'"),
        (demo, TextSettings(language="de"), "English only"),
        (everyday, TextSettings(prompt="Be brief."), "takes no prompt"),
    ):
        with pytest.raises(ProfileError, match=words):
            of.with_texts(texts)


def test_the_counting_composer_tells_less_and_more() -> None:
    assert told(STREET, 12, "short") == "The picture shows a red car, two dogs and a sign."
    assert told(STREET, 12, "medium") == told(STREET, 12)
    extra = told(STREET, 12, "long").removeprefix(told(STREET, 12)).strip()
    assert extra == "The sign is small in the picture. The car is to the left of the sign."
    assert told(record(lines=(("EXIT", (0, 0, 90, 30)),)), 12, "short") == 'The picture has the text "EXIT".'


def written(of: Record, length: str) -> str:
    """The first text that grounded decoding allows, character by character."""
    wording = load_prompt("small", sha256_of(FOLDER / "small.toml")).wording
    assert wording
    if LENGTHS[length].sentences:
        wording = replace(wording, sentences=1)
    facts, relations = facts_of(of, 12, length), relations_of(of, 12, wording, length)
    guide = Guide(wording, facts, lambda text: tuple(map(ord, text)), 0, relations)
    while not guide.done:
        guide.accept(guide.allowed()[0])
    return "".join(map(chr, guide.tokens))


def test_grounded_decoding_tells_less_and_more() -> None:
    things = [
        (f"a {name}", (x, y, x + side, y + side))
        for name, x, y, side in (
            ("frog", 10, 10, 90),
            ("car", 200, 20, 80),
            ("tree", 400, 30, 70),
            ("cup", 20, 300, 60),
            ("bee", 250, 310, 50),
        )
    ]
    of = record(*things, caption="a frog and a car on a yellow background")
    short, medium, long = (written(of, length) for length in ("short", "medium", "long"))
    assert short.count(".") == 1 and "yellow background" in short
    assert all(name in short for name in ("frog", "car", "tree")) and "cup" not in short
    assert all(name in medium for name in ("frog", "car", "tree", "cup", "bee"))
    assert len(long) > len(medium) > len(short)
    assert small_notes(of, 12, "short").count("\n") == 3
