"""Truths from annotation files: COCO's instances (and files in its form), and Visual Genome's.

The form is found by the content. Files of Visual Genome have hundreds of megabytes, so they are read image by image,
and only what is annotated of the images that are evaluated is kept.
"""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import ijson

from strata.core import Box, Record
from strata.errors import InvalidInput
from strata.evaluation.mentions import RELATIONS, colour_of
from strata.evaluation.truth import Thing, Truth, TruthSet, vocabulary_of

# how COCO's kinds are called beside their names: after the list of CHAIR (Rohrbach et al., 2018), shortened to words
# that mean the kind alone
COCO_SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "person": tuple(
        "man woman child boy girl lady guy gentleman kid baby toddler adult player skier surfer snowboarder "
        "skateboarder skater rider cyclist biker pedestrian batter catcher pitcher worker passenger driver".split()
    ),
    "bicycle": ("bike",),
    "car": ("automobile", "sedan", "suv", "taxi", "hatchback", "minivan"),
    "motorcycle": ("motorbike", "scooter", "moped"),
    "airplane": ("plane", "aeroplane", "jet", "aircraft", "jetliner", "airliner", "biplane"),
    "train": ("locomotive", "tram"),
    "truck": ("lorry", "pickup", "firetruck"),
    "boat": ("ship", "sailboat", "canoe", "kayak", "ferry", "yacht", "rowboat", "speedboat", "raft"),
    "traffic light": ("stoplight", "traffic signal", "stop light"),
    "fire hydrant": ("hydrant",),
    "bird": ("pigeon", "seagull", "gull", "duck", "goose", "parrot", "owl", "swan", "eagle", "penguin", "ostrich"),
    "cat": ("kitten", "kitty"),
    "dog": ("puppy", "pup"),
    "horse": ("pony", "foal", "mare", "stallion"),
    "sheep": ("lamb", "ram", "ewe"),
    "cow": ("cattle", "bull", "calf", "ox", "steer", "oxen"),
    "bear": ("grizzly", "cub", "polar bear"),
    "backpack": ("rucksack", "knapsack"),
    "handbag": ("purse", "wallet", "hand bag"),
    "tie": ("necktie", "bow tie"),
    "suitcase": ("luggage", "suit case"),
    "skis": ("ski",),
    "sports ball": ("ball", "football", "soccer ball", "tennis ball", "basketball", "baseball"),
    "skateboard": ("skate board",),
    "surfboard": ("surf board",),
    "tennis racket": ("racket", "racquet", "tennis racquet"),
    "wine glass": ("wineglass", "goblet"),
    "cup": ("mug", "teacup"),
    "donut": ("doughnut",),
    "hot dog": ("hotdog",),
    "chair": ("stool", "armchair", "recliner"),
    "couch": ("sofa", "loveseat", "settee"),
    "potted plant": ("houseplant", "flowerpot", "potted flower"),
    "dining table": ("table", "desk"),
    "toilet": ("urinal",),
    "tv": ("television", "tv monitor", "monitor", "television set"),
    "laptop": ("notebook computer", "laptop computer"),
    "mouse": ("computer mouse",),
    "remote": ("remote control", "controller"),
    "cell phone": ("phone", "mobile phone", "smartphone", "cellphone", "telephone"),
    "microwave": ("microwave oven",),
    "oven": ("stove",),
    "refrigerator": ("fridge",),
    "vase": ("urn",),
    "teddy bear": ("teddy", "stuffed bear"),
    "hair drier": ("hair dryer", "blow dryer", "hairdryer"),
}
# words of two nouns of which the first or the last names no such thing: after CHAIR's list of double words
NO_THINGS = (
    "toilet paper",
    "toilet seat",
    "baby carriage",
    "car seat",
    "train track",
    "train station",
    "bus stop",
    "bus station",
    "dog house",
    "bear cub",
    "mouse pad",
    "table tennis",
    "table cloth",
    "home plate",
    "tv show",
)


