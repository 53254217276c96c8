"""English words by WordNet 3.0: parts of speech, the senses of nouns, and what each is a kind or a part of.

`python -m models.verifier.lexicon FOLDER` writes `lexicon.txt.gz`; FOLDER is WordNet's, `/usr/share/wordnet` of
Debian's package wordnet-base. Its licence is in `lexicon.LICENSE`. The file has three sections, divided by empty lines:
senses (what they are kinds of; what they are parts of), words (parts of speech, the more frequent first; the first
senses as a noun, 0 for one that is no physical thing and no group), and irregular forms.
"""

from __future__ import annotations

import functools
import gzip
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.kinds.nouns import SINGULARS

FILE = Path(__file__).with_name("lexicon.txt.gz")
SENSES = 4  # of a noun that are kept; WordNet orders them by frequency
_ROOTS = ("n00001930", "n00031264")  # physical entity, group
_PARTS = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}
_LONGEST = 3  # words of a compound noun, such as "fire hydrant"
_PLURALS = (("s", ""), ("ses", "s"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"), ("men", "man"))
_VERBS = (("s", ""), ("es", ""), ("ies", "y"), ("ing", ""), ("ing", "e"), ("ed", ""), ("ed", "e"), ("ied", "y"))
# names that people give to things and that WordNet does not have above them
ALSO: Mapping[str, tuple[str, ...]] = {
    "sailboat": ("boat",), "ship": ("boat",), "football": ("ball",), "cap": ("hat",), "gift": ("present", "box"),
    "sign": ("signboard", "board", "placard"), "signboard": ("sign",), "placard": ("sign",), "poster": ("sign",),
    "girl": ("kid", "child"), "boy": ("kid", "child"), "baby": ("kid",), "clock": ("alarm clock",),
    "dress": ("clothes",), "shirt": ("clothes", "t-shirt"), "top hat": ("hat",), "cow": ("cattle", "bull"),
    "dog": ("pet",), "cat": ("pet",), "refrigerator": ("fridge",),
    "mouse": ("computer mouse",), "person": ("human", "figure"), "motorcycle": ("bike", "motorbike"),
    "bicycle": ("bike",), "tv": ("screen", "monitor"), "laptop": ("computer",),
    "cell phone": ("phone", "smartphone"), "potted plant": ("plant", "houseplant"), "dining table": ("table",),
    "couch": ("sofa",), "remote": ("remote control",), "rabbit": ("bunny",), "house": ("home", "cottage"),
    "train": ("locomotive",), "drum": ("drums",), "heart": ("shape",), "star": ("shape",), "kite": ("toy",),
    "robot": ("machine", "toy"), "moon": ("crescent",), "sports ball": ("ball",), "cake": ("dessert",),
    "cushion": ("pillow",), "pillow": ("cushion",), "bookshelf": ("bookcase",),
}  # fmt: skip
# wide words of everyday English, with what they are said of and WordNet does not have below them
UNDER: Mapping[str, tuple[str, ...]] = {
    "vehicle": ("bus", "train"), "boat": ("vessel",), "hat": ("hard hat",), "bag": ("suitcase",),
    "clothing": ("hoodie", "jeans", "shoe"), "dog": ("labrador",), "clothes": ("clothing",), "outfit": ("clothing",),
    "attire": ("clothing",), "furniture": ("nightstand", "bookshelf"), "drink": ("juice", "water"),
    "beverage": ("drink",), "building": ("lighthouse", "tower"), "flower": ("tulip", "daffodil", "rose", "lily"),
    "utensil": ("cutlery", "spatula", "ladle"), "luggage": ("bag",), "fabric": ("blanket", "curtain", "towel"),
    "livestock": ("cattle", "sheep", "goat", "pig"), "produce": ("fruit", "vegetable"), "meal": ("food",),
    "dish": ("food",), "breakfast": ("food",), "lunch": ("food",), "dinner": ("food",), "snack": ("food",),
    "treat": ("food",), "dessert": ("cake", "ice cream"), "electronics": ("computer", "television", "telephone"),
    "device": ("computer", "television", "telephone", "camera"), "phone": ("smartphone",), "screen": ("monitor",),
    "toy": ("ball",), "instrument": ("musical instrument",), "stall": ("stand",), "appliance": ("blender",),
}  # fmt: skip
# those of them that are meant in any sense of a noun: a table is furniture by its second sense
_ANY_SENSE = frozenset("vehicle furniture food clothing appliance drink building headgear fruit vegetable".split())

# things that WordNet has as persons or animals first
_NOT_LIVING = frozenset("poster stroller jumper bowler walker crane pitcher".split())
_NOT_KINDS = frozenset((("girl", "adult"),))  # by WordNet a girl is a young woman
_ALSO_NAMES = frozenset(ALSO).union(*ALSO.values())


@dataclass(frozen=True)
class Lexicon:
    """The sections of the file. relations: a line for each sense; words: a line for each word; irregular: its forms.

    The lines are parsed when they are asked for: few of the 100,000 words occur in texts about pictures.
    """

    relations: Sequence[str]
    words: Mapping[str, str]
    irregular: Mapping[str, str]

    def speech(self, word: str) -> str:
        """The parts of speech of a word in its basic form, the most frequent first, such as "nv"; "" if unknown."""
        return self.words.get(word, "").partition(" ")[0]

    def senses(self, noun: str) -> tuple[int, ...]:
        """The senses of a noun in the singular; 0 for one that is no physical thing."""
        return _numbers(self.words.get(noun.replace(" ", "_"), "").partition(" ")[2])

    def kinds(self, sense: int) -> tuple[int, ...]:
        """What a sense is directly a kind of."""
        return _numbers(self.relations[sense - 1].partition(";")[0])

    def wholes(self, sense: int) -> tuple[int, ...]:
        """What a sense is a part of."""
        return _numbers(self.relations[sense - 1].partition(";")[2])


@functools.cache
def lexicon() -> Lexicon:
    """The lexicon. The first call reads it (0.2 s)."""
    senses, words, irregular = gzip.decompress(FILE.read_bytes()).decode().split("\n\n")
    pairs = (line.split(" ", 1) for line in words.split("\n"))
    forms = (line.split(" ", 1) for line in irregular.split("\n"))
    return Lexicon(senses.split("\n"), dict(pairs), dict(forms))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split()))


