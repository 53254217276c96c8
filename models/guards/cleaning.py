"""Cleaning: removing from a model's text what is not the answer, and keeping every word that is.

Each cleaner takes a text and returns it without one kind of addition: thoughts, special tokens, fences, JSON, HTML,
Markdown, an introduction, quotation marks around the whole. `cleaned` applies them until none changes anything.
"""

from __future__ import annotations

import ast
import html
import json
import re
from collections.abc import Callable
from typing import Any

MAX_PASSES = 8  # of all cleaners: an answer may be JSON in a fence with an introduction within
MAX_JSON = 20_000  # characters

# thoughts


def _tag(names: str, left: str, right: str) -> re.Pattern[str]:
    """A thought between an opening and a closing mark; its opening or its end may be missing."""
    opening, closing = rf"{left}(?:{names}){right}", rf"{left}/(?:{names}){right}"
    return re.compile(rf"(?:\A(?:(?!{opening}).)*?|{opening}.*?)(?:{closing})|{opening}.*\Z", re.S | re.I)


_THOUGHTS = (
    # <think> of Qwen, DeepSeek and GLM, <thinking> of Claude's prompts, <seed:think> of Seed-OSS
    _tag(r"think|thinking|thought|thoughts|reasoning|reflection|scratchpad|seed:think|analysis", "<", r"\s*>"),
    _tag("think", "◁", "▷"),  # Kimi-VL
    _tag("THINK", r"\[", r"\]"),  # Magistral
    re.compile(r"<\|START_THINKING\|>.*?(?:<\|END_THINKING\|>|\Z)", re.S),  # Command A
    re.compile(r"<unused94>.*?(?:<unused95>|\Z)", re.S),  # MedGemma
    # Granite 3
    re.compile(r"\A\s*Here is my thought process:.*?(?:Here is my response:|\Z)", re.S),
)
# gpt-oss ("harmony"): messages in channels, of which only `final` is the answer
_FINAL = re.compile(r".*<\|channel\|>\s*final\b(?:(?!<\|message\|>).)*<\|message\|>", re.S)
_CHANNEL = re.compile(r"(?:<\|start\|>\w*)?<\|channel\|>.*?(?:<\|end\|>|<\|call\|>|<\|return\|>|\Z)", re.S)
# the answer's own frame
_ANSWER = re.compile(
    r"<(answer|response|caption|description|output)>(.*?)(?:</\1>|\Z)|<\|begin_of_box\|>()(.*?)(?:<\|end_of_box\|>|\Z)"
    r"|<\|START_RESPONSE\|>()(.*?)(?:<\|END_RESPONSE\|>|\Z)|\\boxed\{()([^{}]*)\}",
    re.S | re.I,
)


def _without_thoughts(text: str) -> str:
    if "<|channel|>" in text:
        text = _FINAL.sub("", text, count=1) if _FINAL.match(text) else _CHANNEL.sub("", text)
    for thought in _THOUGHTS:
        text = thought.sub("", text)
    return text


def _within_frame(text: str) -> str:
    """What stands within <answer>, \\boxed{} and the like; the text before and after is the way to it."""
    found = _ANSWER.search(text)
    return next(filter(None, reversed(found.groups()[1:])), "") if found else text


# special tokens

# after these, another turn begins
_END_OF_TURN = re.compile(
    r"<\|(?:im_end|endoftext|end|eot_id|eom_id|end_of_text|end_of_turn|return|call|END_OF_TURN_TOKEN)\|>"
    r"|<end_of_turn>|<end_of_utterance>|<eos>|</s>|<｜end▁of▁sentence｜>|<\|user\|>|<\|start_header_id\|>user.*"
    r"|\n(?:User|USER|Human|### ?Instruction|### ?Human)\s*:",
    re.S,
)
_SPECIAL = re.compile(
    r"<\|[A-Za-z][\w:/ -]{0,40}\|>|<[｜|][^<>]{1,40}[｜|]>|</?(?:s|img|ref|box|quad|point)>"
    r"|<(?:pad|unk|mask|bos|eos|cls|sep|sop|eop|image|start_of_turn|end_of_turn|start_of_image|end_of_image)>"
    r"|<(?:fake_token_around_image|row_\d+_col_\d+|global-img)>"
    r"|<(?:loc_|bbox_|unused|extra_id_|reserved_special_token_|seg)\d+>|<0x[0-9A-Fa-f]{2}>"
    r"|\[(?:/?INST|CLS|SEP|PAD|UNK|MASK|IMG|/IMG)\]|<<?/?SYS>>?|<\|?(?:assistant|model)\|?>"
)
_ROLE = re.compile(r"\A\s*(?:<\|?im_start\|?>\s*)?(?:assistant|model|ASSISTANT|Assistant)\s*(?::|\n)\s*")


