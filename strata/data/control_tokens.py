"""Control tokens of vision-language models, and how texts are freed of them.

A text that a model is trained on comes from pictures and other people's files, and may contain what a tokenizer turns
into a control token: `<image>` would count as a second image, `<|im_end|>` would end the turn, and `<img>PATH</img>`
is a file that Qwen-VL's tokenizer opens. CONTROL_TOKENS has the tokens of each family, with the file that lists them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from typing import NamedTuple


class Family(NamedTuple):
    """Models with the same control tokens.

    source: the public file that lists them. tokens: those that are not of the forms `<|…|>`, `<|…>` and `<…|>`, which
    are removed from every text. patterns: regular expressions of numbered tokens.
    """

    name: str
    source: str
    tokens: tuple[str, ...]
    patterns: tuple[str, ...] = ()


def _pairs(*names: str) -> tuple[str, ...]:
    """The tokens <name> and </name> of each name."""
    return tuple(f"<{slash}{name}>" for name in names for slash in ("", "/"))


def _tags(names: str) -> tuple[str, ...]:
    """The tokens <name> of names that are separated by spaces."""
    return tuple(f"<{name}>" for name in names.split())


# <|…|> alone covers Qwen 2, 2.5 and 3 (tokenizer_config.json), Llama 3 and 4, Phi-3 and 4, GLM-4, Command, Kimi, LFM2,
# dots.ocr, Emu3; the bar may be of full width, as in DeepSeek's
CONTROL_TOKENS = (
    Family(
        "LLaVA",
        "haotian-liu/LLaVA llava/constants.py; llava-hf's added_tokens.json",
        _tags("image im_patch im_start im_end image-placeholder video pad s /s unk"),
    ),
    Family(
        "Qwen-VL and Monkey",
        "QwenLM/Qwen-VL tokenization_qwen.py; Yuliang-Liu/Monkey monkey_model/tokenization_qwen.py",
        (*_pairs("img", "ref", "box", "quad"), "<imgpad>"),
        (r"<extra_\d{1,3}>",),
    ),
    Family(
        "Qwen2-VL, Qwen2.5-VL, Qwen3-VL",
        "tokenizer_config.json of Qwen/Qwen2.5-VL-7B-Instruct and Qwen/Qwen3-VL-8B-Instruct",
        _pairs("think", "tool_call", "tool_response"),
    ),
    Family(
        "InternVL",
        "OpenGVLab/InternVL internvl_chat/internvl/train/constants.py",
        (*_tags("IMG_CONTEXT image video"), *_pairs("img", "quad", "ref", "box")),
    ),
    Family("Llama 2, 3 and 4", "meta-llama/llama llama/generation.py", ("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>")),
    Family(
        "Gemma 3 and PaliGemma",
        "google-deepmind/gemma gemma/gm/text/_tokenizer.py; big_vision's paligemma README",
        _tags("bos eos pad unk mask start_of_turn end_of_turn start_of_image end_of_image image_soft_token image"),
        (r"<unused\d{1,4}>", r"<loc\d{1,4}>", r"<seg\d{1,3}>"),
    ),
    Family(
        "Mistral and Pixtral",
        "mistralai/mistral-common src/mistral_common/tokens/tokenizers/base.py",
        (
            *(f"[{slash}{name}]" for name in ("INST", "AVAILABLE_TOOLS", "TOOL_RESULTS") for slash in ("", "/")),
            *(f"[{slash}{name}]" for name in ("SYSTEM_PROMPT", "TOOL_CONTENT", "THINK") for slash in ("", "/")),
            *("[TOOL_CALLS]", "[IMG]", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]"),
            *("[ARGS]", "[CALL_ID]", "[AUDIO]", "[BEGIN_AUDIO]", "<s>", "</s>", "<unk>", "<pad>"),
        ),
        (r"<SPECIAL_\d{1,4}>", r"\[control_\d{1,3}\]"),
    ),
    Family(
        "Florence-2",
        "microsoft/Florence-2-large processing_florence2.py",
        (
            *_pairs("od", "ocr", "poly", "seg", "proposal", "cap", "ncap", "dcap", "grounding"),
            "<sep>",
            "<and>",
            "<obj>",
            "<ground>",
        ),
        (r"<loc_\d{1,4}>", r"</?(?:region_)?(?:cap|to_\w{1,16})>"),
    ),
    Family(
        "SmolVLM and Idefics",
        "HuggingFaceTB/SmolVLM-Instruct and HuggingFaceM4/idefics2-8b added_tokens.json",
        _tags("image fake_token_around_image global-img end_of_utterance"),
        (r"<row_\d{1,2}_col_\d{1,2}>",),
    ),
    Family(
        "GLM and CogVLM",
        "THUDM/GLM-4 tokenizer_config.json",
        ("[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>", *_pairs("answer")),
    ),
    Family("DeepSeek-VL", "deepseek-ai/DeepSeek-VL tokenizer_config.json", _tags("image_placeholder image")),
    Family(
        "MiniCPM-V",
        "openbmb/MiniCPM-V-2_6 tokenizer_config.json",
        _pairs("image", "ref", "box", "quad", "point", "slice", "image_id", "unit", "think"),
    ),
    Family(
        "Molmo",
        "allenai/Molmo-7B-D-0924 preprocessing_molmo.py; transformers models/molmo2",
        _tags("im_start im_end im_patch im_col im_low low_res_im_start frame_start frame_end"),
    ),
    Family(
        "Ovis, Cohere and Nemotron",
        "transformers models/ovis2, models/cohere, models/nemotron_h_omni",
        _tags(
            "IMG_ATOM IMG_START IMG_END IMG_COL IMG_ROW IMG_GRID BOS_TOKEN EOS_TOKEN MASK_TOKEN CLS SEP PAD UNK "
            "EOP_TOKEN so_start so_end so_embedding"
        ),
    ),
    Family(
        "Kosmos-2",
        "microsoft/kosmos-2-patch14-224 tokenizer_config.json",
        (
            *_pairs("image", "phrase", "object", "doc", "chunk", "line"),
            *_tags("grounding /delimiter_of_multi_objects/"),
        ),
        (r"</?patch_index_\d{1,4}>",),
    ),
    Family("Chameleon", "transformers models/chameleon/processing_chameleon.py", ("<racm3:break>", "<eoss>")),
    Family(
        "code models and others with numbered images",
        "bigcode/starcoder tokenizer_config.json; the names of images and of fill-in-the-middle in the field",
        _tags("boi eoi fim_prefix fim_middle fim_suffix fim_pad fim-prefix fim-middle fim-suffix fim-pad"),
        (r"<image_\d{1,4}>",),
    ),
    Family(
        "BLIP-2, BERT and T5",
        "tokenizer_config.json of Salesforce/blip2-opt-2.7b and google-bert/bert-base-uncased",
        ("<image>", "<mask>", "[MASK]", "[CLS]", "[SEP]", "[PAD]", "[UNK]", "[DEC]", "[ENC]"),
        (r"<extra_id_\d{1,3}>",),
    ),
    Family(
        "placeholders of training tools",
        "modelscope/ms-swift swift/template/base.py; hiyouga/LLaMA-Factory src/llamafactory/extras/constants.py",
        _tags("image video audio ref-object bbox cot-process start-image end-image"),
    ),
)
LONGEST = 96  # characters of a control token, with white space within its brackets and characters that are dropped
# a name between bars may have single spaces (Emu3's `<|image start|>`); one with a single bar has letters only
_BARS = r"<\|[^<>\s|]{1,64}(?: [^<>\s|]{1,32}){0,3}\|>|<\|[a-z_]{1,32}>|<[a-z_]{1,32}\|>"
_OPENING, _ENDS = frozenset("<["), frozenset(">]")  # a control token begins with one of these, and ends with another


def _key(folded: str) -> str:
    """What identifies a token: without white space beside its brackets."""
    return f"{folded[0]}{folded[1:-1].strip()}{folded[-1]}"


_KEYS = frozenset(_key(token.casefold()) for family in CONTROL_TOKENS for token in family.tokens)
_NUMBERED = re.compile("|".join([_BARS, *(each.casefold() for family in CONTROL_TOKENS for each in family.patterns)]))


def without_control_tokens(text: str, keep: Collection[str] = ()) -> str:
    """A text without the control tokens of any family, in time proportional to its length.

    keep: tokens that stay, as they are written in CONTROL_TOKENS. What is left contains no token, also none that the
    removal of another one put together: of `<im<img>g>` nothing is left. Upper and lower case, white space beside the
    brackets, characters that a tokenizer may drop, and those that Unicode's compatibility normalization (NFKC) maps to
    these are no difference: SentencePiece's rule `nmt_nfkc` maps them so before it looks for tokens (Kosmos-2, T5).
    """
    # most texts have no bracket
    if text.isascii() and not _OPENING.intersection(text):
        return text
    if not any(_folded(mark) in _ENDS for mark in set(text) if not mark.isalnum()):
        return text
    kept: list[str] = []  # the characters of the result
    folded: list[str] = []  # the same, folded: "" for one that is dropped
    openings: list[int] = []  # where a token may begin in them
    for character in text:
        kept.append(character)
        folded.append(_folded(character))
        if folded[-1] in _OPENING:
            openings.append(len(kept) - 1)
        # a token in the result ends with the last character: remove it before another character is added
        if folded[-1] in _ENDS:
            start = _start_of_token(folded, openings)
            if "".join(kept[start:]) not in keep:
                del kept[start:], folded[start:]
                while openings and openings[-1] >= start:
                    openings.pop()
    return "".join(kept)


def _folded(character: str) -> str:
    """A character as the search sees it: one in lower case, or none where a tokenizer drops it."""
    if character.isascii():
        return character.lower()
    if unicodedata.category(character) == "Cf":
        return ""
    plain = unicodedata.normalize("NFKC", character).casefold()
    return plain if len(plain) == 1 else character


def _start_of_token(folded: list[str], openings: list[int]) -> int:
    """The index at which the token begins that the characters end with; their number if they end with none."""
    # one with double brackets begins one character before the last bracket
    for start in openings[:-3:-1]:
        if len(folded) - start <= LONGEST:
            found = "".join(folded[start:])
            if _key(found) in _KEYS or _NUMBERED.fullmatch(found):
                return start
    return len(folded)