@functools.lru_cache(50_000)
def singular(word: str) -> str:
    """A noun's singular, in lower case; the word itself if it is no plural of a known noun."""
    known = lexicon()
    if word in SINGULARS:
        return SINGULARS[word]
    if word.endswith("ss"):
        return word
    if word in known.irregular and "n" in known.speech(known.irregular[word]) and "n" not in known.speech(word):
        return known.irregular[word]
    # "glasses" is a noun of its own, and the plural of "glass": for naming things the plural is meant
    for ending, single in (("ies", "y"), ("ves", "f"), ("ves", "fe"), *_PLURALS[1:], _PLURALS[0], ("oes", "o")):
        stem = word[: -len(ending)] + single
        if word.endswith(ending) and len(stem) > 1 and "n" in known.speech(stem):
            # "shorts" are no plural of what is mostly an adjective
            return word if any(known.senses(word)) and known.speech(stem).startswith("a") else stem
    return word


@functools.lru_cache(50_000)
def verb_of(word: str) -> str:
    """The basic form of a verb's form, in lower case; "" for a word that is no form of a known verb."""
    known = lexicon()
    if "v" in known.speech(known.irregular.get(word, "")):
        return known.irregular[word]
    for ending, basic in _VERBS:
        stem = word[: -len(ending)] + basic
        if not word.endswith(ending) or len(stem) < 2:
            continue
        if "v" in known.speech(stem):
            return stem
        # "running", "stopped"
        if ending in ("ing", "ed") and not basic and stem[-1] == stem[-2] and "v" in known.speech(stem[:-1]):
            return stem[:-1]
    return word if "v" in known.speech(word) else ""