def _without_special_tokens(text: str) -> str:
    # leave out tokens at the start first, or the answer after them would count as another turn
    text = _ROLE.sub("", _SPECIAL.sub(" ", text[:60]).lstrip() + text[60:] if text[:1] in "<[" else text)
    end = _END_OF_TURN.search(text)
    text = text[: end.start()] if end and text[: end.start()].strip() else text
    # the marks for spaces and line breaks of SentencePiece and of byte-level tokenizers
    return _SPECIAL.sub(" ", text).replace("▁", " ").replace("Ġ", " ").replace("Ċ", "\n")


# wrappers

_FENCE = re.compile(r"(?:```|~~~)[\w+-]*[ \t]*\n?(.*?)(?:```|~~~|\Z)", re.S)
_NAMES: tuple[str, ...] = ("caption", "description", "text", "answer", "response", "content", "output", "result")
_NAMES += ("summary", "paragraph", "detailed_caption", "image_description", "final_answer", "phrase", "name", "object")


def _within_fence(text: str) -> str:
    """The content of the only code block; what stands around a block is talk about it."""
    found = _FENCE.findall(text)
    return found[0] if len(found) == 1 and found[0].strip() else text


def _within_json(text: str) -> str:
    """The text in a JSON value that has one text, or one under a usual name; Python's quotes are read too."""
    stripped = text.strip().lstrip("\ufeff")
    if stripped[:1] not in '{["' or len(stripped) > MAX_JSON:
        return text
    for parse in (json.loads, ast.literal_eval):
        try:
            found = _text_in(parse(stripped))
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            continue
        return text if found is None else found
    # JSON whose end is missing, because the tokens ran out
    cut = re.match(r'\{\s*"(?:' + "|".join(_NAMES) + r')"\s*:\s*"((?:[^"\\]|\\.)*)\Z', stripped, re.S | re.I)
    return re.sub(r"\\(.)", lambda escape: {"n": "\n", "t": " "}.get(escape[1], escape[1]), cut[1]) if cut else text


