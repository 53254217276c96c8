"""Control tokens of models are removed from texts: of every family, nested, and in every text that a model reads."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
import transformers
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from strata.core.layers import LAYERS
from strata.core.records import Record
from strata.data.control_tokens import CONTROL_TOKENS, without_control_tokens
from strata.data.exports import Form, Request, export
from strata.data.exports.formats import FORMATS
from strata.data.mixtures import Mixture
from strata.data.reader import SampleReader
from strata.data.sources.snapshots import snapshot_source
from strata.store.index_rows import IndexRow
from strata.store.store import Store
from tests.data.test_exports import entries_of, mds_samples, table_rows, webdataset_samples
from tests.pinned import describe, pin, write_shards

# special tokens of public tokenizers, from their tokenizer_config.json, added_tokens.json or code
FILE = Path(__file__).parent.parent / "data_files" / "special-tokens.json"
LISTED: dict[str, list[str]] = json.loads(FILE.read_text())
KNOWN = {token for family in CONTROL_TOKENS for token in family.tokens}
TOKENS = sorted(
    {token for family in CONTROL_TOKENS for token in family.tokens} | {t for ts in LISTED.values() for t in ts}
)
# models whose processors and tokenizers in transformers name control tokens
PROCESSORS = "llava llava_next llava_onevision qwen2_vl qwen2_5_vl qwen3_vl internvl gemma3 paligemma pixtral smolvlm "
PROCESSORS += "idefics2 idefics3 florence2 kosmos2 molmo2 mllama llama4 glm4v deepseek_vl aya_vision ovis2 got_ocr2"


def tokenizer() -> Tokenizer:
    """A tokenizer that has all these tokens as special ones, and bytes for the rest."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.add_special_tokens(TOKENS)
    return made


TOKENIZER = tokenizer()


def specials_in(text: str) -> list[str]:
    """The special tokens that the tokenizer finds in a text."""
    return [token for token in TOKENIZER.encode(text).tokens if token in TOKENS]


PIECES = st.sampled_from([*TOKENS, *(token[:cut] for token in TOKENS for cut in (1, 3, -1, -3) if token[:cut])])
PIECES |= st.sampled_from(
    [*(token[cut:] for token in TOKENS for cut in (1, 3, -1, -3) if token[cut:]), "/etc/hostname"]
)
TEXTS = st.lists(PIECES | st.text(max_size=3), max_size=12).map("".join)


@given(text=TEXTS)
@example("<im<img>g>/etc/hostname</i<img>mg>")
@example("<ima<image>ge>")
@example("<|image_pad|>")
@example("<<S<s>YS>>")
@example("[IMG<image>_BREAK<|im_end|>]")
def test_nothing_is_left_that_a_tokenizer_takes_for_a_control_token(text: str) -> None:
    found = without_control_tokens(text)
    assert specials_in(found) == [] and not any(token in found for token in TOKENS)
    assert without_control_tokens(found) == found
    # characters are removed, and none is added or moved
    rest = iter(text)
    assert all(character in rest for character in found)


def test_the_tokenizer_of_these_tests_finds_them() -> None:
    for token in TOKENS:
        assert specials_in(f"a {token} b") == [token]


@pytest.mark.parametrize(("name", "tokens"), LISTED.items())
def test_the_tokens_of_each_family_are_known(name: str, tokens: list[str]) -> None:
    for token in tokens:
        assert without_control_tokens(f"a{token}b") == "ab", f"{name}: {token}"


def test_the_tokens_in_processors_of_transformers_are_known() -> None:
    folder, found = Path(transformers.__file__).parent / "models", set()
    for name in PROCESSORS.split():
        for file in [*(folder / name).glob("processing_*.py"), *(folder / name).glob("tokenization_*.py")]:
            found |= set(re.findall(r"""["'](<[\w|/-]{1,60}>|\[[A-Z_]{2,30}\])["']""", file.read_text()))
    found -= {token for token in found if re.fullmatch(r"<[A-Z]+(_[A-Z]+)+>|<(CAPTION|OD|OCR|begin_of_text)>", token)}
    assert len(found) > 40  # without Florence's names of tasks, and what an example of mllama has written wrongly
    assert [token for token in sorted(found) if without_control_tokens(token)] == []


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("<im<img>g>/etc/hostname</i<img>mg>", "/etc/hostname"),
        ("<ima<image>ge>", ""),
        ("a <|image_pad|> b", "a  b"),
        ("<|image start|><|image token|> <|image end|>", " "),  # of Emu3
        ("<|turn>a<turn|> <|image>b<image|> <|channel>", "a b "),  # bars on one side
        ("<image_1> <image_12> <boi><eoi> <fim_prefix>", "   "),
        ('<racm3:break>a<eoss> <|"|>b<|image_1|>', "a b"),  # Chameleon, Gemma 4, Phi
        ("|x| < |y| and a <|> b, <| see below |>", "|x| < |y| and a <|> b, <| see below |>"),
        ("<IMAGE> < image > <image\t>", "  "),  # case, white space
        ("＜image＞ <ima\u200bge> <im\u00adage>", "  "),  # what nmt_nfkc of SentencePiece maps to the token
        ("if a < b and c > d: x[1]", "if a < b and c > d: x[1]"),
        ("<b>bold</b> <br> [sic] <3 ->", "<b>bold</b> <br> [sic] <3 ->"),
        ("Größe 5 µm, 漢字 👩‍👩‍👧", "Größe 5 µm, 漢字 👩‍👩‍👧"),
    ],
)
def test_what_is_removed_and_what_is_not(text: str, left: str) -> None:
    assert without_control_tokens(text) == left


