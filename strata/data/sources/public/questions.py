"""Questions about images as public data sets have them: with one answer, several, or choices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

from strata.data.sources.conversations import Conversation
from strata.data.sources.entries import EntryError, list_of, text_of

Answers = Literal["majority", "first", "all"]
Pages = Literal["found", "first"]
T = TypeVar("T")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Options:
    """How a file is read.

    answers: which of several answers are used: the most frequent one (of equally frequent ones the first), the first,
    or all distinct ones, a sample each. split: the splits to take, none for all. image_name: the name of an image's
    file, with "{}" for its id, "" for the data set's own. choice: what is the answer to a question with choices.
    answerable: leave out what annotators could not answer. pages: ask about the page of a document on which the answer
    is found, or always about the first one.
    """

    answers: Answers = "first"
    split: tuple[str, ...] = ()
    image_name: str = ""
    choice: Literal["letter", "text"] = "letter"
    answerable: bool = False
    pages: Pages = "found"


class Question(NamedTuple):
    """A question of a data set, with all its answers. images: paths below the folder of images, none for text only.

    question: "" for a caption.
    """

    id: str
    images: Sequence[str]
    question: str
    answers: Sequence[str]

    def turns(self, rule: Answers) -> Iterator[list[str]]:
        """The turns of each sample that the question gives under a rule. Raises EntryError if it has no answer."""
        asked = [self.question] if self.question else []
        for answer in chosen(self.answers, rule):
            yield [*asked, answer]


Asked = Question | Conversation  # a conversation is one that is left out, or a bad entry


def parts(name: str, kind: str, items: Iterable[T], parse: Callable[[int, T], Iterator[Asked]]) -> Iterator[Asked]:
    """What `parse` gives for each item of an entry and its number, from 0; a bad item leaves the others as they are.

    An item for which it raises EntryError becomes a bad entry. name: of the entry; kind: what its items are.
    """
    for number, item in enumerate(items):
        try:
            yield from list(parse(number, item))
        except EntryError as error:
            yield Conversation(f"{name}/{number}", [], [], problem=f"{kind} {number + 1}: {error}")


def chosen(answers: Iterable[str], rule: Answers) -> list[str]:
    """The answers that a rule chooses. Raises EntryError if all are empty."""
    given = [answer.strip() for answer in answers if answer.strip()]
    if not given:
        raise EntryError("no answer")
    # most_common keeps the order of equally frequent answers, and a Counter that of the first occurrences
    counts = Counter(given)
    return {"first": given[:1], "majority": [counts.most_common(1)[0][0]], "all": list(counts)}[rule]


def answers_of(entry: Any) -> list[str]:
    """The answers in a list "answers": of texts, or of {"answer": text} as in VQAv2. Raises EntryError."""
    answers = list_of(entry, "answers")
    return [text_of(answer if isinstance(answer, dict) else {"answer": answer}, "answer") for answer in answers]


def with_choices(question: str, choices: Sequence[str], right: int, options: Options) -> tuple[str, str]:
    """A question with its choices, a line each ("A. cat"), and the answer: the right one's letter or text.

    Raises EntryError if the number of the right choice is none of theirs.
    """
    if not 0 <= right < len(choices) <= len(LETTERS):
        raise EntryError(f"the answer is choice {right} of {len(choices)}")
    lines = [f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False)]
    return "\n".join([question, *lines]), LETTERS[right] if options.choice == "letter" else choices[right]


def number_of(entry: Any, name: str) -> int:
    """The whole number in a field. Raises EntryError if there is none."""
    value = entry.get(name) if isinstance(entry, dict) else None
    if not isinstance(value, int) or isinstance(value, bool):
        raise EntryError(f'no number "{name}"')
    return value


def image_named(options: Options, name: str, identifier: str | int) -> str:
    """An image's file name: by the template of the options, else by the data set's own."""
    try:
        return (options.image_name or name).format(identifier)
    except (ValueError, IndexError, KeyError):
        raise EntryError(f"image_name {options.image_name!r} does not fit the id {identifier!r}") from None