def _text_in(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return _text_in(value[0]) if len(value) == 1 else None
    if not isinstance(value, dict) or not value:
        return None
    named = [value[key] for key in value if str(key).lower() in _NAMES]
    return _text_in(named[0]) if named else _text_in(next(iter(value.values()))) if len(value) == 1 else None


# markup

_INLINE = re.compile(r"</?(?:b|i|u|em|strong|span|a|font|small|sub|sup|mark|code)(?:\s[^<>]{0,300})?>", re.I)
_BLOCK = re.compile(
    r"<!--.*?-->|</?(?:p|br|div|h[1-6]|ul|ol|li|img|pre|blockquote|center|html|body|head|title|table|tr|td|th|thead"
    r"|tbody|hr|section|article|figure|figcaption|details)(?:\s[^<>]{0,300})?/?>",
    re.S | re.I,
)


def _without_html(text: str) -> str:
    if "<" not in text and "&" not in text:
        return text
    return html.unescape(_BLOCK.sub(" ", _INLINE.sub("", text)))


_MARKDOWN = (
    (re.compile(r"!?\[([^\[\]]*)\]\((?:https?:|/|#|data:|attachment:)[^()\s]*(?:\s[^()]*)?\)"), r"\1"),  # links, images
    (re.compile(r"^[ \t|:-]*---[ \t|:-]*$|^[ \t]*(?:[-*_=][ \t]*){3,}$", re.M), ""),  # rules, also those of a table
    (re.compile(r"(\*\*\*|\*\*|__)([^\s*_](?:.*?[^\s*_])?)\1", re.S), r"\2"),  # bold
    (
        re.compile(r"(?<![\w*])\*([^*\s](?:[^*\n]*?[^*\s])?)\*(?![\w*])|(?<!\w)_([^_\s](?:[^_\n]*?[^_\s])?)_(?!\w)"),
        r"\1\2",
    ),
    (re.compile(r"`([^`\n]+)`"), r"\1"),
    (re.compile(r"^[ \t]{0,3}>[ \t]?", re.M), ""),  # a quotation
    (re.compile(r"^[ \t]*(?:[-*+•‣▪–]|\d{1,2}[.)])[ \t]+(?=\S)", re.M), ""),  # items of a list
)
# a heading is no sentence; the only line, or one that ends as a sentence does, may be the answer
_HEADING = re.compile(r"^[ \t]{0,3}#{1,6}[ \t]+(.*?)[ \t]*#*$", re.M)


def _without_markdown(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    headings = [line for line in lines if _HEADING.match(line)]
    if headings:
        alone = len(headings) == len(lines)
        text = _HEADING.sub(lambda heading: heading[1] if alone or heading[1].endswith((".", "!", "。")) else "", text)
    for pattern, replacement in _MARKDOWN:
        text = pattern.sub(replacement, text)
    return text


# introductions, and what is said after the answer

_NOUN = r"(?:caption|description|answer|response|paragraph|summary|phrase|result|output|noun phrase|version|text)"
_KIND = (
    r"(?:image|picture|photo|photograph|scene|detailed|short|brief|final|possible|concise|merged|combined|single|full)"
)
_YES = r"(?:sure|certainly|of course|absolutely|okay|ok|great|understood|alright)"
_INTRODUCTIONS = tuple(
    re.compile(rf"\A\W{{0,3}}(?:{pattern})", re.I | re.S)
    for pattern in (
        # "Sure! Here is a detailed caption for the image:"
        rf"(?:{_YES}[^\n:.!]{{0,40}}[.!,:]\s*)?"
        r"(?:here(?:'s|’s| is| are| you go)|this is|below is|the following is)\b[^\n.:]{0,120}?"
        rf"\b{_NOUN}s?\b[^\n.:]{{0,120}}:\s+",
        rf"{_YES}(?: thing| question)?[.!]\s+(?=\S)",
        r"here (?:it is|you go|we go)[.:!]\s+",
        # "Image description:"
        rf"(?:(?:a|the|my) )?(?:{_KIND}\s+){{0,3}}{_NOUN}(?: of the (?:image|picture|photo|scene))?(?: is)?"
        r"\s*(?:\([^()\n]{1,40}\))?\s*[:：]\s*",
        r"(?:based on|according to|given|from|using) the (?:notes|observations|observers|information|provided)"
        r"[^,:\n.]{0,80}[,:]\s*",
        r"(?:assistant|model|ai|bot|gpt)\s*[:：]\s+",
        r"(?:voici|hier ist|hier sind|aquí (?:está|tienes)|ecco|aqui está|вот)\b[^\n.:]{0,100}:\s+",
        r"(?:die )?(?:beschreibung|bildbeschreibung|descripción|descrizione|légende|leyenda|описание|подпись)\s*:\s+",
        r"(?:以下是|这是|好的，)?[^\n。：]{0,20}(?:描述|说明|標題|标题|字幕|キャプション|説明|설명|캡션)(?:如下|です)?\s*[:：]\s*",
    )
)
_AFTERWORDS = re.compile(
    r"(?:(?<=[.!?。\"”])|\n)\s*(?:---|\[?end\]?\s*\Z|\(?\s*note\s*:|\(?word count\b|\(?\d+ words\)"
    r"|(?:please )?let me know\b|i hope (?:this|that)\b|hope (?:this|that) helps\b|feel free to\b"
    r"|if you (?:need|want|would like|have)\b|would you like\b|do you want\b|is there anything\b|can i help\b"
    r"|(?:the )?(?:above|this) (?:caption|description|paragraph) "
    r"(?:is|was|merges|combines|captures|includes|uses|contains|has)\b"
    r"|¿(?:quieres|te gustaría)|n'hésitez|dites-moi|lass(?:en sie)? (?:mich|es mich) wissen).*\Z",
    re.I | re.S,
)


def _without_introduction(text: str) -> str:
    for introduction in _INTRODUCTIONS:
        shorter = introduction.sub("", text, count=1)
        if shorter.strip():
            text = shorter
    return text


def _without_afterword(text: str) -> str:
    shorter = _AFTERWORDS.sub("", text, count=1)
    return shorter if shorter.strip() else text


# quotation marks and characters

_PAIRS = {
    '"': '"',
    "“": "”",
    "„": "“”",
    "«": "»",
    "「": "」",
    "『": "』",
    "'": "'",
    "‘": "’",
    "`": "`",
    "”": "”",
    "*": "*",
    "(": ")",
    "[": "]",
}


def _without_quotes(text: str) -> str:
    """The text without one pair of quotation marks or brackets around the whole of it."""
    stripped = text.strip()
    if len(stripped) < 3 or stripped[0] not in _PAIRS:
        return text
    inner, closing = stripped[1:-1], _PAIRS[stripped[0]]
    # a full stop may stand behind the closing mark
    if stripped[-1] == "." and stripped[-2] in closing:
        inner = stripped[1:-2] + "."
    elif stripped[-1] not in closing:
        # a mark that is never closed, because the tokens ran out
        return stripped[1:] if stripped[0] in '"“„«' and not any(mark in stripped[1:] for mark in closing) else text
    # "A" and "B": two quotations; apostrophes within 'it's' are none
    same = [mark for mark in {stripped[0], *closing} if mark in inner]
    return text if same and stripped[0] not in "'‘" else text if re.search(r"'\s+\S.*\s'", inner) else inner


# invisible characters, but for the joiners of Persian, Indic scripts and emoji
_INVISIBLE = re.compile("[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_BLANKS, _EMPTY_LINES, _RUNS = re.compile(r"[^\S\n]+"), re.compile(r"\s*\n\s*\n\s*"), re.compile(r"(\S)\1{49,}")


def printable(text: str) -> str:
    """The text without control characters, invisible ones and halves of surrogate pairs."""
    # two halves, which JSON escapes can give, are one character; a single half is none
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "ignore")
    return _CONTROL.sub(" ", _INVISIBLE.sub("", text)).replace("\ufffd", "")


_ENTITY = re.compile(r"&(?=#?\w+;)")
_MARKED = re.compile(rf"{_END_OF_TURN.pattern}|{_SPECIAL.pattern}|</?[A-Za-z!][^<>]*>", re.S)


def quotable(text: str) -> str:
    """A line that was read in an image, as it can stand between double quotes in a prompt or in a description.

    The marks of special tokens and of HTML become spaces: a guard takes them away from what a model has written, and
    the sentence would break off ("A sign that says <end>"). The letters stay.
    """
    text = _ENTITY.sub("& ", printable(text).replace('"', "'"))
    before = None
    while text != before:
        before, text = text, _MARKED.sub(lambda mark: re.sub(r"[<>|｜\[\]]", " ", mark[0]), text)
    return " ".join(text.split())


def _squeezed(text: str) -> str:
    """The text with short runs of white space and of any other character: patterns search long ones for too long."""
    return _RUNS.sub(lambda run: run[1] * 50, _EMPTY_LINES.sub("\n\n", _BLANKS.sub(" ", text)))


_CLEANERS: tuple[Callable[[str], str], ...] = (
    printable,
    _squeezed,
    _without_thoughts,
    _within_frame,
    _without_special_tokens,
    _squeezed,
    _within_fence,
    _within_json,
    _without_html,
    _without_afterword,
    _without_markdown,
    _without_introduction,
    _without_quotes,
)


def cleaned(text: str) -> str:
    """The answer in a model's text, in one line; "" if there is none."""
    for _ in range(MAX_PASSES):
        before = text
        for clean in _CLEANERS:
            text = clean(text)
        if text == before:
            break
    return " ".join(text.split())