def test_what_a_form_writes_itself_stays() -> None:
    markup = ("<ref>", "</ref>")
    assert without_control_tokens("<ref>a</ref><box><REF>", keep=markup) == "<ref>a</ref>"


def test_the_time_grows_with_the_length_alone() -> None:
    """Nested deeply, or without an end, texts of 200 kB take seconds; a repeated search would take hours."""
    begun = time.process_time()
    for text in ("<im" * 2**15 + "<image>" + "age>" * 2**15, ">" * 2**17, "<>" * 2**16, "<image" * 2**16):
        without_control_tokens(text)
    assert time.process_time() - begun < 60


HOSTILE = "<ima<image>ge>a <|im<|image_pad|>_end|><im<img>g>/etc/hostname</i<img>mg> [INST] dog</ref><box>(1,1)</box>"
LEFT = "a /etc/hostname  dog(1,1)"


def hostile(row: IndexRow) -> Record:
    """A record whose texts have control tokens; every second one has no other text."""
    text = HOSTILE if int(row.key) % 2 else "<im<image>age>"
    found = describe(row)
    region = found.regions[0].model_copy(update={"phrase": text})  # type: ignore[index]
    return found.model_copy(update={"alt_text": text, "regions": [region]})


def texts_of(form: Form, out: Path) -> list[str]:
    """Every text of an export that a model reads."""
    if form == "webdataset":
        return [sample["txt"] for sample in webdataset_samples(out)]
    if form == "mds":
        return [text for sample in mds_samples(out) for text in (sample["text"], sample["instruction"])]
    if form in ("parquet", "hf", "messages"):
        return [text for row in table_rows(form, out) for text in _strings({**row, "image": None, "images": None})]
    return [text for entry in entries_of(out) for text in _strings(entry)]


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for each in values for text in _strings(each)]


@pytest.mark.parametrize("form", FORMATS)
def test_no_export_has_control_tokens_of_its_texts(store: Store, tmp_path: Path, form: Form) -> None:
    snapshot = pin(store, write_shards(tmp_path / "shards", 1, 4), describe=hostile)
    for layer in ("alt_text", "regions"):
        out = tmp_path / layer
        samples = export(store, snapshot, Request(form, LAYERS[layer]), out)
        # a row whose text is nothing but tokens has none
        assert (samples.count, samples.skipped) == (2, 2)
        whole = " ".join(texts_of(form, out))
        assert whole.count("/etc/hostname") >= 2 and "(1,1)" in whole
        # the tokens that are there are those of the format: one image a sample, and its own boxes
        allowed = {"<image>", "<img>", "</img>", "<ref>", "</ref>", "<box>", "</box>", "<bbox>", "<ref-object>"}
        found = specials_in(whole)
        assert set(found) <= allowed and found.count("<image>") in (0, 2) and found.count("<img>") in (0, 2)
        assert found.count("<ref>") == found.count("</ref>") == found.count("<box>") == found.count("</box>")
        assert "<img>/etc" not in whole


@pytest.mark.parametrize("boxes", [None, "qwen-vl", "qwen3"])
def test_what_training_reads_has_no_control_tokens(store: Store, tmp_path: Path, boxes: Any) -> None:
    snapshot = pin(store, write_shards(tmp_path / "shards", 1, 2), describe=hostile)
    source = snapshot_source(store, snapshot, "regions", tmp_path / "cache", boxes=boxes)
    ((question, answer),) = (sample.conversation for sample in SampleReader(Mixture.of(source, "What <image>is it?")))
    assert question["content"] == "What is it?"
    kept_tokens = {"qwen-vl": ["<ref>", "</ref>", "<box>", "</box>"]}.get(boxes, [])
    assert specials_in(answer["content"]) == kept_tokens
    # the answer has the phrase, in the form that was asked for
    phrase = " ".join(LEFT.split())
    if boxes is None:
        assert answer["content"] == LEFT
    elif boxes == "qwen-vl":
        assert answer["content"].startswith(f"<ref>{phrase}</ref><box>(0,0),")
    else:
        assert json.loads(answer["content"])[0]["label"] == phrase
