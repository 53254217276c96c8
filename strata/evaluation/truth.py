"""The truth of an image as an evaluation uses it, whatever file it was read from."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Literal, NamedTuple

from strata.core import Box
from strata.evaluation.mentions import Vocabulary

Known = Literal["attributes", "counts", "text", "relations"]


class Thing(NamedTuple):
    """One thing in an image. attributes: those that are known, its colour among them.

    judged: whether texts are expected to name it, and whether naming it can be an invention. crowd: whether it stands
    for many of its kind, as COCO's `iscrowd`, so that they cannot be counted.
    """

    name: str
    box: Box | None = None
    attributes: frozenset[str] = frozenset()
    judged: bool = True
    crowd: bool = False


class Truth(NamedTuple):
    """What is in an image. Boxes are in pixels of an image of `size` (width, height); None: of the described image.

    texts: the words that can be read. relations: (index of a thing, predicate, index of a thing), beside those that
    follow from boxes. known: of what the truth knows everything: what it does not know is not judged. allowed: names
    that may be there or not.
    """

    things: tuple[Thing, ...] = ()
    texts: tuple[str, ...] = ()
    relations: tuple[tuple[int, str, int], ...] = ()
    known: frozenset[Known] = frozenset()
    size: tuple[int, int] | None = None
    allowed: frozenset[str] = frozenset()

    def scaled(self, width: int | None, height: int | None) -> Truth:
        """The same truth for an image that was resized to this size."""
        if self.size is None or not width or not height or self.size == (width, height):
            return self
        across, down = width / self.size[0], height / self.size[1]
        things = tuple(
            thing._replace(box=_scaled(thing.box, across, down)) if thing.box else thing for thing in self.things
        )
        return self._replace(things=things, size=(width, height))


def _scaled(box: Box, across: float, down: float) -> Box:
    return box[0] * across, box[1] * down, box[2] * across, box[3] * down


class TruthSet(NamedTuple):
    """The truths of images by their keys, the vocabulary in which they are told, and where they come from."""

    truths: Mapping[str, Truth]
    vocabulary: Vocabulary
    origin: str


def vocabulary_of(
    truths: Iterable[Truth], synonyms: Mapping[str, Collection[str]], no_things: Collection[str] = ()
) -> Vocabulary:
    """A vocabulary of all names and attributes of truths, with the synonyms of names, and words that name nothing."""
    names: dict[str, Collection[str]] = {name: synonyms.get(name, ()) for name in synonyms}
    attributes: set[str] = set()
    for truth in truths:
        for thing in truth.things:
            names.setdefault(thing.name, ())
            attributes |= thing.attributes
    return Vocabulary.of(names, attributes, no_things)