@dataclass
class _Annotated:
    """What files tell of one image. id: the image's in the file; objects: the index of each by its id."""

    size: tuple[int, int] | None = None
    things: list[Thing] = field(default_factory=list)
    objects: dict[Any, int] = field(default_factory=dict)
    attributes: defaultdict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    relations: list[tuple[int, str, int]] = field(default_factory=list)


class Names:
    """Finds the record of an annotated image: by its file's name, with or without folders and extension, or its id.

    An id alone counts only if it is the whole name: the keys of img2dataset are numbers too, but of other images.
    """

    def __init__(self, records: Iterable[Record]) -> None:
        self._keys: dict[str, str] = {}
        for record in records:
            for name in (record.key, posixpath.basename(record.key), posixpath.basename(record.image.uri)):
                self._keys.setdefault(_stem(name), record.key)

    def of(self, file_name: str | None, image_id: object) -> str | None:
        """The key of the record of an image in a file, None if it is none of them."""
        if not file_name:
            return self._keys.get(str(image_id))
        return self._keys.get(_stem(file_name)) or self._keys.get(_stem(posixpath.basename(file_name)))


def _stem(name: str) -> str:
    """A name without its extension; of COCO's names of 2014 only the number, which they share with those of 2017."""
    stem, dot, extension = name.rpartition(".")
    stem = stem if dot and extension.isalnum() and len(extension) <= 4 and not extension.isdigit() else name
    return re.sub(r"^COCO_[a-z]+\d{4}_(?=\d{12}$)", "", stem)


Advance = Callable[[int, int], None]  # bytes of a file that are read, and all


