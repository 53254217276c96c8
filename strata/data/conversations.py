"""Conversation files: lists of questions and answers about images, as LLaVA and as Qwen-VL and Monkey write them.

A file is a JSON array or JSON Lines. LLaVA: {"image": PATH, "conversations": [{"from": "human", "value":
"<image>\\nQuestion"}, {"from": "gpt", "value": "Answer"}, …]}. Qwen-VL and Monkey: no "image", but
{"from": "user", "value": "Picture 1: <img>PATH</img>\\nQuestion"}, {"from": "assistant", …}.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

import ijson

ROLES = {"human": 0, "user": 0, "gpt": 1, "assistant": 1}  # the first speaks at even places
IMAGE_TOKEN = "<image>"
_IMG = re.compile(r"(?:Picture \d+: ?)?<img>(.*?)</img>\n?")
_PIECE = 2**16  # bytes parsed at a time


class ConversationError(ValueError):
    """A file or an entry of it that is no conversation about one image; the message is one line that helps."""


class Conversation(NamedTuple):
    """What one entry says: its id, the path of its image, and questions and answers by turns."""

    id: str
    image: str
    turns: list[str]


def read_conversations(file: IO[bytes]) -> Iterator[Conversation]:
    """The conversations of a file, one at a time, however long it is. Raises ConversationError."""
    number = 0
    for number, entry in enumerate(_entries(file), 1):
        try:
            yield _conversation(entry, number)
        except ConversationError as error:
            name = entry.get("id") if isinstance(entry, dict) else None
            told = f"entry {number:,}" if name is None else f"entry {number:,} (id {str(name)[:80]})"
            raise ConversationError(f"{told}: {error}") from None
    if not number:
        raise ConversationError("no conversation is in there")


def _conversation(entry: Any, number: int) -> Conversation:
    said = entry.get("conversations") if isinstance(entry, dict) else None
    if not isinstance(said, list) or not said:
        raise ConversationError('no list "conversations"')
    turns = [_turn(place, turn) for place, turn in enumerate(said)]
    if len(turns) % 2:
        raise ConversationError("the last question has no answer")
    images = [entry["image"]] if isinstance(entry.get("image"), str) else _IMG.findall(" ".join(turns))
    if not images or not images[0]:
        raise ConversationError('no image: neither "image" nor <img>…</img>')
    if len(images) > 1:
        raise ConversationError(f"{len(images)} images, and one is read")
    bare = [_IMG.sub("", turn).replace(IMAGE_TOKEN, "").strip() for turn in turns]
    return Conversation(str(entry.get("id", number)), images[0], bare)


def _turn(place: int, turn: Any) -> str:
    value = turn.get("value") if isinstance(turn, dict) else None
    if not isinstance(value, str):
        raise ConversationError(f'turn {place + 1} has no text "value"')
    if ROLES.get(turn.get("from", "")) != place % 2:
        wanted = ("human or user", "gpt or assistant")[place % 2]
        raise ConversationError(f"turn {place + 1} is from {turn.get('from')!r} instead of {wanted}")
    return value


def _entries(file: IO[bytes]) -> Iterator[Any]:
    """Parse the elements of a JSON array, or the lines of JSON Lines, a piece of the file at a time."""
    start = file.read(_PIECE).lstrip(b"\xef\xbb\xbf \t\r\n")
    if not start:
        return
    array = start.startswith(b"[")
    pieces = itertools.chain([start], iter(lambda: file.read(_PIECE), b""))
    prefix = "item" if array else ""
    number = 0
    try:
        for entry in ijson.items(ijson.from_iter(pieces), prefix, multiple_values=not array, use_float=True):
            number += 1
            yield entry
    except ijson.JSONError as error:
        reason = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else str(error.args[0])
        line = f"entry {number + 1:,} is not JSON: {reason.partition(chr(10))[0]}"
        raise ConversationError(line) from None