@functools.lru_cache(50_000)
def is_compound(words: str) -> bool:
    """Whether words with spaces are a noun of WordNet that names something physical, such as "fire hydrant"."""
    return any(lexicon().senses(words))


@functools.lru_cache(20_000)
def lineage(sense: int) -> frozenset[int]:
    """A sense, and all that it is a kind of."""
    return frozenset({sense}).union(*map(lineage, lexicon().kinds(sense)))


@functools.lru_cache(50_000)
def _physical(noun: str) -> tuple[int, ...]:
    """The physical senses of a noun; of a compound those of its last word's kind, if any: a hard hat is a hat."""
    found = tuple(sense for sense in lexicon().senses(noun) if sense)
    if " " not in noun:
        return found
    near = _near(_physical(noun.rpartition(" ")[2]))
    return tuple(sense for sense in found if lineage(sense) & near) or found


def _near(senses: Iterable[int]) -> set[int]:
    """Senses, and what they are directly kinds of."""
    return {one for sense in senses for one in (sense, *lexicon().kinds(sense))}


@functools.lru_cache(100_000)
def is_kind_of(noun: str, wider: str) -> bool:
    """Whether a noun is a synonym of another one or names a kind of it: a car, a vehicle.

    By the first physical sense of the noun, and the first two of the wider one: WordNet's later senses of "dog" and
    "bird" are persons. A compound that WordNet does not have is a kind of its last word.
    """
    if noun == wider or wider in ALSO.get(noun, ()):
        return True
    if not lexicon().senses(noun) and " " in noun:
        return is_kind_of(noun.partition(" ")[2], wider)
    if any(is_kind_of(noun, other) for other in UNDER.get(wider, ())):
        return True
    senses, owns = set(_physical(wider)), _physical(noun)
    if noun in _NOT_LIVING:
        living = lexicon().senses("living thing")[0]
        owns = tuple(own for own in owns if living not in lineage(own))
    if (noun, wider) in _NOT_KINDS:
        return False
    if not owns:
        return False
    # "a chicken" is meat first
    if len(owns) > 1 and _is_meat(owns[0]) and lexicon().senses("animal")[0] in lineage(owns[1]):
        owns = owns[1:]
    if wider in _ANY_SENSE:
        return any(lineage(own) & senses for own in owns)
    # "a boiled egg" is an egg, but a teddy bear is no bear
    if noun.endswith(f"ed {wider}"):
        return True
    # a compound is mostly of its last word's kind: a tennis racket, a racket; a fishing boat, as a boat is a vessel
    if noun.endswith(f" {wider}"):
        return bool(lineage(owns[0]) & _near(senses))
    # a synonym in any of its senses: a taxi, a cab
    first = {sense for sense in lexicon().senses(wider)[:2] if sense}
    meant = first & senses | ({owns[0]} & senses)
    # an animal is never meant by an aircraft: "amphibian"
    animal = lexicon().senses("animal")[0]
    if animal in lineage(owns[0]):
        meant |= {sense for sense in senses if animal in lineage(sense)}
    return bool(lineage(owns[0]) & meant)


def _is_meat(sense: int) -> bool:
    return any(one in lineage(sense) for one in lexicon().senses("food")[:2])


@functools.lru_cache(20_000)
def is_object(noun: str) -> bool:
    """Whether a noun names something that a picture can show: by its first sense, or an artifact by any sense.

    "A game" and "energy" are none: their first sense is abstract or a process. "A mug" is one: a later sense is an
    artifact. Names that people give to things (`ALSO`) are objects too.
    """
    known = lexicon()
    artifact, process = known.senses("artifact")[0], known.senses("physical process")[0]
    senses = known.senses(noun)
    first = bool(senses and senses[0]) and process not in lineage(senses[0])
    # a donkey is a party's symbol first
    animal = len(senses) > 1 and bool(senses[1]) and known.senses("animal")[0] in lineage(senses[1])
    return first or animal or noun in _ALSO_NAMES or any(one and artifact in lineage(one) for one in senses)