def annotated_truths(path: Path, records: Sequence[Record], advance: Advance = lambda done, all: None) -> TruthSet:
    """The truths of those records that a file annotates. Raises InvalidInput for another file, and OSError."""
    names, size = Names(records), path.stat().st_size
    with path.open("rb") as file:
        first = file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
        if first not in (b"{", b"["):
            raise InvalidInput(f"{path}: neither COCO's instances nor annotations of Visual Genome, which are JSON")
        form = _coco if first == b"{" else _visual_genome
        try:
            found = form(_Reading(path, file, size, advance), names)
        except (ijson.JSONError, LookupError, TypeError, ValueError, AttributeError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise InvalidInput(f"{path}: it cannot be read as annotations: {reason}") from error
    if not found.truths:
        example = records[0].key if records else "none"
        raise InvalidInput(f"{path}: it annotates none of the images that are evaluated, such as {example[:100]!r}")
    return found


class _Reading:
    """Reads the items of lists in a JSON file one after another, and tells how far it is."""

    def __init__(self, path: Path, file: IO[bytes], size: int, advance: Advance) -> None:
        self.path, self._file, self._size, self._advance = path, file, size, advance

    def items(self, prefix: str) -> Iterator[Any]:
        self._file.seek(0)
        for number, item in enumerate(ijson.items(self._file, prefix, use_float=True)):
            if number % 1000 == 0:
                self._advance(self._file.tell(), self._size)
            yield item


# COCO


def _coco(reading: _Reading, names: Names) -> TruthSet:
    """Instances: images, categories and annotations with `bbox` as x, y, width, height."""
    kinds = {one["id"]: one for one in reading.items("categories.item")}
    if not kinds:
        raise InvalidInput(f"{reading.path}: it has no categories; captions are for --references")
    called = {number: _plain(one["name"]) for number, one in kinds.items()}
    images: dict[Any, str] = {}
    found: dict[str, _Annotated] = {}
    allowed: dict[str, frozenset[str]] = {}
    for image in reading.items("images.item"):
        file_name = image.get("file_name") or posixpath.basename(str(image.get("coco_url", "")))
        if key := names.of(file_name, image["id"]):
            images[image["id"]] = key
            found[key] = _Annotated((image["width"], image["height"]))
            allowed[key] = _unjudged(image, called)
    for one in reading.items("annotations.item"):
        if one["image_id"] in images:
            crowd = bool(one.get("iscrowd"))
            thing = Thing(called[one["category_id"]], _box(*one["bbox"]), crowd=crowd)
            found[images[one["image_id"]]].things.append(thing)
    synonyms: dict[str, Collection[str]] = {}
    for number, name in called.items():
        own = [_plain(word) for word in kinds[number].get("synonyms", ())]
        synonyms[name] = [*own, *COCO_SYNONYMS.get(name, ())]
    truths = {
        key: Truth(tuple(one.things), size=one.size, known=frozenset({"counts"}), allowed=allowed[key])
        for key, one in found.items()
    }
    return TruthSet(truths, vocabulary_of(truths.values(), synonyms, NO_THINGS), reading.path.name)


def _unjudged(image: Mapping[str, Any], called: Mapping[int, str]) -> frozenset[str]:
    """The kinds of which nobody knows whether they are in an image: LVIS names those that were looked for in vain.

    Those that are annotated are in the image, and are judged whatever this says.
    """
    if "neg_category_ids" not in image:
        return frozenset()
    absent = set(image["neg_category_ids"])
    return frozenset(name for number, name in called.items() if number not in absent)


def _plain(name: str) -> str:
    """A category's name as words: LVIS has "bow_(decorative_ribbons)"."""
    return re.sub(r"\(.*?\)", "", name.replace("_", " ")).strip().lower()


def _box(x: float, y: float, width: float, height: float) -> Box:
    return float(x), float(y), float(x) + float(width), float(y) + float(height)


# Visual Genome


def _visual_genome(reading: _Reading, names: Names) -> TruthSet:
    """Objects, attributes, relationships, scene graphs: a list of images with `image_id`."""
    found: dict[str, _Annotated] = {}
    for image in reading.items("item"):
        number = image.get("image_id", image.get("id"))
        key = names.of(posixpath.basename(str(image.get("url", ""))) or None, number) or names.of(None, number)
        if key is None:
            continue
        one = found.setdefault(key, _Annotated())
        if image.get("width") and image.get("height"):
            one.size = int(image["width"]), int(image["height"])
        for thing in (*image.get("objects", ()), *image.get("attributes", ())):
            _object(one, thing)
        for relation in image.get("relationships", ()):
            _relationship(one, relation)
    truths = {key: _truth(one) for key, one in found.items() if one.things}
    return TruthSet(truths, vocabulary_of(truths.values(), {}), reading.path.name)


def _object(one: _Annotated, entry: Mapping[str, Any]) -> int | None:
    """The index of an object, which is added if it is new; None for one without a name."""
    number = entry.get("object_id", entry.get("id"))
    if number not in one.objects:
        named = entry.get("names") or [entry.get("name") or ""]
        name = " ".join(str(named[0]).lower().split())
        if not name:
            return None
        one.objects[number] = len(one.things)
        one.things.append(Thing(name, _box(entry["x"], entry["y"], entry["w"], entry["h"])))
    place = one.objects[number]
    told = entry.get("attributes") or ()
    one.attributes[place] |= {colour_of(str(word).lower().strip()) for word in told}
    return place


def _relationship(one: _Annotated, entry: Mapping[str, Any]) -> None:
    """A relation of objects that are in it (relationships.json), or that are named by their ids (scene_graphs.json)."""
    if "subject" in entry:
        places = [_object(one, entry[side]) for side in ("subject", "object")]
    else:
        places = [one.objects.get(entry[f"{side}_id"]) for side in ("subject", "object")]
    predicate = " ".join(str(entry.get("predicate", "")).lower().split())
    subject, other = places
    if subject is not None and other is not None and predicate in RELATIONS:
        one.relations.append((subject, RELATIONS[predicate], other))


def _truth(one: _Annotated) -> Truth:
    things = tuple(
        thing._replace(attributes=frozenset(one.attributes[place])) for place, thing in enumerate(one.things)
    )
    return Truth(things, (), tuple(dict.fromkeys(one.relations)), frozenset({"attributes"}), one.size)
