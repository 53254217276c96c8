from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.guards import Asked, guarded, quotable
from models.sentences import sentences_of, whole_sentences
from tests.models.guards.guard_cases import CLEANED, CUT, CUT_IN, KEPT, PROMPT, REJECTED


@pytest.mark.parametrize(("text", "answer"), CLEANED)
def test_an_answer_is_cleaned_of_what_is_not_the_answer(text: str, answer: str) -> None:
    language = "zh" if "猫坐" in answer else "ja" if "猫が" in answer else "fa" if "\u200c" in answer else "en"
    found = guarded(text, Asked(language=language))
    assert (found.text, found.rejected) == (answer, None)


@pytest.mark.parametrize(("text", "name"), REJECTED)
def test_what_is_no_answer_is_rejected(text: str, name: str) -> None:
    assert guarded(text, Asked(prompts=(PROMPT,))).rejected == name


@pytest.mark.parametrize("text", KEPT)
def test_what_only_looks_like_a_fault_is_kept(text: str) -> None:
    found = guarded(text, Asked(prompts=(PROMPT,)))
    assert (found.text, found.rejected) == (text, None)


@pytest.mark.parametrize(("text", "left"), CUT)
def test_a_text_that_was_cut_ends_with_its_last_whole_sentence(text: str, left: str) -> None:
    found = guarded(text, Asked(), cut=True)
    assert (found.text, found.rejected) == (left, None) if left else found.rejected == "cut"


@pytest.mark.parametrize(("language", "text", "left"), CUT_IN)
def test_sentences_end_in_every_script(language: str, text: str, left: str) -> None:
    assert guarded(text, Asked(language=language), cut=True).text == left


def test_a_phrase_that_was_cut_or_is_a_paragraph_is_none() -> None:
    assert guarded("a red car on a", Asked("phrase"), cut=True).rejected == "cut"
    assert guarded("a red car", Asked("phrase")).rejected is None
    assert guarded("a red car and a man " * 6, Asked("phrase")).rejected in ("long", "loop")


# what a model that goes in circles may write: with an expression that searches in many ways, the first took years
REPEATED = (
    "- --- |---| * **a _ __a ` ``` ~~~ < <think> </think> <| <|channel|> <s> [ [a]( ![ ( ' “ « { \\ \\boxed{".split()
)
REPEATED += (
    "<p> <p & &amp; <!-- > 1. . ... ? a a. A. note: (note = | :- ab <answer> ◁think▷ [THINK] ▁ Ġ 猫 猫。".split()
)
REPEATED += ["\n", "\t", " ", "sure, ", "here is ", "the image ", "is a ", "no image ", "\x00", "\u200b"]
REPEATED += ['"', '{"a":', 'A "b" ', "# a\n", "- a\n"]


@pytest.mark.parametrize("piece", REPEATED)
def test_a_text_that_goes_in_circles_is_judged_at_once(piece: str) -> None:
    for head, tail in (("", "x"), ("A cat ", "\n"), ("[", "!")):
        text = head + piece * (20_000 // len(piece)) + tail
        began = time.thread_time()
        guarded(text, Asked(prompts=(PROMPT,)))
        assert time.thread_time() - began < 3.0  # measured: below 0.25 s


@given(st.text(max_size=300))
def test_any_text_is_cleaned_once_and_for_all(text: str) -> None:
    once = guarded(text, Asked())
    again = guarded(once.text, Asked())
    assert again.text == once.text
    once.text.encode()


@given(st.text(max_size=200))
def test_sentences_keep_every_word(text: str) -> None:
    assert "".join("".join(sentences_of(text)).split()) == "".join(text.split())
    assert sentences_of(text)[: len(whole_sentences(text))] == whole_sentences(text)


PIECES = st.sampled_from(
    [
        "</s>",
        "<script>",
        "<|im_end|>",
        "[INST]",
        "<b>",
        "&lt;i&gt;",
        "<",
        "|>",
        "SALE",
        "50 %",
        '"',
        "User:",
        "<eos>",
        "a",
    ]
)


@given(st.lists(PIECES, min_size=1, max_size=6).filter(lambda pieces: re.search(r"\w", " ".join(pieces))))
def test_what_was_read_in_an_image_survives_the_guard_in_quotation_marks(pieces: list[str]) -> None:
    line = " ".join(pieces)
    text = f'A sign that says "{quotable(line)}" is at the top. A bee is at the left.'
    assert guarded(text, Asked("text")).text == text
    # its letters are those of the line
    assert re.findall(r"\w+", quotable(line)) == re.findall(r"\w+", line)
