"""Read conversation files: questions and answers about images, in the formats of LLaVA, Qwen-VL and Monkey.

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

from strata.errors import DataError

ROLES = {"human": 0, "user": 0, "gpt": 1, "assistant": 1}  # parity of the turn: questions have even indexes
IMAGE_TOKEN = "<image>"
_IMG = re.compile(r"(?:Picture \d+: ?)?<img>(.*?)</img>\n?")
_PIECE = 2**16  # bytes parsed at a time


class ConversationError(DataError, ValueError):
    """A file or one of its entries is not a conversation about one image. The message is one line."""


class Conversation(NamedTuple):
    """One entry: its id, the path of its image, and alternating questions and answers."""

    id: str
    image: str
    turns: list[str]


def read_conversations(file: IO[bytes]) -> Iterator[Conversation]:
    """Yield the conversations of a file one at a time, so that a file of any length can be read.

    Raises ConversationError.
    """
    number = 0
    for number, entry in enumerate(_entries(file), 1):
        try:
            yield _conversation(entry, number)
        except ConversationError as error:
            # name the entry by its number, and by its id if it has one
            name = entry.get("id") if isinstance(entry, dict) else None
            where = f"entry {number:,}" if name is None else f"entry {number:,} (id {str(name)[:80]})"
            raise ConversationError(f"{where}: {error}") from None
    if not number:
        raise ConversationError("the file contains no conversations")


def _conversation(entry: Any, number: int) -> Conversation:
    # the turns must be texts with alternating roles, and end with an answer
    given = entry.get("conversations") if isinstance(entry, dict) else None
    if not isinstance(given, list) or not given:
        raise ConversationError('no list "conversations"')
    turns = [_turn(index, turn) for index, turn in enumerate(given)]
    if len(turns) % 2:
        raise ConversationError("the last question has no answer")
    # the image is a field of the entry (LLaVA), or a tag in the texts (Qwen-VL, Monkey)
    images = [entry["image"]] if isinstance(entry.get("image"), str) else _IMG.findall(" ".join(turns))
    if not images or not images[0]:
        raise ConversationError('no image: neither "image" nor <img>…</img>')
    if len(images) > 1:
        raise ConversationError(f"{len(images)} images, but exactly one is supported")
    # the reader returns image and texts separately, so the tags and tokens are removed from the texts
    bare = [_IMG.sub("", turn).replace(IMAGE_TOKEN, "").strip() for turn in turns]
    return Conversation(str(entry.get("id", number)), images[0], bare)


def _turn(index: int, turn: Any) -> str:
    value = turn.get("value") if isinstance(turn, dict) else None
    if not isinstance(value, str):
        raise ConversationError(f'turn {index + 1} has no text "value"')
    if ROLES.get(turn.get("from", "")) != index % 2:
        wanted = ("human or user", "gpt or assistant")[index % 2]
        raise ConversationError(f"turn {index + 1} is from {turn.get('from')!r} instead of {wanted}")
    return value


def _entries(file: IO[bytes]) -> Iterator[Any]:
    """Parse the elements of a JSON array, or the lines of JSON Lines, while the file is read in pieces."""
    start = file.read(_PIECE).lstrip(b"\xef\xbb\xbf \t\r\n")
    if not start:
        return
    # the first character distinguishes the two formats
    array = start.startswith(b"[")
    pieces = itertools.chain([start], iter(lambda: file.read(_PIECE), b""))
    prefix = "item" if array else ""
    number = 0
    try:
        for entry in ijson.items(ijson.from_iter(pieces), prefix, multiple_values=not array, use_float=True):
            number += 1
            yield entry
    except ijson.JSONError as error:
        # some of ijson's messages are bytes, and have several lines
        reason = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else str(error.args[0])
        line = f"entry {number + 1:,} is not JSON: {reason.partition(chr(10))[0]}"
        raise ConversationError(line) from None
