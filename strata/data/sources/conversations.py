"""Read conversation files: questions and answers about images, in the formats of LLaVA, Qwen-VL, Monkey and OpenAI.

A file is a JSON array or JSON Lines. LLaVA: {"image": PATH, "conversations": [{"from": "human", "value":
"<image>\\nQuestion"}, {"from": "gpt", "value": "Answer"}, …]}; "image" may be a list, or absent for text only. Qwen-VL
and Monkey: no "image", but {"from": "user", "value": "Picture 1: <img>PATH</img>\\nQuestion"}, {"from":
"assistant", …}. OpenAI, TRL, LLaMA-Factory and ms-swift: {"messages": [{"role": "user", "content": "<image>Question"},
{"role": "assistant", …}], "images": [PATH]}; a content may also be a list of parts. A first turn may be "system".
An image may also be in the entry itself: a URL data:image/…;base64,… or, in Parquet files, {"bytes", "path"}.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any, NamedTuple

from strata.counts import counted
from strata.data.control_tokens import without_control_tokens
from strata.data.sources.entries import EntryError, json_entries
from strata.data.sources.images_inside import MOST_BYTES, decoded_url

ROLES = {"human": 0, "user": 0, "gpt": 1, "assistant": 1}  # parity of the turn: questions have even indexes
IMAGE_TOKEN = "<image>"
MARKUP = ("<ref>", "</ref>", "<box>", "</box>", "<quad>", "</quad>")  # of grounded answers; not taken out of them
_IMG = re.compile(r"(?:Picture \d+: ?)?<img>(.*?)</img>\n?")
_TOKENS = re.compile(r"<image>|<\|image\|>")  # of LLaVA and the others; of mPLUG-DocOwl


class Conversation(NamedTuple):
    """One entry: its id, its images, alternating questions and answers, and its system turn or "".

    An image is a path, or its bytes. With several images the turns have IMAGE_TOKEN at the place of each. problem: why
    it cannot be used, else "". left_out: that is no fault of the entry.
    """

    id: str
    images: Sequence[str | bytes]
    turns: list[str]
    system: str = ""
    problem: str = ""
    left_out: bool = False


class _Turn(NamedTuple):
    role: str
    text: str


def read_conversations(file: IO[bytes]) -> Iterator[Conversation]:
    """Yield the conversations of a file one at a time, so that a file of any length can be read.

    An entry that is none has a `problem`. Raises EntryError if the file is not JSON.
    """
    return _read(file, llava)


def _read(file: IO[bytes], parse: Callable[[Any], Conversation]) -> Iterator[Conversation]:
    for number, entry in enumerate(json_entries(file), 1):
        try:
            conversation = parse(entry)
            yield conversation if conversation.id else conversation._replace(id=str(number))
        except EntryError as error:
            yield Conversation(str(number), [], [], problem=f"{named(entry, number)}: {error}")


def named(entry: Any, number: int) -> str:
    """An entry by its number, and by its id if it has one."""
    name = entry.get("id") if isinstance(entry, dict) else None
    return f"entry {number:,}" if name is None else f"entry {number:,} (id {str(name)[:80]})"


def llava(entry: Any) -> Conversation:
    """Parse an entry of LLaVA, Qwen-VL or Monkey. Raises EntryError."""
    given = entry.get("conversations") if isinstance(entry, dict) else None
    if not isinstance(given, list) or not given:
        raise EntryError('no list "conversations"')
    turns = [_turn(index, turn, "from", "value") for index, turn in enumerate(given)]
    # the images are a field of the entry (LLaVA), or tags in the texts (Qwen-VL, Monkey)
    images = _images(entry, "image", "images")
    if not images:
        images = [_image(path) for turn in turns for path in _IMG.findall(turn.text)]
        turns = [turn._replace(text=_IMG.sub(IMAGE_TOKEN if len(images) > 1 else "", turn.text)) for turn in turns]
    return _conversation(str(entry.get("id", "")), images, turns)


def messages(entry: Any) -> Conversation:
    """Parse an entry with `messages`, and `images` or `image`. Raises EntryError."""
    given = entry.get("messages") if isinstance(entry, dict) else None
    if not isinstance(given, list) or not given:
        raise EntryError('no list "messages"')
    inside: list[str | bytes] = []
    turns = []
    for index, turn in enumerate(given):
        flat = {**turn, "content": _flat(turn.get("content"), inside)} if isinstance(turn, dict) else turn
        turns.append(_turn(index, flat, "role", "content"))
    _refuse_places(entry, turns)
    return _conversation(str(entry.get("id", "")), _images(entry, "images", "image") or inside, turns)


def _refuse_places(entry: dict[str, Any], turns: list[_Turn]) -> None:
    """Raise EntryError if ms-swift is to write boxes into the texts, in the form of the model that it trains."""
    found = next((token for token in ("<bbox>", "<ref-object>") if any(token in turn.text for turn in turns)), None)
    if found and entry.get("objects"):
        raise EntryError(f"{found} in its texts stands for a place that only ms-swift writes; export with --boxes FORM")


def _flat(content: Any, images: list[str | bytes]) -> Any:
    """A content of parts as one text, with IMAGE_TOKEN for each image, which goes to `images` if it is there."""
    if not isinstance(content, list):
        return content
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind in ("image", "image_url"):
            texts.append(IMAGE_TOKEN)
            path = part.get(kind)
            try:
                images += [_image(path)] if path else []
            except TypeError:
                raise EntryError(f"a part of the type {kind!r} without a path") from None
        else:
            raise EntryError(f"a part of the type {kind!r}; text, image and image_url can be read")
    return "".join(texts)


def _turn(index: int, turn: Any, role: str, text: str) -> _Turn:
    value = turn.get(text) if isinstance(turn, dict) else None
    if not isinstance(value, str):
        raise EntryError(f'turn {index + 1} has no text "{text}"')
    return _Turn(str(turn.get(role, "")), value)


def _images(entry: dict[str, Any], *names: str) -> list[str | bytes]:
    """The images in the first field that has some: one, or a list."""
    for name in names:
        value = entry.get(name)
        given = value if isinstance(value, list) else [value] if value else []
        try:
            images = [_image(image) for image in given]
        except TypeError:
            raise EntryError(f'"{name}" is not a path, nor a list of paths') from None
        if images:
            return images
    return []


def _image(value: Any) -> str | bytes:
    """A path, or the bytes of an image that is given as a `data:` URL, bytes, or {"bytes", "path"}.

    Raises EntryError, and TypeError if it is something else.
    """
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path") or value.get("url")
    if isinstance(value, bytes) and len(value) > MOST_BYTES:
        raise EntryError(f"its image in the entry itself has more than {MOST_BYTES:,} bytes")
    if not isinstance(value, str | bytes) or not value:
        raise TypeError
    return decoded_url(value) if isinstance(value, str) and value[:5].lower() == "data:" else value


def _conversation(name: str, images: list[str | bytes], turns: list[_Turn]) -> Conversation:
    # a first system turn stands by itself; the others alternate and end with an answer
    system = turns[0].text.strip() if turns[0].role == "system" else ""
    spoken = _joined(turns[1:] if turns[0].role == "system" else turns)
    for index, turn in enumerate(spoken):
        if ROLES.get(turn.role) != index % 2:
            wanted = ("human or user", "gpt or assistant")[index % 2]
            raise EntryError(f"turn {index + 1} is from {turn.role!r} instead of {wanted}")
    if not spoken or len(spoken) % 2:
        raise EntryError("the last question has no answer")
    return Conversation(name, images, _placed([turn.text for turn in spoken], len(images)), system)


def _joined(turns: list[_Turn]) -> list[_Turn]:
    """Join a turn that is only an image with the next one of the same role, as UReader separates them."""
    joined: list[_Turn] = []
    for turn in turns:
        if joined and joined[-1].role == turn.role and not _TOKENS.sub("", joined[-1].text).strip():
            joined[-1] = turn._replace(text=f"{joined[-1].text}\n{turn.text}")
        else:
            joined.append(turn)
    return joined


def _placed(texts: list[str], images: int) -> list[str]:
    """The texts with IMAGE_TOKEN at the places of several images; one image is before all texts, and has no token."""
    places = sum(len(_TOKENS.findall(question)) for question in texts[::2])
    if images == 0 and places:
        raise EntryError('no image: neither "image" nor <img>…</img>, but <image> in its text')
    # LLaMA-Factory and ms-swift refuse such an entry too; without places the images are before the first question
    if images and places not in (0, images):
        raise EntryError(f"{counted(images, 'image')}, but {counted(places, 'place')} for them in its questions")
    bare = [_TOKENS.sub("", text).strip() for text in texts]
    if images < 2:
        return bare
    if not places:
        return [f"{IMAGE_TOKEN * images}\n{bare[0]}", *bare[1:]]
    # between the places no other control token may become a further one
    pieces = [[without_control_tokens(piece, keep=MARKUP) for piece in _TOKENS.split(text)] for text in texts[::2]]
    questions = [IMAGE_TOKEN.join(parts).strip() for parts in pieces]
    return [turn for pair in zip(questions, bare[1::2], strict=True) for turn in pair]


def qwen_vqa(entry: Any) -> Conversation:
    """Parse a line of Qwen-VL's files of questions: {"image", "question", "answer"}. Raises EntryError."""
    answer = entry.get("answer") if isinstance(entry, dict) else None
    answer = answer[0] if isinstance(answer, list) and answer else answer
    question = entry.get("question") if isinstance(entry, dict) else None
    if not isinstance(answer, str) or not isinstance(question, str):
        raise EntryError('no texts "question" and "answer"')
    turns = [_Turn("user", question), _Turn("assistant", answer)]
    return _conversation(str(entry.get("question_id", "")), _images(entry, "image"), turns)
