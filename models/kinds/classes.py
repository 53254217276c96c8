"""Write `imagenet.json`, the ImageNet classes of each kind: `python -m models.kinds.classes DATA_NOUN`.

DATA_NOUN is WordNet 3.0's file of nouns, `/usr/share/wordnet/data.noun` of Debian's package wordnet-base. The order of
ImageNet's classes comes from timm.
"""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path

from timm.data.imagenet_info import ImageNetInfo

from models.kinds.coco import CLASSES, TABLE

UPWARDS = ("@", "@i")  # WordNet's pointers from a noun to what it is a kind of (wndb(5WN), wninput(5WN))


def read_hypernyms(path: Path) -> dict[str, list[str]]:
    """The synsets directly above each noun synset, by ids such as "n02084071". Raises OSError and ValueError."""
    above: dict[str, list[str]] = {}
    for line in path.read_text(encoding="latin-1").splitlines():
        # the licence at the top is indented
        if line.startswith(" "):
            continue
        # offset, file, type, number of words in hex, the words with an id each, number of pointers, the pointers
        fields = line.partition(" | ")[0].split()
        first = 4 + 2 * int(fields[3], 16)
        pointers = [fields[first + 1 + 4 * i :][:4] for i in range(int(fields[first]))]
        above[f"n{fields[0]}"] = [
            f"n{target}" for symbol, target, part, _ in pointers if symbol in UPWARDS and part == "n"
        ]
    return above


def ancestors(synset: str, above: dict[str, list[str]]) -> set[str]:
    """A synset and all that lie above it. Raises KeyError for an unknown synset."""
    found, waiting = set(), [synset]
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += above[one]
    return found


def classes_of(above: dict[str, list[str]]) -> dict[str, list[int]]:
    """The numbers of ImageNet's classes that support each kind, by the kind's word."""
    names = ImageNetInfo().label_names()
    lineages = [ancestors(name, above) for name in names]
    classes = {}
    for row in tomllib.loads(TABLE.read_text(encoding="utf-8"))["kind"]:
        meant = {*row.get("synsets", ()), *row.get("also", ())}
        if meant:
            classes[row["word"]] = [i for i, lineage in enumerate(lineages) if lineage & meant]
    return classes


def main(path: Path) -> None:
    """Write the file."""
    about = (
        "ImageNet's classes (0 to 999) of each kind of coco.toml; written by models/kinds/classes.py from WordNet 3.0"
    )
    lines = [f"  {json.dumps(word)}: {json.dumps(found)}" for word, found in classes_of(read_hypernyms(path)).items()]
    CLASSES.write_text(told(about, lines), encoding="utf-8")


def told(about: str, lines: list[str]) -> str:
    """The file's content: the lines of the kinds, and the first word of each class, WordNet's first lemma."""
    info = ImageNetInfo()
    words = [info.index_to_description(i).partition(",")[0] for i in range(info.num_classes())]
    # eight words a line
    rows = [", ".join(map(json.dumps, words[i : i + 8])) for i in range(0, len(words), 8)]
    body = ' "classes": {{\n{}\n }},\n "words": [\n  {}\n ]'.format(",\n".join(lines), ",\n  ".join(rows))
    return f'{{\n "about": {json.dumps(about)},\n{body}\n}}\n'


if __name__ == "__main__":
    main(Path(sys.argv[1]))