def is_part(noun: str) -> bool:
    """Whether a noun's first sense names a part of something by WordNet: a lapel, of a coat."""
    first = lexicon().senses(noun)[:1]
    return bool(first and first[0] and lexicon().wholes(first[0]))


def is_part_of(part: str, whole: str) -> bool:
    """Whether a noun names a part of another one by WordNet: a wheel, a car."""
    wholes = {whole for sense in lexicon().senses(part) if sense for whole in lexicon().wholes(sense)}
    return any(lineage(sense) & wholes for sense in lexicon().senses(whole)[:2] if sense)


# writing the file


def _index(folder: Path, part: str) -> Iterator[tuple[str, list[str]]]:
    """The words of a part of speech with their senses. The licence at the top of the file is indented."""
    for line in (folder / f"index.{part}").read_text(encoding="latin-1").splitlines():
        if not line.startswith(" "):
            fields = line.split()
            yield fields[0], fields[-int(fields[2]) :]


def _wholes(folder: Path) -> Mapping[str, list[str]]:
    """What each sense of a noun is a part of (pointer #p of wninput(5WN)), by ids such as "n02084071"."""
    found = {}
    for line in (folder / "data.noun").read_text(encoding="latin-1").splitlines():
        if not line.startswith(" "):
            fields = line.partition(" | ")[0].split()
            first = 4 + 2 * int(fields[3], 16)
            pointers = [fields[first + 1 + 4 * i :][:4] for i in range(int(fields[first]))]
            found[f"n{fields[0]}"] = [f"n{target}" for symbol, target, _, _ in pointers if symbol == "#p"]
    return found


def content_of(folder: Path) -> str:
    """The content of the file, from WordNet's folder."""
    # it needs a package of the training
    from models.kinds.classes import read_hypernyms
    from strata.snapshots.nouns import word_uses

    above, wholes, uses = read_hypernyms(folder / "data.noun"), _wholes(folder), word_uses(folder)
    named = {letter: part for part, letter in _PARTS.items()}

    @functools.cache
    def physical(sense: str) -> bool:
        return sense in _ROOTS or any(map(physical, above[sense]))

    # the senses that are physical, in the order of the file
    number = {sense: i for i, sense in enumerate(sorted(filter(physical, above)), 1)}
    senses = [
        f"{' '.join(str(number[a]) for a in above[sense] if a in number)};"
        f"{' '.join(str(number[a]) for a in wholes[sense] if a in number)}"
        for sense in number
    ]
    nouns = {word: [number.get(f"n{one}", 0) for one in found[:SENSES]] for word, found in _index(folder, "noun")}
    speech: defaultdict[str, list[str]] = defaultdict(list)
    for part, letter in _PARTS.items():
        for word, _ in _index(folder, part):
            if re.fullmatch(r"[a-z][a-z'-]*", word) or any(nouns.get(word, ())):
                speech[word].append(letter)
    lines = []
    for word, letters in sorted(speech.items()):
        if word.count("_") < _LONGEST:
            ordered = sorted(letters, key=lambda letter: -uses[word][named[letter]] if word in uses else 0)
            lines.append(" ".join([word, "".join(ordered), *map(str, nouns.get(word, ()))]))
    irregular: dict[str, str] = {}
    for part in ("noun", "verb"):
        for line in (folder / f"{part}.exc").read_text(encoding="latin-1").splitlines():
            form, basic = line.split()[:2]
            irregular.setdefault(form, basic)
    return "\n\n".join(["\n".join(senses), "\n".join(lines), "\n".join(map(" ".join, sorted(irregular.items())))])


if __name__ == "__main__":
    FILE.write_bytes(gzip.compress(content_of(Path(sys.argv[1])).encode(), mtime=0))
